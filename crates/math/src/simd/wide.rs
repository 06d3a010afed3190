//! Plain loops, compiled for the vectors of the processor.
//!
//! A loop over `f32` values needs no intrinsics to be vectorised, only permission to use the registers. What is computed
//! stays the same: the compiler neither fuses nor reorders operations on numbers, so all back ends agree bit for bit.

use super::{Backend, backend};

/// A loop. `run` should be `#[inline(always)]`: what is not inlined is compiled for the least processor.
pub trait Loop {
    /// What it yields.
    type Output;

    /// Runs it.
    fn run(self) -> Self::Output;
}

/// Runs a loop with the vectors of the back end in use.
#[inline]
pub fn wide<L: Loop>(body: L) -> L::Output {
    wide_by(backend(), body)
}

#[inline]
fn wide_by<L: Loop>(backend: Backend, body: L) -> L::Output {
    match backend {
        Backend::Scalar => body.run(),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2(token) => token.wide(body),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512(token) => token.wide(body),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Polynomial<'a>(&'a mut [f32], &'a [f32]);

    impl Loop for Polynomial<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            let mut strands = [0.0f32; 8];
            for (y, x) in self.0.chunks_mut(8).zip(self.1.chunks(8)) {
                for ((y, x), s) in y.iter_mut().zip(x).zip(&mut strands) {
                    *y = (0.3 * x + 0.7) * x - 0.1;
                    *s += *y * x;
                }
            }
            strands.iter().sum()
        }
    }

    #[test]
    fn loops_equal_their_scalar_twin() {
        for len in [0, 1, 7, 8, 9, 1001] {
            let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin() * 3.0).collect();
            let run = |backend| {
                let mut y = vec![0.0; len];
                let sum = wide_by(backend, Polynomial(&mut y, &x));
                y.push(sum);
                y.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            let expected = run(Backend::Scalar);
            for backend in Backend::available() {
                assert_eq!(run(backend), expected, "{len} values with {}", backend.name());
            }
        }
    }
}
