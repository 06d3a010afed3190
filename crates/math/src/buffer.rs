//! Large buffers that outlive one operation.
//!
//! Fresh memory costs a page fault per 4 kB; for polynomials of megabytes that took half the time of a key switch. Freed
//! buffers of at least 16 kB are therefore kept and handed out again where they fit within a quarter: 128 MiB of them, or more as
//! long as the process does not hold more than it once needed; those free for longest go first. Large ones serve for up to a
//! quarter of their size where a fresh one would have others go. Secrets do not go through here.
//!
//! What there is most of is made of buffers of one length, limbs ([`crate::limbs`]).
//!
//! Where the system has huge pages (2 MB), fresh buffers of 8 MB and more ask for them (`pages.rs`): keys are read from end to end by
//! every rotation, a new page each 4 kB.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pages::Words;

/// Words of the smallest buffer that is kept.
const MIN_WORDS: usize = 2 << 10;
/// Empty lists of buffers that are kept.
const MAX_LISTS: usize = 4 << 10;
/// Words that may be kept whatever was needed before.
const FREE_WORDS: usize = 16 << 20;

/// Words from which a buffer may be up to [`SPARE`] times as large as wanted.
const LARGE_WORDS: usize = 1 << 20;
const SPARE: usize = 4;

/// Words of a cache line: buffers start on one, as vector loads that cross lines cost twice.
const LINE: usize = 8;

/// Words that start on a cache line; they go back to the pool when dropped.
#[derive(Debug, Default)]
pub struct Buffer {
    words: Words,
    start: usize,
    len: usize,
}

impl Buffer {
    fn fit(mut words: Words, len: usize) -> Self {
        let start = words.fit(len, LINE);
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
        &self.words.values()[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.words.values_mut()[self.start..self.start + self.len]
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
            // What comes back is dropped after the lock.
            let _surplus = pool().give(words);
        }
    }
}

/// Free buffers.
#[derive(Debug)]
struct Pool {
    /// By capacity, each with the time when it was given back, the last one at the end.
    free: BTreeMap<usize, VecDeque<(u64, Words)>>,
    /// Empty lists, so that a list of buffers allocates nothing either.
    lists: Vec<Vec<Buffer>>,
    /// Counts what is given back.
    now: u64,
    /// Words of the free buffers, of those in use, and the most that were in use at a time.
    kept: usize,
    used: usize,
    most: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer with unspecified (but initialised) contents.
#[must_use]
pub fn take(len: usize) -> Buffer {
    let wanted = len + LINE - 1;
    let reused = if wanted < MIN_WORDS { Err(Vec::new()) } else { pool().take(wanted) };
    Buffer::fit(reused.unwrap_or_else(|surplus| fresh(wanted, surplus)), len)
}

/// Buffers of the same length each.
pub(crate) fn take_all(count: usize, len: usize) -> Vec<Buffer> {
    let wanted = len + LINE - 1;
    let mut pool = pool();
    let mut all = pool.lists.pop().unwrap_or_default();
    all.reserve(count);
    while all.len() < count {
        if wanted < MIN_WORDS {
            break;
        }
        match pool.take(wanted) {
            Ok(words) => all.push(Buffer::fit(words, len)),
            Err(surplus) => {
                drop(pool);
                all.push(Buffer::fit(fresh(wanted, surplus), len));
                pool = self::pool();
            }
        }
    }
    drop(pool);
    all.extend((all.len()..count).map(|_| Buffer::fit(Words::new(wanted), len)));
    all
}

/// Gives them back, and the list.
pub(crate) fn give_all(mut all: Vec<Buffer>) {
    let mut surplus = Vec::new();
    let mut pool = pool();
    for buffer in &mut all {
        if buffer.words.capacity() >= MIN_WORDS {
            surplus.extend(pool.give(std::mem::take(&mut buffer.words)));
        }
    }
    drop(pool);
    // Those that are left are small or hold nothing.
    all.clear();
    self::pool().keep_list(all);
}

/// New words; `surplus` is given back to the system first, so that both are never held together.
fn fresh(words: usize, surplus: Vec<Words>) -> Words {
    drop(surplus);
    let fresh = Words::new(words);
    if words >= MIN_WORDS {
        pool().use_more(fresh.capacity());
    }
    fresh
}

/// A buffer of zeros.
#[must_use]
pub fn take_zeroed(len: usize) -> Buffer {
    let mut buffer = take(len);
    buffer.fill(0);
    buffer
}

impl Pool {
    const fn new() -> Self {
        Self { free: BTreeMap::new(), lists: Vec::new(), now: 0, kept: 0, used: 0, most: 0 }
    }

    /// A kept buffer for `len` words, or those that have to go before a new one is made.
    fn take(&mut self, len: usize) -> Result<Words, Vec<Words>> {
        // Empty entries stay, so that the next buffer of that size is kept without an allocation.
        let spare = len >= LARGE_WORDS && !self.has_room(self.kept, self.used + len);
        let most = if spare { SPARE * len } else { len + len / 4 };
        let mut fitting = self.free.range_mut(len..=most);
        let Some((_, buffer)) = fitting.find_map(|(_, alike)| alike.pop_back()) else {
            return Err(self.surplus(self.used + len));
        };
        self.kept -= buffer.capacity();
        self.use_more(buffer.capacity());
        Ok(buffer)
    }

    fn use_more(&mut self, words: usize) {
        self.used += words;
        self.most = self.most.max(self.used);
    }

