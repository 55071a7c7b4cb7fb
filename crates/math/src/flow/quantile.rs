//! Quantiles of the normal and of the symmetric beta distribution.

/// The number that a unit gaussian is below with probability `p`, to 1e-15 of itself.
///
/// Source: Wichura, "The percentage points of the normal distribution" (1988), algorithm AS 241, PPND16.
pub(super) fn normal_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * ratio(&CENTER, r);
    }
    if p <= 0.0 || p >= 1.0 {
        return q * f64::INFINITY;
    }
    let r = (-p.min(1.0 - p).ln()).sqrt();
    let x = if r <= 5.0 { ratio(&SIDES, r - 1.6) } else { ratio(&TAILS, r - 5.0) };
    if q < 0.0 { -x } else { x }
}

/// A quotient of two polynomials of degree seven, coefficients from the constant on.
fn ratio([above, below]: &[[f64; 8]; 2], x: f64) -> f64 {
    let horner = |coefficients: &[f64; 8]| coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c);
    horner(above) / horner(below)
}

#[expect(clippy::excessive_precision, reason = "as published")]
const CENTER: [[f64; 8]; 2] = [
    [
        3.387_132_872_796_366_608_0,
        1.331_416_678_917_843_774_5e+2,
        1.971_590_950_306_551_442_7e+3,
        1.373_169_376_550_946_112_5e+4,
        4.592_195_393_154_987_145_7e+4,
        6.726_577_092_700_870_085_3e+4,
        3.343_057_558_358_812_810_5e+4,
        2.509_080_928_730_122_672_7e+3,
    ],
    [
        1.0,
        4.231_333_070_160_091_125_2e+1,
        6.871_870_074_920_579_083_0e+2,
        5.394_196_021_424_751_107_7e+3,
        2.121_379_430_158_659_586_7e+4,
        3.930_789_580_009_271_061_0e+4,
        2.872_908_573_572_194_267_4e+4,
        5.226_495_278_852_854_561_0e+3,
    ],
];

#[expect(clippy::excessive_precision, reason = "as published")]
const SIDES: [[f64; 8]; 2] = [
    [
        1.423_437_110_749_683_577_34,
        4.630_337_846_156_545_295_90,
        5.769_497_221_460_691_405_50,
        3.647_848_324_763_204_605_04,
        1.270_458_252_452_368_382_58,
        2.417_807_251_774_506_117_70e-1,
        2.272_384_498_926_918_458_33e-2,
        7.745_450_142_783_414_076_40e-4,
    ],
    [
        1.0,
        2.053_191_626_637_758_821_87,
        1.676_384_830_183_803_849_40,
        6.897_673_349_851_000_045_50e-1,
        1.481_039_764_274_800_745_90e-1,
        1.519_866_656_361_645_719_66e-2,
        5.475_938_084_995_344_946_00e-4,
        1.050_750_071_644_416_843_24e-9,
    ],
];

#[expect(clippy::excessive_precision, reason = "as published")]
const TAILS: [[f64; 8]; 2] = [
    [
        6.657_904_643_501_103_777_20,
        5.463_784_911_164_114_369_90,
        1.784_826_539_917_291_335_80,
        2.965_605_718_285_048_912_30e-1,
        2.653_218_952_657_612_309_30e-2,
        1.242_660_947_388_078_438_60e-3,
        2.711_555_568_743_487_578_15e-5,
        2.010_334_399_292_288_132_65e-7,
    ],
    [
        1.0,
        5.998_322_065_558_879_376_90e-1,
        1.369_298_809_227_358_053_10e-1,
        1.487_536_129_085_061_485_25e-2,
        7.868_691_311_456_132_591_00e-4,
        1.846_318_317_510_054_681_80e-5,
        1.421_511_758_316_445_888_70e-7,
        2.044_263_103_389_939_785_64e-15,
    ],
];

/// The number that a beta variable with both parameters `a` is below with probability `p`.
pub(super) fn beta_quantile(p: f64, a: f64) -> f64 {
    if p > 0.5 {
        return 1.0 - beta_quantile(1.0 - p, a);
    }
    if p <= 0.0 {
        return 0.0;
    }
    // The integral up to the middle is half of the whole, so no gamma function is needed.
    let whole = 2.0 * incomplete_beta(0.5, a);
    let wanted = p * whole;
    // Newton's method on the logarithm of x, on which the integral is nearly a power law.
    let mut x = (wanted * a).powf(1.0 / a).min(0.5);
    for _ in 0..20 {
        let found = incomplete_beta(x, a);
        let slope = (x * (1.0 - x)).powf(a - 1.0) * x;
        x = (x * ((wanted - found) / slope).exp()).min(0.5);
    }
    x
}

/// The integral of `(t (1 - t))^(a - 1)` from 0 to `x`, `x` at most one half: `x^a sum (1 - a)_k / k! x^k / (a + k)`.
fn incomplete_beta(x: f64, a: f64) -> f64 {
    let mut power = 1.0;
    let mut sum = 0.0;
    for k in 0..64 {
        let k = f64::from(k);
        sum += power / (a + k);
        power *= x * (k + 1.0 - a) / (k + 1.0);
    }
    x.powf(a) * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const NORMAL: [(f64, f64); 5] = [
        (1e-12, -7.034483825301131),
        (0.001, -3.090232306167813),
        (0.07, -1.4757910281791706),
        (0.1, -1.2815515655446004),
        (0.25, -0.6744897501960817),
    ];
    const BETA: [(f64, f64); 6] = [
        (1e-06, 1.8558824624053043e-10),
        (0.01, 0.0008612388215429059),
        (0.14285714285714285, 0.07114202617035977),
        (0.3, 0.23401700387523572),
        (0.7, 0.7659829961247643),
        (0.99, 0.9991387611784571),
    ];

    /// From scipy 1.17's `norm.ppf` and `beta.ppf`.
    #[test]
    fn quantiles_are_those_of_scipy() {
        for (p, expected) in NORMAL {
            let found = normal_quantile(p);
            assert!((found - expected).abs() <= 1e-14 * expected.abs(), "{p}: {found}");
        }
        assert_eq!([normal_quantile(0.5), normal_quantile(0.875)], [0.0, -normal_quantile(0.125)]);
        for (p, expected) in BETA {
            let found = beta_quantile(p, 0.6);
            assert!((found - expected).abs() <= 1e-13 * expected, "{p}: {found}");
        }
        assert_eq!([0.0, 0.5, 1.0].map(|p| beta_quantile(p, 0.6)), [0.0, 0.5, 1.0]);
    }
}
