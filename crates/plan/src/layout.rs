//! Where the elements of a tensor sit: which ciphertext, which slot.
//!
//! A tensor `[C, H, W]` is laid out by splitting each axis into *digits* (least significant first);
//! each digit moves the element by a stride, either in the slot index or in the ciphertext number.
//! Channels in the low slot bits, gaps left by a stride filled with further channels (Lee et al.,
//! ICML 2022, multiplexed packing), rows spread over ciphertexts, and copies of the whole tensor
//! (`repeats`) are all digits, so that one formula covers every arrangement.

use serde::{Deserialize, Serialize};

/// What a digit moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// The slot index, by this many slots a step.
    Slot(usize),
    /// The ciphertext number, by this many a step.
    Cipher(usize),
}

/// One digit of an axis: `size` steps of `place`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digit {
    /// Number of values this digit takes.
    pub size: usize,
    /// What a step moves.
    pub place: Place,
}

impl Digit {
    /// A digit that moves in the slot index.
    #[must_use]
    pub fn slot(size: usize, stride: usize) -> Self {
        Self { size, place: Place::Slot(stride) }
    }

    /// A digit that moves in the ciphertext number.
    #[must_use]
    pub fn cipher(size: usize, stride: usize) -> Self {
        Self { size, place: Place::Cipher(stride) }
    }
}

/// The arrangement of a tensor `[C, H, W]` over ciphertexts of `slots` slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Channels, rows, columns.
    pub shape: [usize; 3],
    /// Slots of a ciphertext, a power of two.
    pub slots: usize,
    /// Number of ciphertexts.
    pub ciphertexts: usize,
    /// Digits of the channel, row and column axis, least significant first.
    pub axes: [Vec<Digit>; 3],
    /// Slot digits along which the tensor is repeated.
    pub repeats: Vec<Digit>,
    /// The images: how many, and the slots from one to the next.
    pub batch: Digit,
}

/// A slot that holds no element but is known to be zero.
pub const ZERO: u32 = u32::MAX;
/// A slot whose content is not used and not known.
pub const ANY: u32 = u32::MAX - 1;

/// What every slot of every ciphertext of a value holds: an element's index, [`ZERO`] or [`ANY`]. It is the same for every image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMap {
    /// One entry a slot of an image's block, one vector a ciphertext.
    pub ciphertexts: Vec<Vec<u32>>,
}

/// Whether a slot-map entry names an element.
#[must_use]
pub fn is_element(entry: u32) -> bool {
    entry < ANY
}

impl Layout {
    /// A feature vector of `n` values in slots `0..n`, repeated with the least power-of-two period.
    #[must_use]
    pub fn vector(n: usize, slots: usize) -> Self {
        let period = n.next_power_of_two().min(slots);
        let ciphertexts = n.div_ceil(period);
        let mut channel = vec![Digit::slot(period, 1)];
        if ciphertexts > 1 {
            channel.push(Digit::cipher(ciphertexts, 1));
        }
        let repeats = if period < slots { vec![Digit::slot(slots / period, period)] } else { vec![] };
        let batch = Digit::slot(1, slots);
        Self { shape: [n, 1, 1], slots, ciphertexts, axes: [channel, vec![], vec![]], repeats, batch }
    }

    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Ciphertext and slot of the first copy of element `(c, y, x)` of the first image.
    #[must_use]
    pub fn position(&self, c: usize, y: usize, x: usize) -> (usize, usize) {
        let parts = [self.along(0, c), self.along(1, y), self.along(2, x)];
        let (ct, slot) = parts.iter().fold((0, 0), |(ct, slot), part| (ct + part.0, slot + part.1));
        (ct, slot % self.block())
    }

    /// What index `at` of an axis (channel, row, column) adds to ciphertext number and slot.
    #[must_use]
    pub fn along(&self, axis: usize, at: usize) -> (usize, usize) {
        let (mut ct, mut slot, mut rest) = (0, 0, at);
        for digit in &self.axes[axis] {
            let value = rest % digit.size;
            rest /= digit.size;
            match digit.place {
                Place::Slot(stride) => slot += value * stride,
                Place::Cipher(stride) => ct += value * stride,
            }
        }
        (ct, slot)
    }

