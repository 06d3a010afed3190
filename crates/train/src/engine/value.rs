//! Batches of values, in buffers that are used again.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{LazyLock, Mutex, PoisonError};

use polyveil_net::Hw;

/// Bytes of idle buffers that one thread keeps, and bytes of large ones that are kept for all threads. Every step needs the same ones,
/// and asking the system for them each time costs more than the arithmetic on them.
const KEPT: usize = 1 << 30;
const LARGE_KEPT: usize = 2 << 30;

/// Values of a large buffer. Gradients are made by one thread and let go by another.
const LARGE: usize = 1 << 14;

/// A batch of values of one node, image by image, channel by channel.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// Images.
    pub(super) count: usize,
    /// Channels; features of a vector.
    pub(super) channels: usize,
    /// Rows and columns of a channel; `[1, 1]` for vectors.
    pub(super) size: Hw,
    /// `count · channels · rows · columns` values.
    pub(super) data: Buffer,
}

impl Value {
    /// Values yet to be written.
    pub(super) fn unset(count: usize, channels: usize, size: Hw) -> Self {
        Self { count, channels, size, data: Buffer::unset(count * channels * size[0] * size[1]) }
    }

    /// Zeros.
    pub(super) fn zeros(count: usize, channels: usize, size: Hw) -> Self {
        let mut value = Self::unset(count, channels, size);
        value.data.fill(0.0);
        value
    }

    /// As large as `self`, yet to be written.
    pub(super) fn like(&self) -> Self {
        Self::unset(self.count, self.channels, self.size)
    }

    /// Values of one channel of one image.
    pub(super) fn plane(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Values of one image.
    pub(super) fn image(&self) -> usize {
        self.channels * self.plane()
    }

    /// Every channel of every image, with the channel's index.
    pub(super) fn planes(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let channels = self.channels.max(1);
        self.data.chunks(self.plane().max(1)).enumerate().map(move |(i, p)| (i % channels, p))
    }

    /// One channel of every image.
    pub(super) fn channel(&self, channel: usize) -> impl Iterator<Item = &[f32]> {
        self.data.chunks(self.plane().max(1)).skip(channel).step_by(self.channels.max(1))
    }

    /// The same, to be changed.
    pub(super) fn channel_mut(&mut self, channel: usize) -> impl Iterator<Item = &mut [f32]> {
        let (plane, channels) = (self.plane().max(1), self.channels.max(1));
        self.data.chunks_mut(plane).skip(channel).step_by(channels)
    }

    /// Largest `|x|`; infinite where a value is not finite.
    pub(crate) fn max_abs(&self) -> f32 {
        // Bits of |x| order as |x| does, and those of NaN lie above those of infinity.
        let highest = self.data.iter().fold(0, |m, v| m.max(v.to_bits() & 0x7fff_ffff));
        let highest = f32::from_bits(highest);
        if highest.is_finite() { highest } else { f32::INFINITY }
    }
}

/// Plain numbers. The memory is used again by the thread that drops it, and if it is large by any.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<f32>);

#[derive(Default)]
struct Idle {
    /// By length, each with the time when it came back, the last one at the end.
    by_len: HashMap<usize, VecDeque<(u64, Vec<f32>)>>,
    bytes: usize,
    /// Counts what comes back.
    now: u64,
}

impl Idle {
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        let (_, found) = self.by_len.get_mut(&len).and_then(VecDeque::pop_back)?;
        self.bytes -= 4 * found.len();
        Some(found)
    }

