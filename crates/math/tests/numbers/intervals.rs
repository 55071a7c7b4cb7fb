//! Intervals against published numbers and against their definitions.

use tastemaker_math::intervals::{Interval, WinCount, Z_95, bootstrap, mean, median, wilson};

#[test]
fn wilson_bounds_solve_the_score_equation() {
    for (successes, n) in [(0.0, 5), (3.0, 10), (62.5, 100), (40.0, 40)] {
        let Interval { estimate, low, high } = wilson(successes, n, Z_95).expect("n > 0");
        for bound in [low, high] {
            let off = (estimate - bound).abs() - Z_95 * (bound * (1.0 - bound) / n as f64).sqrt();
            assert!(off.abs() < 1e-9, "{successes} of {n}: {bound}");
        }
        assert!(low <= estimate && estimate <= high);
    }
}

#[test]
fn wilson_equals_the_published_example() {
    // 81 of 263: Newcombe (1998), Statistics in Medicine 17, table I, method 3
    let interval = wilson(81.0, 263, Z_95).expect("n > 0");
    assert!((interval.low - 0.2553).abs() < 5e-5 && (interval.high - 0.3662).abs() < 5e-5, "{interval:?}");
}

#[test]
fn ties_count_for_half_a_win() {
    let count = WinCount::of_scores(&[1.0, 2.0, 3.0, 4.0], &[1.0, 1.0, 4.0, 3.0]);
    assert_eq!(count, WinCount { wins: 2, ties: 1, losses: 1 });
    assert_eq!(count.wilson_95().map(|interval| interval.estimate), Some(0.625));
    assert_eq!(WinCount::default().wilson_95(), None);
}

#[test]
fn bootstrap_of_a_mean_is_as_wide_as_its_standard_error_says() {
    let values: Vec<f64> = (0..400).map(|i| f64::from(i % 20)).collect();
    let interval = bootstrap(&values, mean, 0.95, 4000, 1).expect("values");
    let standard_error = (33.25_f64 / 400.0).sqrt(); // variance of 0..20 is (20^2 - 1) / 12
    assert!((interval.estimate - 9.5).abs() < 1e-12);
    let width = (interval.high - interval.low) / (2.0 * Z_95 * standard_error);
    assert!((0.94..1.06).contains(&width), "{interval:?}, {width}");
    assert_eq!(bootstrap(&values, mean, 0.95, 4000, 1), Some(interval));
    assert_ne!(bootstrap(&values, mean, 0.95, 4000, 2), Some(interval));
}

#[test]
fn bootstrap_of_a_median_covers_it_and_nothing_gives_nothing() {
    let values = [5.0, 1.0, 2.0, 8.0, 3.0, 9.0, 4.0];
    let interval = bootstrap(&values, median, 0.95, 500, 0).expect("values");
    assert!(
        interval.low <= 4.0
            && interval.estimate == 4.0
            && interval.high >= 4.0
            && interval.low < interval.high
    );
    assert_eq!(bootstrap(&[], median, 0.95, 500, 0), None);
    assert_eq!(bootstrap(&values, median, 0.95, 0, 0), None);
}

#[test]
fn the_median_of_an_even_count_lies_between_the_middle_two() {
    assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    assert_eq!((median(&[]), mean(&[])), (None, None));
}
