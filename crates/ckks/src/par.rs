//! Work spread over limbs: on rayon's threads with feature `parallel`, in order otherwise. Results are the same.

/// Calls `f(index, chunk)` on consecutive chunks of `size` values.
pub(crate) fn for_each_chunk(data: &mut [u64], size: usize, f: impl Fn(usize, &mut [u64]) + Sync + Send) {
    #[cfg(feature = "parallel")]
    {
        use rayon::prelude::*;
        data.par_chunks_exact_mut(size).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
    #[cfg(not(feature = "parallel"))]
    data.chunks_exact_mut(size).enumerate().for_each(|(i, chunk)| f(i, chunk));
}

/// Calls `f(index, chunk, other)` on the chunks of `size` values of `data` (the last may be shorter) with those of
/// `other_size` values of `others`.
pub(crate) fn for_each_pair(
    data: &mut [u64],
    size: usize,
    others: &mut [u64],
    other_size: usize,
    f: impl Fn(usize, &mut [u64], &mut [u64]) + Sync + Send,
) {
    #[cfg(feature = "parallel")]
    {
        use rayon::prelude::*;
        let pairs = data.par_chunks_mut(size).zip(others.par_chunks_exact_mut(other_size));
        pairs.enumerate().for_each(|(i, (chunk, other))| f(i, chunk, other));
    }
    #[cfg(not(feature = "parallel"))]
    for (i, (chunk, other)) in data.chunks_mut(size).zip(others.chunks_exact_mut(other_size)).enumerate() {
        f(i, chunk, other);
    }
}

/// `f(0)` and `f(1)`: the two parts of a ciphertext.
pub(crate) fn both<T: Send>(f: impl Fn(usize) -> T + Sync) -> [T; 2] {
    #[cfg(feature = "parallel")]
    return rayon::join(|| f(0), || f(1)).into();
    #[cfg(not(feature = "parallel"))]
    [f(0), f(1)]
}

/// `f(0) … f(count − 1)`.
pub(crate) fn map<T: Send>(count: usize, f: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    #[cfg(feature = "parallel")]
    {
        use rayon::prelude::*;
        (0..count).into_par_iter().map(f).collect()
    }
    #[cfg(not(feature = "parallel"))]
    (0..count).map(f).collect()
}
