//! How precise results are: errors of many slots, and what they mean in bits.

/// Errors of slot values against what was expected, collected with [`PrecisionStats::add`] over as many vectors as
/// wanted. Nothing is kept of single slots.
///
/// The precision of a slot is −log2|error| in bits, that is, absolute: divide by the magnitude of the values first for a
/// relative one. An error below [`PrecisionStats::RESOLUTION`] times the expected magnitude (or times 1, if that is smaller) is
/// below what `f64` resolves and counts as that, so that precisions are finite.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PrecisionStats {
    count: usize,
    non_finite: usize,
    largest: f64,
    smallest: Option<f64>,
    sum: f64,
    squares: f64,
    bits: f64,
}

impl PrecisionStats {
    /// Relative resolution of `f64`, 2^−52.
    pub const RESOLUTION: f64 = f64::EPSILON;

    /// Statistics of one vector.
    #[must_use]
    pub fn of(found: &[f64], expected: &[f64]) -> Self {
        let mut stats = Self::default();
        stats.add(found, expected);
        stats
    }

    /// Adds slots: `found[j] − expected[j]` for each slot that both have.
    pub fn add(&mut self, found: &[f64], expected: &[f64]) {
        for (found, expected) in found.iter().zip(expected) {
            let error = found - expected;
            self.count += 1;
            if !error.is_finite() {
                self.non_finite += 1;
                continue;
            }
            let size = error.abs().max(Self::RESOLUTION * expected.abs().max(1.0));
            self.largest = self.largest.max(size);
            self.smallest = Some(self.smallest.map_or(size, |s| s.min(size)));
            self.sum += error;
            self.squares += error * error;
            self.bits -= size.log2();
        }
    }

    /// Slots that were added.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Slots whose error is infinite or not a number. They have no part in means, and make the least precision −∞.
    #[must_use]
    pub const fn non_finite(&self) -> usize {
        self.non_finite
    }

    /// The largest absolute error; infinite if a slot was not finite, 0 without slots.
    #[must_use]
    pub const fn max_error(&self) -> f64 {
        if self.non_finite > 0 { f64::INFINITY } else { self.largest }
    }

    /// The mean error, sign included: a bias shows here. 0 without slots.
    #[must_use]
    pub fn mean_error(&self) -> f64 {
        self.sum / self.finite()
    }

    /// Root of the mean squared error: what the formulas of [`crate::noise`] predict.
    #[must_use]
    pub fn rms_error(&self) -> f64 {
        (self.squares / self.finite()).sqrt()
    }

    /// Standard deviation of the error about its mean.
    #[must_use]
    pub fn std_error(&self) -> f64 {
        // Rounding may leave a negative difference where all errors agree.
        (self.squares / self.finite() - self.mean_error().powi(2)).max(0.0).sqrt()
    }

    /// Bits of the least precise slot.
    #[must_use]
    pub fn min_bits(&self) -> f64 {
        -self.max_error().log2()
    }

    /// Mean of the slots' bits.
    #[must_use]
    pub fn mean_bits(&self) -> f64 {
        self.bits / self.finite()
    }

    /// Bits of the most precise slot.
    #[must_use]
    pub fn max_bits(&self) -> f64 {
        -self.smallest.unwrap_or(self.largest).log2()
    }

    fn finite(&self) -> f64 {
        (self.count - self.non_finite).max(1) as f64
    }
}

impl std::fmt::Display for PrecisionStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (min, mean, max) = (self.min_bits(), self.mean_bits(), self.max_bits());
        write!(f, "{min:.1} bits at least, {mean:.1} on average, {max:.1} at most; ")?;
        write!(f, "error {:.2e} at most, {:.2e} rms", self.max_error(), self.rms_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_known_errors() {
        let stats = PrecisionStats::of(&[1.5, 1.875, 3.125, 4.0], &[1.0, 2.0, 3.0, 4.25]);
        assert_eq!((stats.count(), stats.non_finite()), (4, 0));
        // Errors 1/2, −1/8, 1/8, −1/4.
        assert_eq!((stats.max_error(), stats.mean_error()), (0.5, 0.0625));
        let squares = 0.25 + 2.0 / 64.0 + 0.0625;
        assert!((stats.rms_error() - (squares / 4.0f64).sqrt()).abs() < 1e-15);
        assert!((stats.std_error() - (squares / 4.0 - 0.0625f64.powi(2)).sqrt()).abs() < 1e-15);
        assert_eq!((stats.min_bits(), stats.mean_bits(), stats.max_bits()), (1.0, 2.25, 3.0));
        assert!(stats.to_string().contains("1.0 bits at least, 2.2 on average"), "{stats}");
    }

    #[test]
    fn vectors_add_up() {
        let (found, expected) = ([0.1, 0.2, 0.3, 0.7], [0.0, 0.25, 0.3, 0.5]);
        let mut parts = PrecisionStats::of(&found[..1], &expected[..1]);
        parts.add(&found[1..], &expected[1..]);
        assert_eq!(parts, PrecisionStats::of(&found, &expected));
    }

    #[test]
    fn exact_values_have_the_resolution_of_f64() {
        let stats = PrecisionStats::of(&[1.0, 1024.0], &[1.0, 1024.0]);
        assert_eq!((stats.max_bits(), stats.min_bits()), (52.0, 42.0));
        assert_eq!(stats.rms_error(), 0.0);
        assert_eq!(PrecisionStats::default().mean_error(), 0.0);
    }

    #[test]
    fn what_is_not_finite_shows() {
        let stats = PrecisionStats::of(&[1.0, f64::NAN, f64::INFINITY], &[1.5, 0.0, 0.0]);
        assert_eq!((stats.non_finite(), stats.max_error()), (2, f64::INFINITY));
        assert_eq!((stats.min_bits(), stats.mean_bits(), stats.rms_error()), (f64::NEG_INFINITY, 1.0, 0.5));
    }
}
