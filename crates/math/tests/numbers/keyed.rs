//! Keyed random numbers: known answers, the same bits everywhere, the distributions they are said to have.

use tastemaker_math::keyed::{Keyed, Stream, philox4x32};

#[test]
fn philox_gives_the_known_answers_of_random123() {
    let (zero, ones) = (philox4x32([0; 4], [0; 2]), philox4x32([u32::MAX; 4], [u32::MAX; 2]));
    assert_eq!(zero, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let digits_of_pi =
        philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
    assert_eq!(digits_of_pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

#[test]
fn normals_are_the_same_bits_on_every_platform() {
    let mut normals = [0.0_f32; 6];
    Keyed::new(7, Stream::Noise, 11, 13).fill_normal(&mut normals);
    let bits = normals.map(f32::to_bits);
    assert_eq!(bits, [3215463497, 1066793572, 1067357780, 1049477129, 3189489907, 1054730563]);
    assert_eq!(Keyed::new(7, Stream::Noise, 11, 13).normal() as f32, normals[0]);
}

#[test]
fn every_part_of_the_key_changes_the_numbers() {
    let first = |seed, stream, index, draw| Keyed::new(seed, stream, index, draw).next_u64();
    let all = [
        first(1, Stream::Noise, 2, 3),
        first(2, Stream::Noise, 2, 3),
        first(1 << 40, Stream::Noise, 2, 3),
        first(1, Stream::Timestep, 2, 3),
        first(1, Stream::Noise, 3, 3),
        first(1, Stream::Noise, 2 + (1 << 40), 3),
        first(1, Stream::Noise, 2, 4),
        first(1, Stream::Noise, 2, 3 + (1 << 40)),
    ];
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(first(1, Stream::Noise, 2, 3), all[0]);
}

#[test]
fn normals_have_the_moments_of_a_unit_gaussian() {
    let n = 1 << 20;
    let mut normals = vec![0.0_f32; n];
    Keyed::new(5, Stream::Noise, 0, 0).fill_normal(&mut normals);
    let moment = |power: i32| normals.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / n as f64;
    // Five standard errors of each moment over 2^20 samples
    for (power, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0_f64), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
        let tolerance = 5.0 * (variance / n as f64).sqrt();
        assert!((moment(power) - expected).abs() < tolerance, "moment {power}: {}", moment(power));
    }
    let neighbors = normals.windows(2).map(|pair| f64::from(pair[0] * pair[1])).sum::<f64>() / n as f64;
    assert!(neighbors.abs() < 5.0 / (n as f64).sqrt(), "neighbors correlate: {neighbors}");
}

#[test]
fn a_longer_slice_begins_like_a_shorter_one() {
    let fill = |n| {
        let mut normals = vec![0.0_f32; n];
        Keyed::new(1, Stream::Sample, 2, 3).fill_normal(&mut normals);
        normals
    };
    assert_eq!(fill(5), fill(64)[..5]);
}

#[test]
fn numbers_below_six_are_equally_likely() {
    let mut keyed = Keyed::new(0, Stream::Timestep, 0, 0);
    let mut counts = [0.0_f64; 6];
    (0..60_000).for_each(|_| counts[keyed.below(6) as usize] += 1.0);
    // Five degrees of freedom: 30.9 has p = 1e-5
    let chi_square: f64 = counts.iter().map(|count| (count - 10_000.0).powi(2) / 10_000.0).sum();
    assert!(chi_square < 30.9, "{counts:?}");
}

#[test]
fn uniforms_stay_in_the_half_open_unit_interval() {
    let mut keyed = Keyed::new(0, Stream::CaptionDropout, 0, 0);
    let uniforms: Vec<f64> = (0..100_000).map(|_| keyed.uniform()).collect();
    assert!(uniforms.iter().all(|u| (0.0..1.0).contains(u)));
    let mean = uniforms.iter().sum::<f64>() / uniforms.len() as f64;
    assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / uniforms.len() as f64).sqrt(), "{mean}");
}