    /// Keeps `values` among at most so many bytes: those that have been idle for longest make room. What an earlier phase of a run
    /// needed would else keep out what every step needs now.
    fn put(&mut self, values: Vec<f32>, most: usize) {
        let bytes = 4 * values.len();
        if bytes == 0 || bytes > most {
            return;
        }
        while self.bytes + bytes > most {
            let since =
                |alike: &&mut VecDeque<(u64, Vec<f32>)>| alike.front().map_or(u64::MAX, |oldest| oldest.0);
            let oldest = self.by_len.values_mut().min_by_key(since).and_then(VecDeque::pop_front);
            let Some((_, gone)) = oldest else { break };
            self.bytes -= 4 * gone.len();
        }
        self.bytes += bytes;
        self.now += 1;
        self.by_len.entry(values.len()).or_default().push_back((self.now, values));
    }
}

thread_local! {
    static IDLE: RefCell<Idle> = RefCell::default();
}

static SHARED: LazyLock<Mutex<Idle>> = LazyLock::new(Mutex::default);

/// Does something with the store for buffers of this length; nothing where a thread is ending and has no store any more.
fn idle<T>(len: usize, f: impl FnOnce(&mut Idle) -> T) -> Option<T> {
    if len >= LARGE {
        return Some(f(&mut SHARED.lock().unwrap_or_else(PoisonError::into_inner)));
    }
    IDLE.try_with(|idle| f(&mut idle.borrow_mut())).ok()
}

impl Buffer {
    /// Of this length; holds whatever an earlier use left.
    pub(super) fn unset(len: usize) -> Self {
        Self(idle(len, |idle| idle.take(len)).flatten().unwrap_or_else(|| vec![0.0; len]))
    }

    /// Zeros.
    pub(super) fn zeros(len: usize) -> Self {
        match idle(len, |idle| idle.take(len)).flatten() {
            Some(mut values) => {
                values.fill(0.0);
                Self(values)
            }
            None => Self(vec![0.0; len]),
        }
    }
}

impl From<&[f32]> for Buffer {
    fn from(values: &[f32]) -> Self {
        let mut buffer = Self::unset(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::from(&self.0[..])
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.0);
        let most = if values.len() < LARGE { KEPT } else { LARGE_KEPT };
        idle(values.len(), |idle| idle.put(values, most));
    }
}

impl Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_keep_their_length() {
        let address = {
            let mut buffer = Buffer::unset(1000);
            buffer.fill(3.0);
            buffer.as_ptr()
        };
        let again = Buffer::unset(1000);
        assert_eq!((again.as_ptr(), again.len()), (address, 1000));
        assert_eq!(Buffer::unset(7).len(), 7);
    }

    #[test]
    fn what_was_idle_for_longest_makes_room() {
        let mut idle = Idle::default();
        for len in [100, 200, 300] {
            idle.put(vec![0.0; len], 4 * 600);
        }
        assert_eq!(idle.bytes, 4 * 600);
        idle.put(vec![0.0; 200], 4 * 600);
        // Both of the first two had to go, the newer one of 200 stays.
        assert_eq!((idle.bytes, idle.take(100)), (4 * 500, None));
        assert!(idle.take(200).is_some() && idle.take(200).is_none() && idle.take(300).is_some());
        idle.put(vec![0.0; 601], 4 * 600);
        assert_eq!((idle.bytes, idle.take(601)), (0, None));
    }

    #[test]
    fn large_buffers_come_back_to_other_threads_and_zeros_are_zeros() {
        // A length that no other test asks for.
        let len = LARGE + 12_345;
        let address = std::thread::spawn(move || {
            let mut buffer = Buffer::unset(len);
            buffer.fill(3.0);
            buffer.as_ptr() as usize
        });
        let address = address.join().unwrap();
        let again = Buffer::zeros(len);
        assert_eq!(again.as_ptr() as usize, address);
        assert!(again.iter().all(|&v| v == 0.0));
    }

    #[test]
    fn the_largest_value_is_infinite_where_one_is_not_finite() {
        let mut value = Value::zeros(2, 3, [2, 2]);
        value.data[5] = -2.5;
        assert!((value.max_abs() - 2.5).abs() < f32::EPSILON);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            value.data[7] = bad;
            assert!(value.max_abs().is_infinite());
        }
    }
}
