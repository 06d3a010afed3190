//! What paired and repeated runs say.

/// McNemar's exact test, two-sided: how likely a split at least as uneven as `one` against `other` is, where
/// each of the images that only one of two networks gets right is as likely to be either's.
#[must_use]
pub fn mcnemar(one: usize, other: usize) -> f64 {
    let n = one + other;
    // log C(n, k) − n·log 2, step by step.
    let mut log = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = 0.0;
    for k in 0..=one.min(other) {
        tail += log.exp();
        log += ((n - k) as f64).ln() - ((k + 1) as f64).ln();
    }
    (2.0 * tail).min(1.0)
}

/// Mean and half-width of its 95 % interval by Student's t; no width for a single value.
#[must_use]
pub fn mean_interval(values: &[f64]) -> Option<(f64, Option<f64>)> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return Some((mean, None));
    }
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Some((mean, Some(t_quantile(values.len() - 1) * (variance / n).sqrt())))
}

/// The 97.5 % point of Student's t with this many degrees of freedom.
fn t_quantile(freedom: usize) -> f64 {
    const TABLE: [f64; 10] =
        [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281];
    if let Some(&value) = freedom.checked_sub(1).and_then(|i| TABLE.get(i)) {
        return value;
    }
    // Cornish–Fisher expansion around the normal's point (Abramowitz, Stegun 26.7.5).
    let z: f64 = 1.959_963_984_540_054;
    let v = freedom.max(1) as f64;
    z + (z.powi(3) + z) / (4.0 * v)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * v * v)
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * v.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mcnemar_matches_the_binomial() {
        assert_eq!(mcnemar(0, 0), 1.0);
        assert_eq!(mcnemar(5, 5), 1.0);
        // 2·(1 + 10)/1024
        assert!(
            (mcnemar(1, 9) - 22.0 / 1024.0).abs() < 1e-12 && (mcnemar(9, 1) - mcnemar(1, 9)).abs() < 1e-15
        );
        assert!(mcnemar(0, 2000) < 1e-100);
    }

    #[test]
    fn intervals_by_students_t() {
        assert_eq!(mean_interval(&[]), None);
        assert_eq!(mean_interval(&[3.0]), Some((3.0, None)));
        let (mean, width) = mean_interval(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(mean, 2.0);
        assert!((width.unwrap() - 4.3027 / 3f64.sqrt()).abs() < 1e-4);
        // Published points.
        for (freedom, expected) in [(11, 2.2010), (20, 2.0860), (60, 2.0003), (1000, 1.9623)] {
            assert!((t_quantile(freedom) - expected).abs() < 2e-4, "{freedom}: {}", t_quantile(freedom));
        }
    }
}
