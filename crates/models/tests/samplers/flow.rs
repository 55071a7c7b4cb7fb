//! Flow models: their scheduler files, whole ways through a network and back.

use serde_json::{Value, json};
use tastemaker_diffusion::noise::{NoiseKey, gaussian};
use tastemaker_diffusion::samplers::{invert, sample, start};
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_math::ddim::Sampling;
use tastemaker_math::flow::{FlowSchedule, Mu, Respacing, Shift, Spread, TimeShift};
use tastemaker_math::keyed::Stream;
use tastemaker_math::samplers::{SAMPLERS, Sampler, skipped_steps_on};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::pipeline::SchedulerConfig;
use tch::{Kind, Tensor};

const CLASS: &str = "FlowMatchEulerDiscreteScheduler";

fn read(config: Value) -> Result<SchedulerConfig, String> {
    let mut config = config;
    config["_class_name"] = json!(CLASS);
    config["_diffusers_version"] = json!("0.36.0.dev0");
    SchedulerConfig::from_json(&config)
}

#[test]
fn published_flow_configurations_are_read() {
    for (config, wanted) in [
        (
            json!({"num_train_timesteps": 1000, "use_dynamic_shifting": false, "shift": 3.0}),
            Shift::Static(3.0),
        ),
        (json!({"num_train_timesteps": 1000, "shift": 6.0, "invert_sigmas": false}), Shift::Static(6.0)),
        (
            json!({
                "base_image_seq_len": 256, "base_shift": 0.5, "invert_sigmas": false, "max_image_seq_len": 4096,
                "max_shift": 1.15, "num_train_timesteps": 1000, "shift": 3.0, "shift_terminal": null,
                "stochastic_sampling": false, "time_shift_type": "exponential", "use_beta_sigmas": false,
                "use_dynamic_shifting": true, "use_exponential_sigmas": false, "use_karras_sigmas": false,
            }),
            Shift::Dynamic(TimeShift::Exponential, Mu::Linear { tokens: [256.0, 4096.0], mu: [0.5, 1.15] }),
        ),
    ] {
        let found = read(config).unwrap();
        let flow = *found.schedule.as_flow().unwrap();
        let plain = FlowSchedule { spread: Spread::Table, ..FlowSchedule::with_shift(1000, 1.0) };
        assert_eq!(flow, FlowSchedule { shift: wanted, ..plain });
        assert_eq!(found.class, CLASS);
    }
    let silent = read(json!({})).unwrap().schedule;
    let even = FlowSchedule { spread: Spread::Table, ..FlowSchedule::with_shift(1000, 1.0) };
    assert_eq!(silent, NoiseSchedule::of_flow(even).unwrap(), "the class has shift 1");
}

