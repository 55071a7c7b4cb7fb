//! The convex problem behind [`preference`](super::preference): logistic regression on differences.

/// Length of the gradient below which the weights count as found: scores then move by hundredths of a nat at most.
const TOLERANCE: f64 = 1e-4;

/// Steps after which the search ends in any case; the embedded art takes about a hundred.
const MOST_STEPS: usize = 1000;

/// Weights that minimize the mean of `-ln sigmoid(weights . difference)` plus `l2 / 2 * |weights|^2`.
///
/// Accelerated gradient descent, its step set by a bound on the curvature, restarted whenever momentum leads uphill.
/// The problem is strictly convex, so the answer does not depend on where the search starts.
///
/// # Shapes
/// `differences` `[n][d]`, n > 0; the result `[d]`.
///
/// Source: Nesterov (1983), Soviet Mathematics Doklady 27; restarts after O'Donoghue and Candès (2015), Foundations of
/// Computational Mathematics 15.
pub(super) fn fit_differences(differences: &[Vec<f32>], l2: f64) -> Vec<f64> {
    let step = 1.0 / (0.25 * largest_second_moment(differences) + l2); // the slope of a sigmoid is at most 1/4
    let mut weights = vec![0.0; differences[0].len()];
    let mut ahead = weights.clone();
    let mut momentum: f64 = 1.0;
    for _ in 0..MOST_STEPS {
        let slope = gradient(differences, &ahead, l2);
        let next: Vec<f64> = ahead.iter().zip(&slope).map(|(at, slope)| at - step * slope).collect();
        if slope.iter().map(|slope| slope * slope).sum::<f64>() < TOLERANCE * TOLERANCE {
            return next;
        }
        let moved: Vec<f64> = next.iter().zip(&weights).map(|(next, before)| next - before).collect();
        if slope.iter().zip(&moved).map(|(slope, moved)| slope * moved).sum::<f64>() > 0.0 {
            momentum = 1.0;
        }
        let grown = 0.5 * (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt());
        let carried = (momentum - 1.0) / grown;
        ahead = next.iter().zip(&moved).map(|(next, moved)| next + carried * moved).collect();
        (weights, momentum) = (next, grown);
    }
    weights
}

fn gradient(differences: &[Vec<f32>], weights: &[f64], l2: f64) -> Vec<f64> {
    let mut slope: Vec<f64> = weights.iter().map(|weight| l2 * weight).collect();
    for difference in differences {
        // d(-ln sigmoid(m)) / dm = -sigmoid(-m)
        let pull = -1.0 / (1.0 + dot(difference, weights).exp());
        add_scaled(&mut slope, pull / differences.len() as f64, difference);
    }
    slope
}

/// Largest eigenvalue of the second moment of the differences, by power iteration, with a tenth to spare.
fn largest_second_moment(differences: &[Vec<f32>]) -> f64 {
    const N_ITERATIONS: usize = 30;
    // The first difference lies in the space they span, as a fixed direction might not.
    let mut direction: Vec<f64> = differences[0].iter().map(|&value| f64::from(value)).collect();
    let mut eigenvalue = 0.0;
    for _ in 0..N_ITERATIONS {
        let length = direction.iter().map(|value| value * value).sum::<f64>().sqrt();
        if length == 0.0 {
            break;
        }
        let mut image = vec![0.0; direction.len()];
        for difference in differences {
            let along = dot(difference, &direction) / length;
            add_scaled(&mut image, along / differences.len() as f64, difference);
        }
        eigenvalue = image.iter().map(|value| value * value).sum::<f64>().sqrt();
        direction = image;
    }
    1.1 * eigenvalue
}

/// Inner product, in double precision.
pub(super) fn dot(a: &[f32], b: &[f64]) -> f64 {
    // Eight running sums let the compiler use vector registers; a single one would fix the order of additions.
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        for (sum, (&a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += f64::from(a) * b;
        }
    }
    sums.iter().sum()
}

fn add_scaled(to: &mut [f64], scale: f64, values: &[f32]) {
    for (to, &value) in to.iter_mut().zip(values) {
        *to += scale * f64::from(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tastemaker_math::{Keyed, Stream};

    #[test]
    fn one_input_gives_the_weight_of_the_stationary_point() {
        // One difference of 1: l2 * w = sigmoid(-w), whose root for l2 = 0.1 was found by bisection here.
        let [mut low, mut high] = [0.0f64, 10.0];
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            let uphill = 0.1 * middle > 1.0 / (1.0 + middle.exp());
            *(if uphill { &mut high } else { &mut low }) = middle;
        }
        let weights = fit_differences(&[vec![1.0]], 0.1);
        assert!((weights[0] - low).abs() < 1e-3, "{} against {low}", weights[0]);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss_and_vanishes_at_the_answer() {
        let mut keyed = Keyed::new(1, Stream::Data, 0, 0);
        let differences: Vec<Vec<f32>> =
            (0..20).map(|_| (0..5).map(|_| keyed.normal() as f32 + 0.3).collect()).collect();
        let l2 = 0.05;
        let loss = |weights: &[f64]| {
            let of_pair = |difference: &Vec<f32>| (-dot(difference, weights)).exp().ln_1p();
            differences.iter().map(of_pair).sum::<f64>() / 20.0
                + 0.5 * l2 * weights.iter().map(|weight| weight * weight).sum::<f64>()
        };
        let at = [0.4, -0.2, 0.1, 0.7, -0.5];
        for (axis, slope) in gradient(&differences, &at, l2).into_iter().enumerate() {
            let moved = |by: f64| {
                let mut moved = at;
                moved[axis] += by;
                loss(&moved)
            };
            assert!((slope - (moved(1e-5) - moved(-1e-5)) / 2e-5).abs() < 1e-8);
        }
        let answer = fit_differences(&differences, l2);
        assert!(gradient(&differences, &answer, l2).iter().all(|slope| slope.abs() < TOLERANCE));
    }

    #[test]
    fn power_iteration_bounds_the_curvature() {
        let differences = [vec![3.0, 0.0], vec![0.0, 1.0]];
        let bound = largest_second_moment(&differences);
        assert!((4.5..=4.96).contains(&bound), "{bound}"); // eigenvalues 9 / 2 and 1 / 2
    }

    #[test]
    fn winners_equal_to_losers_teach_nothing() {
        assert_eq!(fit_differences(&[vec![0.0; 3], vec![0.0; 3]], 0.1), [0.0; 3]);
    }
}
