//! Which levels are visited.

use super::{assert_near, family, golden};
use serde::Deserialize;
use tastemaker_math::flow::{FlowSchedule, Mu, Respacing, Shift, TimeShift};
use tastemaker_math::level::Level;
use tastemaker_math::schedule::{NoiseSchedule, ScheduleError};

#[derive(Deserialize)]
struct Recorded {
    family: String,
    n_steps: usize,
    #[serde(default)]
    image_tokens: Option<usize>,
    #[serde(default)]
    mu: Option<f64>,
    #[serde(default)]
    use_karras_sigmas: bool,
    #[serde(default)]
    use_exponential_sigmas: bool,
    #[serde(default)]
    use_beta_sigmas: bool,
    #[serde(default)]
    shift_terminal: Option<f64>,
    #[serde(default)]
    invert_sigmas: bool,
    timesteps: Vec<f64>,
    sigmas: Vec<f64>,
}

impl Recorded {
    fn schedule(&self) -> FlowSchedule {
        let flow = match (self.family.as_str(), self.mu) {
            ("linear", Some(mu)) => FlowSchedule {
                shift: Shift::Dynamic(TimeShift::Linear, Mu::Linear { tokens: [0.0, 1.0], mu: [mu, mu] }),
                ..FlowSchedule::with_shift(1000, 1.0)
            },
            (name, _) => family(name),
        };
        let respacing = match (self.use_karras_sigmas, self.use_exponential_sigmas, self.use_beta_sigmas) {
            (true, ..) => Respacing::Karras,
            (_, true, _) => Respacing::Exponential,
            (.., true) => Respacing::Beta,
            _ => Respacing::Shifted,
        };
        let Self { shift_terminal, invert_sigmas, .. } = *self;
        FlowSchedule { respacing, shift_terminal, invert_sigmas, ..flow }
    }
}

#[test]
fn sampled_levels_equal_diffusers_for_every_family_size_and_option() {
    let recorded: Vec<Recorded> = golden("levels");
    assert!(recorded.len() > 80);
    for case in recorded {
        let flow = case.schedule();
        let tokens = case.image_tokens.or(Some(0).filter(|_| case.family == "linear"));
        if let (Shift::Dynamic(_, mu), Some(theirs), Some(tokens)) = (flow.shift, case.mu, tokens) {
            assert!((mu.at(tokens, case.n_steps) - theirs).abs() < 1e-12, "{}", case.family);
        }
        let label = format!("{flow:?} {} steps, {tokens:?} tokens", case.n_steps);
        let sigmas = flow.sampled(case.n_steps, tokens).expect("recorded");
        assert_near(&sigmas, &case.sigmas, 4e-7, &label);
        let timesteps: Vec<f64> = sigmas[..case.n_steps]
            .iter()
            .map(|&sigma| Level::flow(sigma, 1000).timestep() / 1000.0)
            .collect();
        let theirs: Vec<f64> = case.timesteps.iter().map(|timestep| timestep / 1000.0).collect();
        assert_near(&timesteps, &theirs, 4e-7, &label);
    }
}

/// A scheduler, its number of steps, tokens of the image, where the row begins, and the row.
type Row = (&'static str, usize, Option<usize>, i32, &'static [f64]);