    /// Ciphertext and slot of a position beyond the borders, by continuing the axes; none where rows spread over ciphertexts
    /// in bands.
    #[must_use]
    pub fn beyond(&self, c: usize, y: i64, x: i64) -> Option<(usize, usize)> {
        let (mut ct, slot) = self.along(0, c);
        let mut slot = slot as i64;
        for (axis, at) in [(1, y), (2, x)] {
            let mut rest = at;
            for (k, digit) in self.axes[axis].iter().enumerate() {
                let last = k + 1 == self.axes[axis].len();
                let size = digit.size as i64;
                let value = if last { rest } else { rest.rem_euclid(size) };
                rest = if last { 0 } else { rest.div_euclid(size) };
                match digit.place {
                    Place::Slot(stride) => slot += value * stride as i64,
                    Place::Cipher(stride) if (0..size).contains(&value) => ct += value as usize * stride,
                    Place::Cipher(_) => return None,
                }
            }
            if rest != 0 {
                return None;
            }
        }
        Some((ct, slot.rem_euclid(self.block() as i64) as usize))
    }

    /// The least power of two `P` such that the content of an image's block repeats every `P` slots
    /// by construction (equal to the block where nothing repeats).
    #[must_use]
    pub fn period(&self) -> usize {
        self.repeats
            .iter()
            .find_map(|d| match d.place {
                Place::Slot(stride) if stride * d.size == self.block() => Some(stride),
                _ => None,
            })
            .unwrap_or(self.block())
    }

    /// Slots of a block up to the last that holds a first copy of an element.
    #[must_use]
    pub fn span(&self) -> usize {
        let digit = |d: &Digit| if let Place::Slot(stride) = d.place { (d.size - 1) * stride } else { 0 };
        self.axes.iter().flatten().map(digit).sum::<usize>() + 1
    }

    /// How far behind an element's first copy the one lies that is in the same copy of the tensor as slot `near`; modulo the block.
    #[must_use]
    pub fn copy_shift(&self, near: usize) -> usize {
        let shift = |d: &Digit| match d.place {
            Place::Slot(stride) => near / stride % d.size * stride,
            _ => 0,
        };
        self.repeats.iter().map(shift).sum()
    }

    /// The slots of all copies of an element whose first copy is at `base`, within one image's block.
    #[must_use]
    pub fn copies(&self, base: usize) -> Vec<usize> {
        let mut all = vec![base];
        for digit in &self.repeats {
            if let Place::Slot(stride) = digit.place {
                all = all
                    .iter()
                    .flat_map(|&s| (0..digit.size).map(move |k| (s + k * stride) % self.block()))
                    .collect();
            }
        }
        all
    }

    /// The slot map of a value in this layout whose other slots hold `rest` ([`ZERO`] or [`ANY`]).
    #[must_use]
    pub fn slot_map(&self, rest: u32) -> SlotMap {
        let mut ciphertexts = vec![vec![rest; self.block()]; self.ciphertexts];
        self.for_each_element(|element, ct, base| {
            for slot in self.copies(base) {
                ciphertexts[ct][slot] = element as u32;
            }
        });
        SlotMap { ciphertexts }
    }

