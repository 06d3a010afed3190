//! Work spread over rayon's threads with feature `parallel`, in order otherwise. Results are the same.

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