/// Levels, rounded as in published logs.
const PUBLISHED: &[Row] = &[
    ("z-image-turbo", 8, None, 0, &[1000.0, 954.5454, 900.0, 833.3333, 750.0, 642.8571, 500.0, 300.0]),
    (
        "z-image",
        28,
        None,
        0,
        &[
            1000.0, 993.865, 987.342, 980.392, 972.973, 965.035, 956.522, 947.368, 937.5, 926.829, 915.254,
            902.655, 888.889, 873.786, 857.143, 838.710, 818.182, 795.181, 769.231, 739.726, 705.882,
            666.667, 620.690, 566.038, 500.0, 418.605, 315.789, 181.818,
        ],
    ),
    ("z-image", 50, None, 0, &[1000.0, 996.61, 993.103]),
    ("z-image", 50, None, -6, &[450.0, 400.0, 342.857, 276.923, 200.0, 109.091]),
    (
        "sd3",
        28,
        None,
        0,
        &[
            1000.0, 987.3806, 974.1077, 960.1293, 945.3875, 929.8179, 913.349, 895.9003, 877.3819, 857.6923,
            836.7167, 814.3248, 790.3683, 764.6771, 737.0558, 707.2785, 675.0823, 640.1602, 602.1506,
            560.625, 515.0721, 464.876, 409.2888, 347.3926, 278.0488, 199.827, 110.9057, 8.9286,
        ],
    ),
    ("sd3", 40, None, -4, &[206.1979, 146.5087, 81.0458, 8.9286]),
    ("flux-2-klein", 4, Some(4096), 0, &[1000.0, 967.384, 908.1439, 767.2]),
    ("flux-2-klein", 4, Some(1024), 0, &[1000.0, 958.0854, 883.9819, 717.4966]),
    ("flux-2-klein", 50, Some(4096), 0, &[1000.0, 997.3091, 994.5214]),
    ("flux-2-klein", 50, Some(4096), -3, &[325.5933, 239.6312, 133.7189]),
    ("flux-2-klein", 50, Some(1024), -3, &[259.3059, 186.0176, 100.6644]),
    ("flux-1", 28, Some(4096), 0, &[1000.0, 988.4086, 976.2225]),
    ("flux-1", 28, Some(4096), -3, &[274.828, 195.4546, 104.7209]),
];

#[test]
fn published_levels_come_out_to_every_printed_digit() {
    for &(name, n_steps, tokens, start, wanted) in PUBLISHED {
        let sigmas = family(name).sampled(n_steps, tokens).expect("a published schedule");
        assert_eq!((sigmas.len(), sigmas[n_steps]), (n_steps + 1, 0.0));
        let start = if start < 0 { n_steps - start.unsigned_abs() as usize } else { start as usize };
        for (sigma, wanted) in sigmas[start..].iter().zip(wanted) {
            // Timesteps have four decimals, or noise levels six.
            let found = 1000.0 * sigma;
            assert!((found - wanted).abs() < 5.1e-4, "{name} {n_steps} {tokens:?}: {found}, wanted {wanted}");
        }
    }
}

#[test]
fn options_at_shift_three_are_the_published_ones() {
    let with =
        |respacing, shift_terminal| FlowSchedule { respacing, shift_terminal, ..family("z-image-turbo") };
    for (flow, wanted) in [
        (
            with(Respacing::Karras, None),
            [1000.0, 852.29, 723.6904, 612.0948, 515.5865, 432.4261, 361.0383, 300.0],
        ),
        (
            with(Respacing::Exponential, None),
            [1000.0, 841.9824, 708.9344, 596.9103, 502.588, 423.1703, 356.302, 300.0],
        ),
        (
            with(Respacing::Shifted, Some(0.02)),
            [1000.0, 936.3636, 860.0, 766.6667, 650.0, 500.0, 300.0, 20.0],
        ),
    ] {
        let sigmas = flow.sampled(8, None).expect("a schedule");
        for (sigma, wanted) in sigmas.iter().zip(wanted) {
            assert!((1000.0 * sigma - wanted).abs() < 5.1e-5, "{flow:?}: {sigma}");
        }
    }
}

