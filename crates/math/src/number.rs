//! Numbers as people write them.

/// A number for people: 15 digits, so that products show no rounding, and in scientific notation where it is small, as learning
/// rates are, or too large to be read digit by digit.
pub fn number(value: f64) -> String {
    let rounded = format!("{value:.14e}").parse().ok();
    // The largest one has nothing to be rounded up to.
    let value = rounded.filter(|rounded: &f64| rounded.is_finite()).unwrap_or(value);
    let is_plain = value == 0.0 || !value.is_finite() || (1e-3..1e15).contains(&value.abs());
    if is_plain { value.to_string() } else { format!("{value:e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_any_size_is_short_enough_to_read() {
        for (value, wanted) in [
            (0.0, "0"),
            (5000.0, "5000"),
            (0.9, "0.9"),
            (-0.25, "-0.25"),
            (6.000_000_000_000_001e-5, "6e-5"),
            (1e-320, "1e-320"),
            (-1e-320, "-1e-320"),
            (1e300, "1e300"),
            (123_456_789_012_345.0, "123456789012345"),
            (f64::MAX, "1.7976931348623157e308"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(number(value), wanted);
        }
    }
}
