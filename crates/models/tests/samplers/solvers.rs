//! Whole trajectories of every sampler against diffusers (`golden/sampler/solvers-*`), and inversions there and back.

use tastemaker_diffusion::guidance::Guided;
use tastemaker_diffusion::samplers::{ddim, invert, sample, start};
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_math::SAMPLERS;
use tastemaker_math::ddim::Sampling;
use tastemaker_math::samplers::{Sampler, skipped_steps};
use tastemaker_models::pipeline::SchedulerConfig;
use tastemaker_models::unet::UNet;
use tastemaker_testkit_torch::{Golden, assert_close, relative_error};
use tch::Tensor;

use super::{conditioning, network, number, scheduler};

/// How a case is generated beside its sampler.
#[derive(Clone, Copy)]
struct Way {
    n_steps: usize,
    guidance: f64,
    rescale: f64,
    strength: Option<f64>,
}

fn sampled(golden: &Golden, network: &UNet, sampler: Sampler, way: Way) -> Tensor {
    let scheduler = scheduler(golden);
    let sampling = Sampling { n_steps: way.n_steps, ..scheduler.sampling_by(sampler) };
    let skipped = way.strength.map_or(0, |strength| skipped_steps(way.n_steps, strength).unwrap());
    let plan = sampler.plan(&scheduler.schedule, &sampling, skipped).unwrap();
    let unconditional = conditioning(golden, "negative_");
    let guided = Guided { rescale: way.rescale, ..Guided::new(network, &unconditional, way.guidance) };
    let image = way.strength.map(|_| golden.tensor("image"));
    let noises = golden.tensor("variance_noise"); // [steps, b, c, h, w]
    let mut asked = 0..;
    let x = start(&plan, &golden.tensor("initial"), image.as_ref());
    sample(&guided, &x, &conditioning(golden, ""), &plan, || noises.get(asked.next().unwrap()))
}

#[test]
fn trajectories_of_every_sampler_end_where_those_of_diffusers_end() {
    for case in ["solvers-sd1", "solvers-sd2v", "solvers-sdxl"] {
        let golden = Golden::load("sampler", case);
        let network = network(&golden);
        let way = Way { n_steps: 20, guidance: number(&golden, "guidance"), rescale: 0.0, strength: None };
        for entry in SAMPLERS.iter().filter(|entry| entry.sampler != Sampler::Ddim) {
            let wanted = golden.tensor(&format!("latents.{}.20", entry.name));
            let found = sampled(&golden, &network, entry.sampler, way);
            let kind =
                if matches!(entry.sampler, Sampler::Lcm | Sampler::Tcd) { "distilled" } else { "output" };
            assert_close(&found, &wanted, golden.tolerance(kind), &format!("{case}: {}", entry.name));
        }
    }
}

#[test]
fn an_image_to_start_from_goes_through_the_last_steps_as_in_diffusers() {
    let golden = Golden::load("sampler", "solvers-sd1");
    let network = network(&golden);
    let strength = Some(number(&golden, "strength"));
    let way = Way { n_steps: 20, guidance: number(&golden, "guidance"), rescale: 0.0, strength };
    for entry in SAMPLERS {
        let wanted = golden.tensor(&format!("latents.{}.image", entry.name));
        let found = sampled(&golden, &network, entry.sampler, way);
        assert_close(&found, &wanted, golden.tolerance("output"), entry.name);
    }
}

#[test]
fn rescaled_guidance_is_that_of_diffusers() {
    let golden = Golden::load("sampler", "solvers-sd2v");
    let (network, rescale) = (network(&golden), number(&golden, "rescale"));
    let way = Way { n_steps: 20, guidance: number(&golden, "guidance"), rescale, strength: None };
    let found = sampled(&golden, &network, Sampler::Euler, way);
    assert_close(&found, &golden.tensor("latents.euler.rescaled"), golden.tolerance("output"), "rescaled");
    let plain = golden.tensor("latents.euler.20");
    assert!(relative_error(&found, &plain) > 0.01, "rescaling changes the image");
}

