//! Several images in one set of ciphertexts.
//!
//! The batch digit is the highest of the slot index: image *b* has the slots from `b · block` on, and what the other digits say of
//! a slot holds within every block. All images have the same weights, so a weight vector repeats with the block at the latest and
//! costs the encoding of one block, however many images it serves. A rotation moves all blocks alike; what it carries across the
//! border between two images is treated as what it is, a slot that holds something else.

use crate::layout::{Digit, Layout, Place};

impl Layout {
    /// Slots of one image: the least from one image to the next.
    #[must_use]
    pub const fn block(&self) -> usize {
        match self.batch.place {
            Place::Slot(stride) => stride,
            Place::Cipher(_) => self.slots,
        }
    }

    /// Number of images.
    #[must_use]
    pub const fn images(&self) -> usize {
        self.batch.size
    }

    /// This layout of one image, which fills the slots, once for each of `images`: as many as the next power of two fit.
    #[must_use]
    pub fn for_images(self, images: usize) -> Self {
        let block = self.slots;
        Self { slots: block * images.next_power_of_two(), batch: Digit::slot(images, block), ..self }
    }

    /// Whether images have blocks that are a power of two and fill all slots.
    pub(crate) fn batch_is_sound(&self) -> bool {
        let blocks = self.batch.size.checked_next_power_of_two().filter(|_| self.batch.size >= 1);
        matches!(self.batch.place, Place::Slot(block)
            if block >= 1 && blocks.and_then(|n| n.checked_mul(block)) == Some(self.slots))
    }

    /// Whether every slot of every ciphertext holds an element, so that there is nothing to be masked.
    pub(crate) fn is_full(&self) -> bool {
        let copies: usize = self.repeats.iter().map(|d| d.size).product();
        self.elements() * copies == self.ciphertexts * self.block()
    }

    /// One value an element (row-major `[C, H, W]`), the same for all images, as slot vectors of one period, a power of two;
    /// other slots are zero.
    #[must_use]
    pub fn pattern(&self, values: &[f64]) -> Vec<Vec<f64>> {
        let period = self.period();
        let mut ciphertexts = vec![vec![0.0; period]; self.ciphertexts];
        self.place(values, 0, &mut ciphertexts);
        ciphertexts
    }

    /// Places one value an element and image (row-major `[C, H, W]`) into slot vectors; other slots are zero. Blocks beyond the
    /// images given hold the last one again, so that nothing lies there that no image would put there.
    #[must_use]
    pub fn pack(&self, images: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut ciphertexts = vec![vec![0.0; self.slots]; self.ciphertexts];
        if let Some(last) = images.len().checked_sub(1) {
            for (block, start) in (0..self.slots).step_by(self.block()).enumerate() {
                self.place(&images[block.min(last)], start, &mut ciphertexts);
            }
        }
        ciphertexts
    }

    /// Reads the first copy of every element back, row-major `[C, H, W]`, image after image.
    #[must_use]
    pub fn unpack(&self, ciphertexts: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mut images = vec![vec![0.0; self.elements()]; self.images()];
        self.for_each_element(|element, ct, base| {
            for (image, slot) in images.iter_mut().zip((base..).step_by(self.block())) {
                image[element] = ciphertexts[ct][slot];
            }
        });
        images
    }

    /// Writes one image whose block begins at slot `start`, as far as the vectors go.
    fn place(&self, values: &[f64], start: usize, ciphertexts: &mut [Vec<f64>]) {
        self.for_each_element(|element, ct, base| {
            for slot in self.copies(base) {
                if let Some(at) = ciphertexts[ct].get_mut(start + slot) {
                    *at = values[element];
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_channels() -> Layout {
        Layout {
            shape: [2, 3, 1],
            slots: 8,
            ciphertexts: 1,
            axes: [vec![Digit::slot(2, 1)], vec![Digit::slot(3, 2)], vec![]],
            repeats: vec![],
            batch: Digit::slot(1, 8),
        }
    }

    #[test]
    fn images_round_trip_and_spare_blocks_repeat_the_last() {
        let layout = two_channels().for_images(3);
        assert!(layout.is_sound());
        assert_eq!((layout.slots, layout.block(), layout.images()), (32, 8, 3));
        let images: Vec<Vec<f64>> = (0..3).map(|b| (0..6).map(|k| f64::from(10 * b + k)).collect()).collect();
        let packed = layout.pack(&images);
        assert_eq!(layout.unpack(&packed), images);
        assert_eq!(packed[0][16..24], packed[0][24..32]);
        assert_eq!(layout.unpack(&layout.pack(&images[..2]))[2], images[1]);
        assert_eq!(layout.pattern(&images[1]), [packed[0][8..16].to_vec()]);
    }

    #[test]
    fn blocks_that_do_not_fill_the_slots_are_refused() {
        let good = two_channels().for_images(4);
        for batch in [
            Digit::slot(0, 8),
            Digit::slot(5, 8),
            Digit::slot(2, 8),
            Digit::slot(4, 4),
            Digit::slot(usize::MAX, 8),
            Digit::cipher(4, 1),
            Digit::slot(4, 0),
        ] {
            assert!(!Layout { batch, ..good.clone() }.is_sound(), "{batch:?}");
        }
        assert!(Layout { batch: Digit::slot(3, 8), ..good.clone() }.is_sound());
        // Digits stay within a block.
        let mut reaching = good;
        reaching.axes[1] = vec![Digit::slot(3, 4)];
        assert!(!reaching.is_sound());
    }

    #[test]
    fn patterns_have_the_least_period() {
        assert_eq!(Layout::vector(3, 16).pattern(&[1.0, 2.0, 3.0]), [[1.0, 2.0, 3.0, 0.0]]);
        assert!(Layout::vector(4, 4).for_images(4).is_full());
        assert!(!Layout::vector(3, 4).for_images(4).is_full());
    }
}
