/// The exponent of the power law that fits points (amount, cost) best: the slope by least squares of the logarithms.
///
/// 0 means that the cost does not depend on the amount, 1 that it grows in proportion. `None` for fewer than two different
/// amounts; points that are not above zero do not count.
#[must_use]
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points
        .iter()
        .filter(|(amount, cost)| *amount > 0.0 && *cost > 0.0)
        .map(|(amount, cost)| (amount.ln(), cost.ln()))
        .collect();
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(|point| of(point) / logs.len() as f64).sum::<f64>();
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = logs.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let below: f64 = logs.iter().map(|point| (point.0 - x).powi(2)).sum();
    (below > 1e-9).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(points: &[(f64, f64)], expected: f64) {
        let found = exponent(points).unwrap();
        assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
    }

    #[test]
    fn powers_are_found() {
        for power in [-1.0, 0.0, 0.5, 1.0, 2.0] {
            let points = [100.0, 1_000.0, 10_000.0, 100_000.0].map(|x: f64| (x, 7.0 * x.powf(power)));
            near(&points, power);
        }
    }

    #[test]
    fn noise_on_both_sides_cancels_out() {
        near(&[(1.0, 2.0), (10.0, 5.0), (100.0, 2.0)], 0.0);
        near(&[(1.0, 10.0), (1.0, 0.1), (100.0, 1000.0), (100.0, 10.0)], 1.0);
    }

    #[test]
    fn too_little_says_nothing() {
        for points in [
            &[][..],
            &[(10.0, 1.0)],
            &[(10.0, 1.0), (10.0, 2.0)],
            &[(0.0, 1.0), (10.0, 0.0)],
        ] {
            assert_eq!(exponent(points), None);
        }
    }
}