#[test]
fn turbo_generates_in_one_to_four_steps() {
    let golden = Golden::load("sampler", "solvers-turbo");
    let network = network(&golden);
    for sampler in [Sampler::Euler, Sampler::EulerAncestral] {
        for n_steps in 1..=4 {
            let way = Way { n_steps, guidance: 0.0, rescale: 0.0, strength: None };
            let name = format!("{}.{n_steps}", sampler.name());
            let wanted = golden.tensor(&format!("latents.{name}"));
            let found = sampled(&golden, &network, sampler, way);
            assert_close(&found, &wanted, golden.tolerance("output"), &name);
        }
    }
}

#[test]
fn a_negative_network_predicts_what_guidance_leads_away_from() {
    let golden = Golden::load("sampler", "solvers-sdxl");
    let network = network(&golden);
    let (positive, negative) = (conditioning(&golden, ""), conditioning(&golden, "negative_"));
    let (x, timestep) = (golden.tensor("initial"), Tensor::from_slice(&[500i64, 500]));
    let guided = |other: Option<&dyn Denoiser>| {
        let guided = Guided { negative: other, ..Guided::new(&network, &negative, 5.0) };
        guided.predict(&x, &timestep, &positive)
    };
    let one = guided(None);
    assert_close(&guided(Some(&network)), &one, 1e-5, "the same network for both");

    struct Nothing;
    impl Denoiser for Nothing {
        fn predict(&self, x: &Tensor, _: &Tensor, _: &Conditioning) -> Tensor {
            x.zeros_like()
        }
    }
    let conditional = network.predict(&x, &timestep, &positive);
    assert_close(&guided(Some(&Nothing)), &(conditional * 5.0), 1e-6, "away from nothing");
}

#[test]
fn inversions_are_those_of_diffusers() {
    for case in ["inverse-sd1", "inverse-sd2v"] {
        let golden = Golden::load("sampler", case);
        let SchedulerConfig { schedule, sampling, .. } = scheduler(&golden);
        let sampling = Sampling { n_steps: 10, ..sampling };
        let (clean, told) = (golden.tensor("initial"), conditioning(&golden, ""));
        let noisy = invert(&network(&golden), &clean, &told, &schedule, &sampling, 0).unwrap();
        assert_close(&noisy, &golden.tensor("latents.10"), golden.tolerance("output"), case);
    }
}

/// A tenth of a network's answer. The recorded networks have weights that no training made: their answers turn around within a
/// step, where those of trained ones hardly move.
struct Gentle(UNet);

impl Denoiser for Gentle {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        self.0.predict(x, timestep, conditioning) * 0.1
    }
}

/// How far DDIM's way back from the inversion ends from where it began.
fn there_and_back(golden: &Golden, network: &dyn Denoiser, refinements: usize) -> f64 {
    let SchedulerConfig { schedule, sampling, .. } = scheduler(golden);
    let sampling = Sampling { n_steps: 50, ..sampling };
    let (told, clean) = (conditioning(golden, ""), golden.tensor("initial"));
    let noisy = invert(network, &clean, &told, &schedule, &sampling, refinements).unwrap();
    let never = || panic!("a deterministic sampler asked for noise");
    let back = ddim(network, &noisy, &told, &schedule, &sampling, never).unwrap();
    relative_error(&back, &clean)
}

#[test]
fn ddim_returns_what_was_inverted() {
    for case in ["inverse-sd1", "inverse-sd2v"] {
        let golden = Golden::load("sampler", case);
        let network = Gentle(network(&golden));
        let errors = [0, 1, 3].map(|refinements| there_and_back(&golden, &network, refinements));
        println!("{case}: {errors:?}");
        assert!(errors[0] < 0.1 && errors[1] < errors[0] / 2.0 && errors[2] < 1e-3, "{case}: {errors:?}");
    }
}
