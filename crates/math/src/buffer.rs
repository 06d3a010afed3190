//! Large buffers that outlive one operation.
//!
//! Fresh memory costs a page fault per 4 kB; for polynomials of megabytes that took half the time of a key switch. Freed
//! buffers of at least 64 kB are therefore kept, 128 MiB of them at most for the whole process, and handed out again
//! where they fit within a quarter. Secrets do not go through here.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Words of the smallest buffer that is kept.
const MIN_WORDS: usize = 8 << 10;
/// Words that are kept at most.
const MAX_WORDS: usize = 16 << 20;

/// Words of a cache line: buffers start on one, as vector loads that cross lines cost twice.
const LINE: usize = 8;

/// Words that start on a cache line; they go back to the pool when dropped.
#[derive(Debug, Default)]
pub struct Buffer {
    words: Vec<u64>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn fit(mut words: Vec<u64>, len: usize) -> Self {
        words.resize(len + LINE - 1, 0);
        let start = words.as_ptr().align_offset(LINE * size_of::<u64>()).min(LINE - 1);
        Self { words, start, len }
    }

    /// Forgets what lies behind the first `len` words.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Buffer {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.words[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.words[self.start..self.start + self.len]
    }
}

impl From<&[u64]> for Buffer {
    fn from(words: &[u64]) -> Self {
        let mut buffer = take(words.len());
        buffer.copy_from_slice(words);
        buffer
    }
}

impl From<Vec<u64>> for Buffer {
    fn from(words: Vec<u64>) -> Self {
        Self::from(&words[..])
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Buffer {}

impl Drop for Buffer {
    fn drop(&mut self) {
        let words = std::mem::take(&mut self.words);
        if words.capacity() >= MIN_WORDS {
            POOL.lock().unwrap_or_else(PoisonError::into_inner).give(words);
        }
    }
}

/// Free buffers by capacity, and their words together.
#[derive(Debug)]
struct Pool {
    free: BTreeMap<usize, Vec<Vec<u64>>>,
    words: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), words: 0 });

/// A buffer with unspecified (but initialised) contents.
#[must_use]
pub fn take(len: usize) -> Buffer {
    let wanted = len + LINE - 1;
    let reused = (len >= MIN_WORDS)
        .then(|| POOL.lock().unwrap_or_else(PoisonError::into_inner).take(wanted))
        .flatten();
    Buffer::fit(reused.unwrap_or_else(|| vec![0; wanted]), len)
}

/// A buffer of zeros.
#[must_use]
pub fn take_zeroed(len: usize) -> Buffer {
    let mut buffer = take(len);
    buffer.fill(0);
    buffer
}

impl Pool {
    fn take(&mut self, len: usize) -> Option<Vec<u64>> {
        // Empty entries stay, so that the next buffer of that size is kept without an allocation.
        let buffer = self.free.range_mut(len..=len + len / 4).find_map(|(_, buffers)| buffers.pop())?;
        self.words -= buffer.capacity();
        Some(buffer)
    }

    fn give(&mut self, buffer: Vec<u64>) {
        let capacity = buffer.capacity();
        if self.words + capacity <= MAX_WORDS {
            self.words += capacity;
            self.free.entry(capacity).or_default().push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_within_bounds() {
        let mut pool = Pool { free: BTreeMap::new(), words: 0 };
        let buffer = vec![1; 10_000];
        let address = buffer.as_ptr();
        pool.give(buffer);
        assert!(pool.take(10_001).is_none() && pool.take(7_000).is_none());
        assert_eq!(pool.take(9_000).map(|b| b.as_ptr()), Some(address));
        assert!(pool.take(9_000).is_none() && pool.words == 0);
        pool.give(vec![0; MAX_WORDS + 1]);
        assert_eq!(pool.words, 0);
        for _ in 0..10 {
            pool.give(vec![0; MAX_WORDS / 4]);
        }
        assert_eq!(pool.words, MAX_WORDS);
    }

    #[test]
    fn lengths_and_zeros_are_as_asked() {
        for len in [0, 5, 8 << 10, 9 << 10] {
            take(len).fill(7);
            assert_eq!(*take_zeroed(len), vec![0; len]);
            let buffer = take(len);
            assert_eq!((buffer.len(), buffer.as_ptr().align_offset(64)), (len, 0));
        }
        let mut buffer = Buffer::from(&[1, 2, 3][..]);
        buffer.truncate(2);
        assert_eq!(*buffer.clone(), [1, 2]);
    }
}
