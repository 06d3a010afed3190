//! Work spread over rayon's threads with feature `parallel`, in order otherwise. Results are the same.
//!
//! Parts of a small ring's operations take some ten microseconds, as long as it takes to wake a sleeping thread; so threads take item
//! after item instead of splitting a range, and one that waits for the last item of another looks for work a while before it sleeps.
//!
//! A thread that waits for others here does other work meanwhile, any that there is. So nothing here may be called while a lock is held,
//! nor while a `OnceLock` is filled: that work may want the same lock.

use polyveil_math::buffer::Buffer;
use std::sync::{Mutex, PoisonError};

/// Calls `f` on every item; each thread takes the next one when it is done with its last.
pub fn for_each<I>(items: I, f: impl Fn(I::Item) + Sync)
where
    I: ExactSizeIterator + Send,
    I::Item: Send,
{
    let threads = threads().min(items.len());
    if threads <= 1 {
        return items.for_each(f);
    }
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    on_threads(threads, &|| {
        while let Some(item) = next() {
            f(item);
        }
    });
}

/// Calls `f(index, chunk)` on consecutive chunks of `size` values; the last may be shorter.
pub fn for_each_chunk(data: &mut [u64], size: usize, f: impl Fn(usize, &mut [u64]) + Sync) {
    for_each(data.chunks_mut(size).enumerate(), |(i, chunk)| f(i, chunk));
}

/// `f(index, limb)` for every limb.
pub fn for_each_limb(limbs: &mut [Buffer], f: impl Fn(usize, &mut [u64]) + Sync) {
    for_each(limbs.iter_mut().enumerate(), |(i, limb)| f(i, limb));
}

/// `f(0) … f(count − 1)`, in order.
pub fn map<T: Send>(count: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let mut results: Vec<Option<T>> = std::iter::repeat_with(|| None).take(count).collect();
    for_each(results.iter_mut().enumerate(), |(i, result)| *result = Some(f(i)));
    results.into_iter().flatten().collect()
}

/// `f` of every item, in order.
///
/// # Errors
/// The first one, in order; the other items are computed nevertheless.
pub fn try_map<I, T: Send, E: Send>(items: I, f: impl Fn(I::Item) -> Result<T, E> + Sync) -> Result<Vec<T>, E>
where
    I: IntoIterator<IntoIter: ExactSizeIterator + Send, Item: Send>,
{
    let items = items.into_iter();
    let mut results: Vec<Option<Result<T, E>>> = std::iter::repeat_with(|| None).take(items.len()).collect();
    for_each(results.iter_mut().zip(items), |(result, item)| *result = Some(f(item)));
    results.into_iter().flatten().collect()
}

/// `f(0)` and `f(1)`: the two parts of a ciphertext.
pub fn both<T: Send>(f: impl Fn(usize) -> T + Sync) -> [T; 2] {
    join(|| f(0), || f(1)).into()
}

/// Each thread has `f(sum, i)` take its sum so far, at first `None`, to the next one, for one i of 0 … count − 1 after the other; the
/// sums of all threads are put together by `join`, in any order. `None` where there are none.
pub fn fold<T: Send>(
    count: usize,
    f: impl Fn(Option<T>, usize) -> T + Sync,
    join: impl Fn(T, T) -> T + Sync,
) -> Option<T> {
    // A thread that waits within `f` may begin here once more: it finds no sum then, and starts one.
    let waiting = Mutex::new(Vec::new());
    let lock = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    for_each(0..count, |i| {
        let sum = lock().pop();
        let sum = f(sum, i);
        lock().push(sum);
    });
    waiting.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().reduce(join)
}

/// Whether items of equal work are so few that threads which are done wait long for those with one more.
pub(crate) fn few(items: usize) -> bool {
    items < 8 * threads() && items % threads() != 0
}

#[cfg(not(feature = "parallel"))]
const fn threads() -> usize {
    1
}

#[cfg(feature = "parallel")]
fn threads() -> usize {
    rayon::current_num_threads()
}

/// Calls `work` once on each of so many threads, or more than once on one that finds no other.
fn on_threads(threads: usize, work: &(impl Fn() + Sync)) {
    if threads <= 1 {
        return work();
    }
    let half = threads / 2;
    join(|| on_threads(threads - half, work), || on_threads(half, work));
}

#[cfg(not(feature = "parallel"))]
fn join<A, B>(a: impl FnOnce() -> A, b: impl FnOnce() -> B) -> (A, B) {
    (a(), b())
}

#[cfg(feature = "parallel")]
fn join<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    use std::sync::atomic::{AtomicBool, Ordering};
    /// Set when `b` has ended, also by a panic.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let ended = AtomicBool::new(false);
    rayon::join(
        || {
            let result = a();
            for _ in 0..POLLS {
                if ended.load(Ordering::Acquire) {
                    break;
                }
                match rayon::yield_now() {
                    Some(rayon::Yield::Executed) => {}
                    _ => std::hint::spin_loop(),
                }
            }
            result
        },
        || {
            let _end = End(&ended);
            b()
        },
    )
}

/// How often a thread looks whether another has ended before it sleeps: about a millisecond.
#[cfg(feature = "parallel")]
const POLLS: usize = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once_and_in_its_place() {
        for count in [0, 1, 2, 3, 7, 1000] {
            assert_eq!(map(count, |i| i * i), (0..count).map(|i| i * i).collect::<Vec<_>>());
            let total = fold(count, |sum, i| sum.unwrap_or(0) + i + 1, |a, b| a + b);
            assert_eq!(total, (count > 0).then_some(count * (count + 1) / 2));
        }
        assert_eq!(try_map([1, 2, 3], |x| if x < 4 { Ok(2 * x) } else { Err(x) }), Ok(vec![2, 4, 6]));
        assert_eq!(try_map(0..100, |x| if x < 4 { Ok(()) } else { Err(x) }), Err(4));
        assert_eq!(both(|part| part + 5), [5, 6]);
        let mut data = [0; 10];
        for_each_chunk(&mut data, 4, |i, chunk| chunk.fill(i as u64 + 1));
        assert_eq!(data, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
    }

    #[test]
    fn parts_have_parts() {
        let sums = map(50, |i| {
            fold(i, |sum: Option<usize>, j| sum.unwrap_or(0) + map(j, |k| k).len(), |a, b| a + b).unwrap_or(0)
        });
        assert_eq!(sums, (0..50).map(|i: usize| i * i.saturating_sub(1) / 2).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_comes_through() {
        let caught = std::panic::catch_unwind(|| map(100, |i| assert_ne!(i, 70)));
        assert!(caught.is_err());
    }
}