    /// Whether the layout is sound: digits cover the shape, positions are in range and distinct.
    /// Files are checked with this before use.
    ///
    /// Costs little for digits that do not reach into each other, as the planner's never do; else
    /// every position is visited once.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        const LIMIT: usize = 1 << 26;
        const DIGITS: usize = 32;
        let product =
            |v: &[usize]| v.iter().try_fold(1usize, |n, &d| n.checked_mul(d).filter(|&n| n <= LIMIT));
        let span = |digits: &[Digit]| {
            let sizes: Vec<usize> = digits.iter().map(|d| d.size).collect();
            if digits.len() > DIGITS || sizes.contains(&0) { None } else { product(&sizes) }
        };
        let covered = self
            .axes
            .iter()
            .zip(self.shape)
            .all(|(axis, extent)| extent >= 1 && span(axis).is_some_and(|n| n >= extent));
        let (Some(_), Some(elements), Some(copies)) =
            (product(&[self.slots, self.ciphertexts]), product(&self.shape), span(&self.repeats))
        else {
            return false;
        };
        let stride_ok = |d: &Digit| match d.place {
            Place::Slot(s) => s >= 1 && s <= self.block(),
            Place::Cipher(s) => s >= 1 && s <= self.ciphertexts,
        };
        let repeats_ok = self.repeats.iter().all(|d| {
            matches!(d.place, Place::Slot(s) if s >= 1 && s.checked_mul(d.size).is_some_and(|e| e <= self.block()))
        });
        covered
            && self.slots.is_power_of_two()
            && self.batch_is_sound()
            && self.ciphertexts >= 1
            && repeats_ok
            && self.axes.iter().flatten().all(stride_ok)
            // Also bounds the work below: more positions than slots must overlap.
            && product(&[elements, copies]).is_some_and(|n| n <= self.block() * self.ciphertexts)
            && (self.digits_are_apart() || self.positions_are_distinct())
    }

    /// Whether every digit moves further than all smaller ones together, and none beyond the last slot
    /// or ciphertext: then all positions are distinct and in range. The sizes have been checked.
    fn digits_are_apart(&self) -> bool {
        let (mut slots, mut ciphertexts) = (Vec::new(), Vec::new());
        for digit in self.axes.iter().flatten().chain(&self.repeats).filter(|d| d.size > 1) {
            match digit.place {
                Place::Slot(stride) => slots.push((stride, digit.size)),
                Place::Cipher(stride) => ciphertexts.push((stride, digit.size)),
            }
        }
        [(slots, self.block()), (ciphertexts, self.ciphertexts)].into_iter().all(|(mut digits, end)| {
            digits.sort_unstable();
            let mut reach = 0usize;
            digits.into_iter().all(|(stride, size)| {
                let apart = stride > reach;
                reach = reach.saturating_add((size - 1).saturating_mul(stride));
                apart && reach < end
            })
        })
    }

    /// Visits every copy of every element until two meet.
    fn positions_are_distinct(&self) -> bool {
        let block = self.block();
        let mut seen = vec![false; block * self.ciphertexts];
        let [channels, rows, columns] = self.shape;
        (0..channels).all(|c| {
            (0..rows).all(|y| {
                (0..columns).all(|x| {
                    let (ct, base) = self.position(c, y, x);
                    ct < self.ciphertexts
                        && self
                            .copies(base)
                            .into_iter()
                            .all(|slot| !std::mem::replace(&mut seen[ct * block + slot], true))
                })
            })
        })
    }

    /// Calls `f(element, ciphertext, slot of the first copy)` for every element in row-major order.
    pub fn for_each_element(&self, mut f: impl FnMut(usize, usize, usize)) {
        let [channels, rows, columns] = self.shape;
        let mut element = 0;
        for c in 0..channels {
            for y in 0..rows {
                for x in 0..columns {
                    let (ct, slot) = self.position(c, y, x);
                    f(element, ct, slot);
                    element += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multiplexed_layout_is_a_bijection_and_round_trips() {
        // 6 channels of 4x4 at stride 2 of an 8x9 grid, two channels low, two in the column gap.
        let layout = Layout {
            shape: [6, 4, 4],
            slots: 256,
            ciphertexts: 2,
            axes: [
                vec![Digit::slot(2, 1), Digit::slot(2, 2), Digit::cipher(2, 1)],
                vec![Digit::slot(4, 2 * 9 * 2)],
                vec![Digit::slot(4, 2 * 2)],
            ],
            repeats: vec![],
            batch: Digit::slot(1, 256),
        };
        assert!(layout.is_sound());
        let values: Vec<f64> = (0..96).map(f64::from).collect();
        assert_eq!(layout.unpack(&layout.pack(std::slice::from_ref(&values))), [values]);
    }

    #[test]
    fn overlapping_digits_are_refused() {
        let mut layout = Layout::vector(10, 64);
        assert!(layout.is_sound());
        assert_eq!(layout.period(), 16);
        layout.axes[0] = vec![Digit::slot(5, 1), Digit::slot(2, 4)];
        assert!(!layout.is_sound());
    }

    #[test]
    fn digits_that_interleave_are_sound_where_no_positions_meet() {
        // Only 10 of the first digit's 16 values are used, so the second may start at 10.
        let mut layout = Layout::vector(10, 64);
        layout.shape = [10, 2, 1];
        layout.axes[1] = vec![Digit::slot(2, 10)];
        layout.repeats.clear();
        assert!(layout.is_sound() && !layout.digits_are_apart());
        layout.axes[1] = vec![Digit::slot(2, 9)];
        assert!(!layout.is_sound());
    }

    #[test]
    fn copies_beyond_all_slots_are_refused_before_they_are_listed() {
        let mut layout = Layout::vector(1, 1 << 15);
        layout.repeats = vec![Digit::slot(1 << 15, 1); 3];
        assert!(!layout.is_sound());
        layout.repeats = vec![Digit::slot(1, 1); 1 << 20];
        assert!(!layout.is_sound());
        layout.repeats = vec![Digit::slot(2, 0)];
        assert!(!layout.is_sound());
    }

    #[test]
    fn copies_stay_in_the_copy_of_the_near_slot() {
        let layout = Layout::vector(10, 64);
        assert_eq!(layout.copy_shift(0), 0);
        assert_eq!(layout.copy_shift(50), 48);
        assert_eq!(layout.copies(3), vec![3, 19, 35, 51]);
    }
}
