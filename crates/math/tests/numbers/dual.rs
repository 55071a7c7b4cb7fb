//! Derivatives against differences, and what happens at the ends.

use proptest::prelude::*;
use tastemaker_math::dual::{Dual, log_sigmoid};

/// Every function of one number, with a domain it is smooth on.
type Case = (&'static str, fn(Dual) -> Dual, std::ops::Range<f64>);
const FUNCTIONS: &[Case] = &[
    ("powf", |x| x.powf(2.7), 0.1..9.0),
    ("powi", |x| x.powi(-3), 0.3..9.0),
    ("sigmoid", Dual::sigmoid, -9.0..9.0),
    ("log_sigmoid", Dual::log_sigmoid, -9.0..9.0),
    ("max", |x| x.max(Dual::constant(-1.0)), 0.1..9.0),
    ("number first", |x| 3.0 - 2.0 / (1.5 + x * x), 0.1..9.0),
    ("number second", |x| (x * x * 2.0 - 1.0) / 3.0 + 0.5, -9.0..9.0),
];

proptest! {
    #[test]
    fn derivatives_equal_central_differences(u in 0.0..1.0_f64) {
        for (name, function, domain) in FUNCTIONS {
            let x = domain.start + 1e-4 + u * (domain.end - domain.start - 2e-4);
            let h = 1e-5;
            let at = |x: f64| function(Dual::constant(x)).value;
            let slope = (at(x + h) - at(x - h)) / (2.0 * h);
            let dual = function(Dual::winner(x));
            prop_assert!((dual.d[0] - slope).abs() <= 1e-6 * (1.0 + slope.abs()), "{name} at {x}: {dual:?}, {slope}");
            prop_assert_eq!(dual.d[1], 0.0);
        }
    }

    #[test]
    fn products_and_quotients_follow_the_rules(x in 0.1..5.0_f64, y in 0.1..5.0_f64) {
        let (w, l) = (Dual::winner(x), Dual::loser(y));
        prop_assert_eq!((w * l).d, [y, x]);
        let quotient = (w / l).d;
        prop_assert!((quotient[0] - 1.0 / y).abs() < 1e-12 && (quotient[1] + x / (y * y)).abs() < 1e-12 * x / (y * y) + 1e-12);
        prop_assert_eq!((w - l).d, [1.0, -1.0]);
        prop_assert_eq!((w + l).d, [1.0, 1.0]);
    }
}

#[test]
fn log_sigmoid_is_finite_and_exact_at_both_ends() {
    assert_eq!(Dual::winner(-1e6).log_sigmoid(), Dual { value: -1e6, d: [1.0, 0.0] });
    assert_eq!(Dual::winner(1e6).log_sigmoid(), Dual { value: 0.0, d: [0.0, 0.0] });
    assert_eq!(log_sigmoid(0.0), -std::f64::consts::LN_2);
    assert!((log_sigmoid(40.0) + (-40.0_f64).exp()).abs() < 1e-30);
}

#[test]
fn a_constant_has_no_derivative_even_at_a_pole() {
    let zero = Dual::constant(0.0);
    assert_eq!([(1.0 / zero).d, zero.powi(-1).d, zero.powf(0.5).d], [[0.0; 2]; 3]);
}

#[test]
fn nan_is_never_hidden_by_max() {
    let (nan, zero) = (Dual::constant(f64::NAN), Dual::constant(0.0));
    assert!(nan.max(zero).value.is_nan() && zero.max(nan).value.is_nan());
}
