//! The plain mode: slots in `f64`, no noise. Exact up to rounding, so what it computes is what the
//! plan means.

use polyveil_ckks::CkksError;

use crate::backend::{Backend, Weights};

/// Slots in the clear.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

/// `out[s] = x[(s + r) mod n]`.
pub(crate) fn rotated(x: &[f64], r: usize) -> Vec<f64> {
    let mut out = x.to_vec();
    let n = out.len().max(1);
    out.rotate_left(r % n);
    out
}

/// `acc[s] += x[s]·w[s mod period]`.
pub(crate) fn accumulate(acc: &mut [f64], x: &[f64], period: &[f64]) {
    for (block, values) in acc.chunks_mut(period.len()).zip(x.chunks(period.len())) {
        for ((a, v), w) in block.iter_mut().zip(values).zip(period) {
            *a += v * w;
        }
    }
}

impl Backend for Plain {
    type Cipher = Vec<f64>;

    fn drop_to(&self, x: &Self::Cipher, _level: usize) -> Result<Self::Cipher, CkksError> {
        Ok(x.clone())
    }

    fn rotate_many(&self, x: &Self::Cipher, rotations: &[usize]) -> Result<Vec<Self::Cipher>, CkksError> {
        Ok(rotations.iter().map(|&r| rotated(x, r)).collect())
    }

    fn weighted_sum(&self, products: &[(&Self::Cipher, Weights)]) -> Result<Self::Cipher, CkksError> {
        let mut acc = vec![0.0; products.first().map_or(0, |(x, _)| x.len())];
        for (x, w) in products {
            accumulate(&mut acc, x, &w.period);
        }
        Ok(acc)
    }

    fn sum(&self, terms: &[&Self::Cipher]) -> Result<Self::Cipher, CkksError> {
        let mut acc = vec![0.0; terms.first().map_or(0, |x| x.len())];
        for x in terms {
            accumulate(&mut acc, x, &[1.0]);
        }
        Ok(acc)
    }

    fn add_assign(&self, x: &mut Self::Cipher, y: &Self::Cipher) -> Result<(), CkksError> {
        accumulate(x, y, &[1.0]);
        Ok(())
    }

    fn mask(&self, x: &Self::Cipher, mask: &[f64], _scale: f64) -> Result<Self::Cipher, CkksError> {
        Ok(x.iter().zip(mask.iter().cycle()).map(|(v, m)| v * m).collect())
    }

    fn rescale(&self, x: &Self::Cipher, _scale: f64) -> Result<Self::Cipher, CkksError> {
        Ok(x.clone())
    }

    fn constant(&self, mut x: Self::Cipher, factor: f64, _scale: f64) -> Result<Self::Cipher, CkksError> {
        x.iter_mut().for_each(|v| *v *= factor);
        Ok(x)
    }

    fn add_slots(&self, x: &Self::Cipher, slots: &[f64]) -> Result<Self::Cipher, CkksError> {
        Ok(x.iter().zip(slots.iter().cycle()).map(|(v, b)| v + b).collect())
    }

    fn square(&self, x: &Self::Cipher, _scale: f64) -> Result<Self::Cipher, CkksError> {
        Ok(x.iter().map(|v| v * v).collect())
    }
}