#[test]
fn mu_of_a_size_is_the_published_one() {
    let flux = Mu::Linear { tokens: [256.0, 4096.0], mu: [0.5, 1.15] };
    for (mu, n_steps, tokens, wanted) in [
        (Mu::Empirical, 4, 1024, 2.030_689_707_9),
        (Mu::Empirical, 4, 4096, 2.291_179_894_1),
        (Mu::Empirical, 28, 4096, 2.151_443_161_8),
        (Mu::Empirical, 50, 256, 1.621_607_469_9),
        (Mu::Empirical, 50, 1024, 1.701_956_207_3),
        (Mu::Empirical, 50, 2304, 1.835_870_769_7),
        (Mu::Empirical, 50, 4096, 2.023_351_157_1),
        (Mu::Empirical, 50, 4301, 1.184_696_93),
        (flux, 28, 256, 0.5),
        (flux, 28, 1024, 0.63),
        (flux, 28, 4096, 1.15),
    ] {
        let found = mu.at(tokens, n_steps);
        assert!((found - wanted).abs() < 5.1e-11, "{tokens} tokens in {n_steps} steps: {found}");
    }
    let factor = |mu: f64| TimeShift::Exponential.factor(mu);
    assert!((factor(0.63) - 1.8776).abs() < 5e-5 && (factor(1.15) - 3.158_19).abs() < 5e-6);
    assert_eq!(TimeShift::Linear.factor(3.0), 3.0);
}

#[test]
fn the_training_table_ascends_to_noise_with_the_published_levels() {
    for (factor, t, wanted) in
        [(3.0, 499, 0.75), (3.0, 0, 0.002_994_0), (3.0, 999, 1.0), (6.0, 499, 0.857_142_9), (1.0, 0, 0.001)]
    {
        let found = FlowSchedule::with_shift(1000, factor).trained(t);
        assert!((found - wanted).abs() < 5e-8, "shift {factor}, entry {t}: {found}");
    }
    let means = [("z-image-turbo", 0.676_54), ("z-image", 0.770_47), ("flux-2-klein", 0.5005)];
    for (name, wanted) in means {
        let mean = (0..1000).map(|t| family(name).trained(t)).sum::<f64>() / 1000.0;
        assert!((mean - wanted).abs() < 1e-5, "{name}: {mean}");
    }
    for (mu, wanted) in [(0.63_f64, 0.604_13), (1.15, 0.684_10)] {
        let table = FlowSchedule::with_shift(1000, mu.exp());
        let mean = (0..1000).map(|t| table.trained(t)).sum::<f64>() / 1000.0;
        assert!((mean - wanted).abs() < 5.1e-6, "{mu}: {mean}");
    }
}

#[test]
fn a_network_is_conditioned_on_a_thousand_sigmas_and_a_table_on_whole_timesteps() {
    let flow = NoiseSchedule::flow(1000, 3.0).expect("a flow");
    let level = flow.level(499);
    assert_eq!((level.timestep(), level.sigma()), (750.0, 0.75));
    let quarters = [0.0, 0.24, 0.25, 0.74, 0.75, 1.0].map(|sigma| flow.quarter(Level::flow(sigma, 1000)));
    assert_eq!(quarters, [0, 0, 1, 2, 3, 3]);
    let table = super::plans::stable_diffusion();
    for t in 0..1000 {
        let level = table.level(t);
        assert_eq!((level.timestep(), table.quarter(level)), (t as f64, (4 * t / 1000).min(3)));
        assert_eq!(level.alpha_bar(), table.alpha_bar(t));
    }
}

#[test]
fn impossible_flows_are_refused_in_words() {
    let with = |change: fn(&mut FlowSchedule)| {
        let mut flow = FlowSchedule::with_shift(1000, 3.0);
        change(&mut flow);
        NoiseSchedule::of_flow(flow).expect_err("no flow").to_string()
    };
    assert_eq!(
        with(|flow| flow.shift = Shift::Static(f64::NAN)),
        "the shift of a flow schedule must be positive and finite, found NaN"
    );
    assert_eq!(
        with(|flow| flow.shift_terminal = Some(1.0)),
        "shift_terminal must be at least 0 and below 1, found 1"
    );
    assert!(
        with(|flow| flow.invert_sigmas = true).starts_with("invert_sigmas counts noise levels backwards")
    );
    assert_eq!(family("flux-1").sampled(4, None), Err(ScheduleError::Tokens));
    assert!(matches!(family("sd3").sampled(0, None), Err(ScheduleError::StepCount { n_steps: 0, .. })));
}
