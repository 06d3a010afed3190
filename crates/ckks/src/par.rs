//! Work spread over limbs: on rayon's threads with feature `parallel`, in order otherwise. Results are the same.

/// Calls `f(index, chunk)` on consecutive chunks of `size` values; the last may be shorter.
pub(crate) fn for_each_chunk(data: &mut [u64], size: usize, f: impl Fn(usize, &mut [u64]) + Sync + Send) {
    #[cfg(feature = "parallel")]
    {
        use rayon::prelude::*;
        data.par_chunks_mut(size).enumerate().for_each(|(i, chunk)| f(i, chunk));
    }
    #[cfg(not(feature = "parallel"))]
    data.chunks_mut(size).enumerate().for_each(|(i, chunk)| f(i, chunk));
}

/// Calls `f` on every item.
pub(crate) fn for_each<T: Send>(items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    #[cfg(feature = "parallel")]
    {
        use rayon::prelude::*;
        items.into_par_iter().for_each(f);
    }
    #[cfg(not(feature = "parallel"))]
    items.into_iter().for_each(f);
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
