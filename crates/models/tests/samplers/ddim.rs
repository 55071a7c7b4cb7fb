//! Whole DDIM trajectories with guidance against diffusers (`golden/sampler/ddim-*`).

use std::cell::Cell;

use tastemaker_diffusion::guidance::Guided;
use tastemaker_diffusion::samplers::ddim;
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_math::ddim::Sampling;
use tastemaker_models::pipeline::SchedulerConfig;
use tastemaker_testkit_torch::{Golden, assert_close};
use tch::Tensor;

use super::{conditioning, network, number, scheduler};

/// The last latents of the case, drawn by our sampler, for the samples `start..start + length`.
fn sampled(golden: &Golden, start: i64, length: i64, posterior_noise: impl FnMut() -> Tensor) -> Tensor {
    let network = network(golden);
    let SchedulerConfig { schedule, sampling, .. } = scheduler(golden);
    let unconditional = conditioning(golden, "negative_").narrow(start, length);
    let guided = Guided::new(&network, &unconditional, number(golden, "guidance"));
    ddim(
        &guided,
        &golden.tensor("initial").narrow(0, start, length),
        &conditioning(golden, "").narrow(start, length),
        &schedule,
        &Sampling { n_steps: 20, eta: number(golden, "eta"), ..sampling },
        posterior_noise,
    )
    .unwrap()
}

fn no_noise() -> Tensor {
    panic!("a deterministic sampler asked for noise")
}

#[test]
fn guided_trajectories_end_where_those_of_diffusers_end() {
    for case in ["ddim-sd1", "ddim-sd2v", "ddim-sd2v-zero-snr", "ddim-sdxl"] {
        let golden = Golden::load("sampler", case);
        let latents = sampled(&golden, 0, 2, no_noise);
        assert_close(&latents, &golden.tensor("latents.20"), golden.tolerance("output"), case);
    }
}

#[test]
fn stochastic_trajectories_take_their_noise_step_by_step() {
    let golden = Golden::load("sampler", "ddim-eta");
    let noise = golden.tensor("variance_noise"); // [steps, b, c, h, w]
    let asked = Cell::new(0);
    let latents = sampled(&golden, 0, 2, || noise.get(asked.replace(asked.get() + 1)));
    assert_eq!(asked.get(), 20);
    assert_close(&latents, &golden.tensor("latents.20"), golden.tolerance("output"), "ddim-eta");
}

#[test]
fn one_negative_prompt_serves_every_sample() {
    let golden = Golden::load("sampler", "ddim-sdxl");
    let network = network(&golden);
    let SchedulerConfig { schedule, sampling, .. } = scheduler(&golden);
    let negative = conditioning(&golden, "negative_");
    let run = |unconditional: &Conditioning| {
        let guided = Guided::new(&network, unconditional, 5.0);
        let sampling = Sampling { n_steps: 2, ..sampling };
        let conditioning = conditioning(&golden, "");
        ddim(&guided, &golden.tensor("initial"), &conditioning, &schedule, &sampling, no_noise).unwrap()
    };
    let both = run(&negative.narrow(0, 1).twice());
    assert!(run(&negative.narrow(0, 1)).equal(&both));
    assert!(!run(&negative).equal(&both));
}

#[test]
fn at_scale_one_and_below_the_negative_prompt_does_not_count() {
    let golden = Golden::load("sampler", "ddim-sdxl");
    let network = network(&golden);
    let (x, timestep) = (golden.tensor("initial"), Tensor::from_slice(&[7i64]));
    let (positive, negative) = (conditioning(&golden, ""), conditioning(&golden, "negative_"));
    let timestep = timestep.repeat([x.size()[0]]);
    let plain = network.predict(&x, &timestep, &positive);
    for (scale, counts) in [(0.0, false), (1.0, false), (1.5, true)] {
        let guided = Guided::new(&network, &negative, scale);
        assert_eq!(!guided.predict(&x, &timestep, &positive).equal(&plain), counts, "scale {scale}");
    }
}

#[test]
fn a_sample_does_not_depend_on_its_neighbors() {
    let golden = Golden::load("sampler", "ddim-sd1");
    let second = sampled(&golden, 1, 1, no_noise);
    let wanted = golden.tensor("latents.20").narrow(0, 1, 1);
    assert_close(&second, &wanted, golden.tolerance("output"), "the second sample alone");
}
