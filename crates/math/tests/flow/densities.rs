//! Where training draws its levels.

use super::{assert_near, family, golden};
use serde::Deserialize;
use tastemaker_math::flow::{Density, FlowSchedule, Weighting};
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::schedule::NoiseSchedule;

#[derive(Deserialize)]
struct Recorded {
    family: String,
    scheme: String,
    logit_mean: Option<f64>,
    logit_std: Option<f64>,
    mode_scale: Option<f64>,
    probabilities: Vec<f64>,
    sigmas: Vec<f64>,
}

#[test]
fn quantiles_of_every_scheme_are_the_entries_diffusers_looks_up() {
    for case in golden::<Recorded>("densities") {
        let density = match (case.scheme.as_str(), case.logit_mean.zip(case.logit_std), case.mode_scale) {
            ("none", ..) => Density::Uniform,
            (_, Some((mean, std)), _) => Density::LogitNormal { mean, std },
            (_, _, Some(scale)) => Density::Mode { scale },
            (other, ..) => panic!("{other}"),
        };
        let flow = family(&case.family);
        let found: Vec<f64> = case.probabilities.iter().map(|&p| density.sigma(p, &flow)).collect();
        assert_near(&found, &case.sigmas, 2e-7, &format!("{} {density:?}", case.family));
    }
}

#[test]
fn published_quantiles_come_out_to_every_printed_digit() {
    let sigmoid = |shift| Density::Sigmoid { scale: 1.0, shift };
    // The finest table there is shows the density without the steps of a table.
    let even = FlowSchedule::with_shift(100_000_000, 1.0);
    for (density, wanted) in [
        (Density::LogitNormal { mean: 0.0, std: 1.0 }, [0.2173, 0.3375, 0.5, 0.6625, 0.7827]),
        (sigmoid(1.0), [0.2173, 0.3375, 0.5, 0.6625, 0.7827]),
        (Density::Logsnr { mean: 0.0, std: 2.0 }, [0.2173, 0.3375, 0.5, 0.6625, 0.7827]),
        (sigmoid(2.0), [0.3570, 0.5047, 0.6667, 0.7970, 0.8781]),
        (sigmoid(3.0), [0.4544, 0.6045, 0.75, 0.8548, 0.9153]),
        (sigmoid(6.0), [0.6249, 0.7535, 0.8571, 0.9217, 0.9558]),
        (sigmoid(0.63_f64.exp()), [0.3426, 0.4889, 0.6525, 0.7866, 0.8712]),
    ] {
        let found = [0.1, 0.25, 0.5, 0.75, 0.9].map(|p| density.sigma(p, &even));
        let near = found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 5.1e-5);
        assert!(near, "{density:?}: {found:?}, wanted {wanted:?}");
    }
    let mode = Density::Mode { scale: 1.29 };
    for (p, u) in [(0.1, 0.802_568_5), (0.5, 0.5), (0.9, 0.197_431_5)] {
        assert!((mode.sigma(p, &even) - (1.0 - u)).abs() < 6e-8, "{p}");
    }
}

#[test]
fn draws_fall_at_or_below_a_quantile_as_often_as_it_says_and_are_never_clean() {
    let flow = FlowSchedule::with_shift(1000, 3.0);
    let schedule = NoiseSchedule::of_flow(flow).expect("a flow");
    for density in [
        Density::Uniform,
        Density::LogitNormal { mean: 0.0, std: 1.0 },
        Density::Mode { scale: 1.29 },
        Density::Sigmoid { scale: 1.0, shift: 3.0 },
        Density::Logsnr { mean: -1.0, std: 1.5 },
    ] {
        density.check().expect("a density");
        let draws: Vec<f64> = (0..4000)
            .map(|id| schedule.draw(density, &mut Keyed::new(7, Stream::Timestep, id, 0)).sigma())
            .collect();
        assert!(draws.iter().all(|&sigma| sigma > 0.0 && sigma <= 1.0), "{density:?}");
        let mut before = 0.0;
        for p in [0.05, 0.3, 0.5, 0.8, 0.97] {
            let quantile = density.sigma(p, &flow);
            assert!(quantile >= before, "{density:?}: quantiles rise");
            before = quantile;
            let below = draws.iter().filter(|&&sigma| sigma <= quantile).count() as f64 / 4000.0;
            assert!((below - p).abs() < 0.03, "{density:?}: {below} of draws lie below quantile {p}");
        }
        let ends = [0.0, 1.0].map(|p| density.sigma(p, &flow));
        assert!(ends.iter().all(|sigma| (0.0..=1.0).contains(sigma)), "{density:?}: {ends:?}");
    }
}

#[test]
fn densities_that_are_none_are_refused() {
    for density in [
        Density::LogitNormal { mean: f64::NAN, std: 1.0 },
        Density::LogitNormal { mean: 0.0, std: 0.0 },
        Density::Mode { scale: 1.76 },
        Density::Mode { scale: -1.1 },
        Density::Sigmoid { scale: 1.0, shift: 0.0 },
        Density::Logsnr { mean: 0.0, std: -1.0 },
    ] {
        let message = density.check().expect_err("no density").to_string();
        assert!(message.starts_with("a density of training levels needs a "), "{message}");
    }
}

#[derive(Deserialize)]
struct Weighted {
    scheme: Weighting,
    sigmas: Vec<f64>,
    weights: Vec<f64>,
}

#[test]
fn weightings_equal_diffusers() {
    let recorded: Vec<Weighted> = golden("weightings");
    assert_eq!(recorded.len(), 3);
    for Weighted { scheme, sigmas, weights } in recorded {
        let found: Vec<f64> = sigmas.iter().map(|&sigma| scheme.at(sigma)).collect();
        assert_near(&found, &weights, 5e-7, &format!("{scheme:?}"));
    }
    let at = |sigma| [Weighting::SigmaSqrt, Weighting::Cosmap].map(|scheme| scheme.at(sigma));
    for (sigma, wanted) in [(0.1, [100.0, 0.776_366]), (0.5, [4.0, 1.273_240]), (0.9, [1.234_57, 0.776_366])]
    {
        assert!(at(sigma).iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 5e-6), "{sigma}");
    }
    assert_eq!(Weighting::CleanLatent.at(0.5), 0.25);
}
