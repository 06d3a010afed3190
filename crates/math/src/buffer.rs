//! Large buffers that outlive one operation.
//!
//! Fresh memory costs a page fault per 4 kB; for polynomials of megabytes that took half the time of a key switch. Freed
//! buffers of at least 64 kB are therefore kept, 128 MiB of them at most for the whole process, and handed out again
//! where they fit within a quarter. Secrets do not go through here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Words of the smallest buffer that is kept.
const MIN_WORDS: usize = 8 << 10;
/// Words that are kept at most.
const MAX_WORDS: usize = 16 << 20;

/// Free buffers by capacity, and their words together.
#[derive(Debug)]
struct Pool {
    free: BTreeMap<usize, Vec<Vec<u64>>>,
    words: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), words: 0 });

/// A buffer with unspecified (but initialised) contents.
#[must_use]
pub fn take(len: usize) -> Vec<u64> {
    let reused =
        (len >= MIN_WORDS).then(|| POOL.lock().unwrap_or_else(PoisonError::into_inner).take(len)).flatten();
    match reused {
        Some(mut buffer) => {
            buffer.resize(len, 0);
            buffer
        }
        None => vec![0; len],
    }
}

/// A buffer of zeros.
#[must_use]
pub fn take_zeroed(len: usize) -> Vec<u64> {
    let mut buffer = take(len);
    buffer.fill(0);
    buffer
}

/// Gives a buffer back; it is freed if it is small or enough are kept.
pub fn give(buffer: Vec<u64>) {
    if buffer.capacity() >= MIN_WORDS {
        POOL.lock().unwrap_or_else(PoisonError::into_inner).give(buffer);
    }
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
            give(vec![7; len]);
            assert_eq!(take_zeroed(len), vec![0; len]);
            assert_eq!(take(len).len(), len);
        }
    }
}