    /// Whether `used` words in use leave room for so many kept ones.
    fn has_room(&self, kept: usize, used: usize) -> bool {
        kept <= FREE_WORDS || kept + used <= self.most
    }

    /// Kept buffers for which there is no room beside so many words in use: those that have been free for longest.
    fn surplus(&mut self, used: usize) -> Vec<Words> {
        let mut surplus = Vec::new();
        while !self.has_room(self.kept, used) {
            let since =
                |alike: &&mut VecDeque<(u64, Words)>| alike.front().map_or(u64::MAX, |oldest| oldest.0);
            let Some((_, buffer)) = self.free.values_mut().min_by_key(since).and_then(VecDeque::pop_front)
            else {
                break;
            };
            self.kept -= buffer.capacity();
            surplus.push(buffer);
        }
        surplus
    }

    fn keep_list(&mut self, list: Vec<Buffer>) {
        if list.capacity() > 0 && self.lists.len() < MAX_LISTS {
            self.lists.push(list);
        }
    }

    /// Takes a buffer that is no longer in use; back come those that there is no room for.
    fn give(&mut self, buffer: Words) -> Vec<Words> {
        let capacity = buffer.capacity();
        self.used = self.used.saturating_sub(capacity);
        self.kept += capacity;
        self.now += 1;
        self.free.entry(capacity).or_default().push_back((self.now, buffer));
        self.surplus(self.used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(count: usize) -> Words {
        Words::Heap(vec![1; count])
    }

    #[test]
    fn buffers_come_back_where_they_fit() {
        let mut pool = Pool::new();
        let buffer = words(10_000);
        let address = buffer.values().as_ptr();
        assert!(pool.give(buffer).is_empty());
        assert!(pool.take(10_001).is_err() && pool.take(7_000).is_err());
        assert_eq!(pool.take(9_000).map(|b| b.values().as_ptr()).ok(), Some(address));
        assert!(pool.take(9_000).is_err());
        assert_eq!((pool.kept, pool.used), (0, 10_000));
    }

    #[test]
    fn never_more_is_held_than_was_needed() {
        let sizes = |buffers: Vec<Words>| buffers.iter().map(Words::capacity).collect::<Vec<_>>();
        let mut pool = Pool::new();
        // Nothing was ever in use, so only what is kept in any case is.
        assert_eq!(sizes(pool.give(words(FREE_WORDS + 1))), [FREE_WORDS + 1]);
        pool.use_more(3 * FREE_WORDS);
        assert!(pool.give(words(2 * FREE_WORDS)).is_empty());
        assert!(pool.give(words(FREE_WORDS / 2)).is_empty());
        assert_eq!((pool.kept, pool.used, pool.most), (5 * FREE_WORDS / 2, FREE_WORDS / 2, 3 * FREE_WORDS));
        // All room is taken: the one that was given back first goes, then what is kept in any case may stay.
        let surplus = pool.take(FREE_WORDS / 32).unwrap_err();
        assert_eq!(sizes(surplus), [2 * FREE_WORDS]);
        assert!(pool.take(4 * FREE_WORDS).unwrap_err().is_empty());
        pool.use_more(4 * FREE_WORDS);
        assert_eq!((pool.kept, pool.most), (FREE_WORDS / 2, 9 * FREE_WORDS / 2));
    }

    #[test]
    fn the_last_size_in_use_is_kept() {
        let mut pool = Pool::new();
        pool.use_more(3 * FREE_WORDS);
        for size in [FREE_WORDS, FREE_WORDS, FREE_WORDS / 2] {
            assert!(pool.give(words(size)).is_empty());
        }
        // Another layer's size: the oldest one makes room for it.
        pool.use_more(FREE_WORDS / 4);
        let gone = pool.give(words(FREE_WORDS / 4));
        assert_eq!(gone.iter().map(Words::capacity).collect::<Vec<_>>(), [FREE_WORDS]);
        assert!(pool.take(FREE_WORDS / 4).is_ok());
        assert_eq!((pool.kept, pool.used), (3 * FREE_WORDS / 2, 3 * FREE_WORDS / 4));
    }

    #[test]
    fn large_buffers_serve_for_less_before_others_go() {
        let mut pool = Pool::new();
        pool.use_more(2 * FREE_WORDS);
        for size in [FREE_WORDS, FREE_WORDS / 2, FREE_WORDS / 2] {
            assert!(pool.give(words(size)).is_empty());
        }
        // No room for another one: the least that is large enough is taken.
        let quarter = FREE_WORDS / 4;
        let mut taken = || pool.take(quarter).map(|buffer| buffer.capacity()).ok();
        assert_eq!([taken(), taken()], [Some(FREE_WORDS / 2); 2]);
        // Not for something small, though.
        assert!(pool.give(words(FREE_WORDS / 2)).is_empty());
        assert!(pool.take(LARGE_WORDS / 2).is_err());
        // Where there is room for a fresh one, that is as large as wanted.
        let mut pool = Pool::new();
        pool.use_more(4 * FREE_WORDS);
        for size in [2 * FREE_WORDS, FREE_WORDS] {
            assert!(pool.give(words(size)).is_empty());
        }
        pool.used = 0;
        assert!(pool.take(quarter).is_err());
    }

    #[test]
    fn lengths_and_zeros_are_as_asked() {
        // The last of them ask for huge pages.
        for len in [0, 5, 8 << 10, 9 << 10, 2 << 20, (2 << 20) + 3] {
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