#[test]
fn options_of_flow_configurations_are_honored_or_refused_in_words() {
    let beta = read(json!({"use_beta_sigmas": true, "shift_terminal": 0.1})).unwrap().schedule;
    let flow = beta.as_flow().unwrap();
    assert_eq!((flow.respacing, flow.shift_terminal), (Respacing::Beta, Some(0.1)));
    let noisy = read(json!({"stochastic_sampling": true})).unwrap();
    assert_eq!(noisy.class, "EulerAncestralDiscreteScheduler", "Euler with fresh noise");
    let heun =
        json!({"_class_name": "FlowMatchHeunDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0});
    let heun = SchedulerConfig::from_json(&heun).unwrap();
    assert_eq!(heun.class.parse::<Sampler>(), Ok(Sampler::Heun));
    assert_eq!(heun.schedule, read(json!({"shift": 3.0})).unwrap().schedule);
    for (config, part) in [
        (
            json!({"use_beta_sigmas": true, "use_karras_sigmas": true}),
            "`use_karras_sigmas` and `use_beta_sigmas`",
        ),
        (json!({"shift": 0.0}), "the shift of a flow schedule must be positive and finite, found 0"),
        (json!({"invert_sigmas": true}), "invert_sigmas counts noise levels backwards"),
        (json!({"num_train_timesteps": 1}), "at least 2 training timesteps"),
        (json!({"prediction_type": "epsilon"}), "`prediction_type` is \"epsilon\""),
        (json!({"beta_start": 0.1}), "unknown key `beta_start`"),
        (json!({"use_dynamic_shifting": true, "max_image_seq_len": 256}), "`max_image_seq_len` is 256"),
    ] {
        let text = read(config).unwrap_err();
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// The exact velocity of images that are normal with standard deviation one half, and a little that is not linear.
struct Field;

impl Denoiser for Field {
    fn predict(&self, x: &Tensor, timestep: &Tensor, _: &Conditioning) -> Tensor {
        let s = (timestep / 1000.0).reshape([-1, 1, 1, 1]);
        let clean: Tensor = 1.0 - &s;
        let power = (&clean * 0.5).square() + s.square();
        (s - clean * 0.25) * x / power + 0.1 * x.sin()
    }
}

fn apart(one: &Tensor, other: &Tensor) -> f64 {
    (one - other).abs().max().to_kind(Kind::Double).double_value(&[])
}

#[test]
fn samplers_agree_on_a_flow_and_inversion_finds_the_noise_back() {
    let schedule = read(json!({"shift": 3.0})).unwrap().schedule;
    let key = |index| NoiseKey { seed: 1, stream: Stream::Sample, index, draw: 0 };
    let noise = gaussian(&[key(0), key(1)], &[4, 3, 3]);
    let conditioning = Conditioning::text(Tensor::zeros([2, 1, 1], (Kind::Float, tch::Device::Cpu)));
    let steps = |n_steps| Sampling { n_steps, ..Sampling::default() };
    let drawn = |sampler: Sampler, n_steps| {
        let plan = sampler.plan(&schedule, &steps(n_steps), 0).unwrap();
        let none = || panic!("no noise is drawn");
        sample(&Field, &start(&plan, &noise, None), &conditioning, &plan, none)
    };
    let exact = drawn(Sampler::Dpmpp2m, 500);
    for entry in SAMPLERS.iter().filter(|entry| !entry.is_stochastic) {
        let near = apart(&drawn(entry.sampler, 50), &exact);
        // 50 steps of first order, with an error that doubled steps halve.
        assert!(near < 0.2, "{}: {near}", entry.name);
    }
    assert!(drawn(Sampler::Euler, 20).equal(&drawn(Sampler::Ddim, 20)), "without eta DDIM is Euler's");
    let image = drawn(Sampler::Ddim, 50);
    let missed = [0, 1, 2].map(|refinements| {
        let back = invert(&Field, &image, &conditioning, &schedule, &steps(50), refinements).unwrap();
        apart(&back, &noise)
    });
    assert!(missed.windows(2).all(|two| two[1] < two[0]) && missed[2] < 1e-3, "{missed:?}");
}

#[test]
fn an_image_to_start_from_comes_back_the_nearer_the_less_noise_it_gets() {
    let schedule = read(json!({"shift": 3.0})).unwrap().schedule;
    let key = |index| NoiseKey { seed: 2, stream: Stream::Sample, index, draw: 0 };
    let (noise, image) = (gaussian(&[key(0)], &[4, 24, 24]), gaussian(&[key(1)], &[4, 24, 24]) * 0.5);
    let conditioning = Conditioning::text(Tensor::zeros([1, 1, 1], (Kind::Float, tch::Device::Cpu)));
    for entry in SAMPLERS.iter().filter(|entry| !entry.is_stochastic) {
        let edited = |strength: f64| {
            let skipped = skipped_steps_on(&schedule, 20, strength).unwrap();
            let plan =
                entry.sampler.plan(&schedule, &Sampling { n_steps: 20, ..Sampling::default() }, skipped);
            let plan = plan.unwrap();
            let sigma = plan.steps[0].timestep / 1000.0;
            let x = start(&plan, &noise, Some(&image));
            // As `scale_noise` of diffusers mixes them.
            assert!(apart(&x, &(&image * (1.0 - sigma) + &noise * sigma)) < 1e-6, "{}", entry.name);
            let edited = sample(&Field, &x, &conditioning, &plan, || panic!("no noise is drawn"));
            (edited - &image).square().mean(Kind::Double).sqrt().double_value(&[])
        };
        let apart = [0.1, 0.3, 0.6, 1.0].map(edited);
        assert!(apart.windows(2).all(|two| two[0] < two[1]), "{}: {apart:?}", entry.name);
    }
}
