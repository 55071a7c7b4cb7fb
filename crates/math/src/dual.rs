//! Forward-mode differentiation over the two numbers an objective depends on: the winner's and the loser's error.

use std::ops::{Add, Div, Mul, Neg, Sub};

/// A number with its derivatives.
///
/// A derivative that is 0 stays 0 whatever it is multiplied with, so a constant never turns into NaN at a pole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dual {
    /// The number itself.
    pub value: f64,
    /// Derivatives with respect to the winner's error and to the loser's error.
    pub d: [f64; 2],
}

impl Dual {
    /// A number that depends on neither error.
    pub const fn constant(value: f64) -> Self {
        Self { value, d: [0.0, 0.0] }
    }

    /// The winner's error itself.
    pub const fn winner(value: f64) -> Self {
        Self { value, d: [1.0, 0.0] }
    }

    /// The loser's error itself.
    pub const fn loser(value: f64) -> Self {
        Self { value, d: [0.0, 1.0] }
    }

    /// The chain rule: a function's value at `self` and its slope there.
    pub fn chain(self, value: f64, slope: f64) -> Self {
        Self { value, d: self.d.map(|d| if d == 0.0 { 0.0 } else { slope * d }) }
    }

    /// `x^power` for a constant power.
    pub fn powf(self, power: f64) -> Self {
        self.chain(self.value.powf(power), power * self.value.powf(power - 1.0))
    }

    /// `x^power` for a constant whole power.
    pub fn powi(self, power: i32) -> Self {
        self.chain(self.value.powi(power), f64::from(power) * self.value.powi(power - 1))
    }

    /// `1 / (1 + exp(-x))`, without overflow at either end.
    pub fn sigmoid(self) -> Self {
        self.chain(sigmoid(self.value), sigmoid(self.value) * sigmoid(-self.value))
    }

    /// `ln(1 / (1 + exp(-x)))`, without overflow or cancellation at either end.
    pub fn log_sigmoid(self) -> Self {
        self.chain(log_sigmoid(self.value), sigmoid(-self.value))
    }

    /// The larger of two numbers; `self` where they are equal. NaN wins, so that it cannot hide.
    pub fn max(self, other: Self) -> Self {
        if self.value >= other.value || self.value.is_nan() { self } else { other }
    }
}

/// `1 / (1 + exp(-x))`, without overflow at either end.
pub fn sigmoid(x: f64) -> f64 {
    let small = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + small) } else { small / (1.0 + small) }
}

/// `ln(sigmoid(x))`, without overflow or cancellation at either end.
pub fn log_sigmoid(x: f64) -> f64 {
    x.min(0.0) - (-x.abs()).exp().ln_1p()
}

impl Neg for Dual {
    type Output = Self;
    fn neg(self) -> Self {
        Self { value: -self.value, d: self.d.map(|d| -d) }
    }
}

impl Add for Dual {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { value: self.value + other.value, d: [self.d[0] + other.d[0], self.d[1] + other.d[1]] }
    }
}

impl Sub for Dual {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { value: self.value - other.value, d: [self.d[0] - other.d[0], self.d[1] - other.d[1]] }
    }
}

impl Mul for Dual {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let value = self.value * other.value;
        let (left, right) = (self.chain(value, other.value), other.chain(value, self.value));
        Self { value, d: [left.d[0] + right.d[0], left.d[1] + right.d[1]] }
    }
}

impl Div for Dual {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        let (above, below) =
            (self.chain(value, other.value.recip()), other.chain(value, -value / other.value));
        Self { value, d: [above.d[0] + below.d[0], above.d[1] + below.d[1]] }
    }
}

/// Every operator also takes a plain number on either side.
macro_rules! with_plain_numbers {
    ($($operator:ident $method:ident),*) => {$(
        impl $operator<f64> for Dual {
            type Output = Self;
            fn $method(self, other: f64) -> Self {
                $operator::$method(self, Self::constant(other))
            }
        }
        impl $operator<Dual> for f64 {
            type Output = Dual;
            fn $method(self, other: Dual) -> Dual {
                $operator::$method(Dual::constant(self), other)
            }
        }
    )*};
}

with_plain_numbers!(Add add, Sub sub, Mul mul, Div div);
