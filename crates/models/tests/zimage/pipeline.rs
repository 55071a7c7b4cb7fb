//! Whole runs from prompts and given noise against `ZImagePipeline`, with an adapter and without.

use std::collections::BTreeMap;

use tastemaker_diffusion::guidance::Guided;
use tastemaker_diffusion::samplers::{sample, start};
use tastemaker_diffusion::{Conditioning, Denoiser, Vae};
use tastemaker_math::ddim::Sampling;
use tastemaker_math::samplers::Sampler;
use tastemaker_models::adapters::{FILE_NAME, LoraFile};
use tastemaker_models::nn::{LoraSpec, Role};
use tastemaker_models::pipeline::{Family, Model};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, assert_gradients};
use tch::{Device, Reduction, Tensor};

use crate::bench::folder;

fn prompts(golden: &Golden) -> Vec<String> {
    serde_json::from_str(golden.note("prompts").unwrap()).unwrap()
}

fn adapter(golden: &Golden) -> LoraSpec {
    LoraFile::read(golden.path(FILE_NAME)).unwrap().unet.into_spec()
}

/// The latents of a run with the pipeline's guidance scale, which counts one less than ours.
fn latents(golden: &Golden, model: &Model, lora: Option<LoraSpec>) -> Tensor {
    let text = model.text(DType::F32, Device::Cpu).unwrap();
    let (prompted, negative) =
        (text.encode(&prompts(golden), 8), text.encode(&[golden.note("negative").unwrap()], 8));
    let scheduler = model.schedule().unwrap();
    let n_steps = golden.note("steps").unwrap().parse().unwrap();
    let sampling = Sampling { n_steps, ..scheduler.sampling_by(Sampler::Euler) };
    let plan = Sampler::Euler.plan(&scheduler.schedule, &sampling, 0).unwrap();
    let network = model.backbone(Role::Frozen, DType::F32, Device::Cpu, lora).unwrap().network;
    let scale: f64 = golden.note("guidance").unwrap().parse().unwrap();
    let guided = Guided::new(&network, &negative, scale + 1.0);
    sample(&guided, &start(&plan, &golden.tensor("noise"), None), &prompted, &plan, || {
        panic!("no step adds noise")
    })
}

#[test]
fn a_run_from_prompts_and_noise_equals_diffusers() {
    let golden = Golden::load("zimage", "pipeline");
    let tolerance = golden.tolerance("output");
    let folder = folder(&golden);
    let model = Model::open(folder.path()).unwrap();
    assert_eq!(model.family(), Family::ZImage);
    let text = model.text(DType::F32, Device::Cpu).unwrap();
    let captions = text.encode(&prompts(&golden), 8).captions();
    for (i, caption) in captions.iter().enumerate() {
        let name = format!("prompt_embeds.{i}");
        assert_close(caption, &golden.tensor(&name), tolerance, &name);
    }
    let filled = |caption: &Tensor| (caption.size()[0] + 31) / 32;
    assert_ne!(filled(&captions[0]), filled(&captions[1]), "captions of several lengths");
    let negative = text.encode(&[golden.note("negative").unwrap()], 8).captions();
    assert_close(&negative[0], &golden.tensor("negative_prompt_embeds"), tolerance, "negative");

    let found = latents(&golden, &model, None);
    assert_close(&found, &golden.tensor("latents"), tolerance, "latents");
    let vae = model.vae(Role::Frozen, DType::F32, Device::Cpu).unwrap().network;
    assert_close(&vae.decode(&found), &golden.tensor("decoded"), tolerance, "decoded");
}

#[test]
fn a_run_with_an_adapter_and_its_gradients_equal_diffusers() {
    let golden = Golden::load("zimage", "pipeline");
    let folder = folder(&golden);
    let model = Model::open(folder.path()).unwrap();
    let found = latents(&golden, &model, Some(adapter(&golden)));
    assert_close(&found, &golden.tensor("lora.latents"), golden.tolerance("output"), "latents");

    let loaded = model.backbone(Role::Frozen, DType::F32, Device::Cpu, Some(adapter(&golden))).unwrap();
    let prompted = model.text(DType::F32, Device::Cpu).unwrap().encode(&prompts(&golden), 8);
    let y = loaded.network.predict(&golden.tensor("noise"), &golden.tensor("timestep"), &prompted);
    assert_close(&y, &golden.tensor("lora.output"), golden.tolerance("output"), "output");
    y.mse_loss(&golden.tensor("target"), Reduction::Mean).backward();
    let gradients: BTreeMap<String, Tensor> =
        loaded.trainable.into_iter().map(|p| (p.name, p.tensor.grad())).collect();
    assert_gradients(&gradients, &golden, golden.tolerance("gradient"));
}

/// What stands after a caption's own tokens, and what captions it is put together with, is nothing to it.
#[test]
fn captions_of_a_batch_do_not_see_each_other() {
    let golden = Golden::load("zimage", "pipeline");
    let folder = folder(&golden);
    let model = Model::open(folder.path()).unwrap();
    let network = model.backbone(Role::Frozen, DType::F32, Device::Cpu, None).unwrap().network;
    let text = model.text(DType::F32, Device::Cpu).unwrap();
    let both = text.encode(&prompts(&golden), 8);
    let (x, t) = (golden.tensor("noise"), golden.tensor("timestep"));
    let wanted = network.predict(&x, &t, &both);
    let other =
        text.encode(&["another caption that is longer than either of the two, by far, and goes on"], 8);
    let mut soiled = both.followed_by(&other).narrow(0, 2);
    soiled.hidden = &soiled.hidden + soiled.hidden.eq(0.0).to_kind(soiled.hidden.kind()) * 1e3;
    assert_close(&network.predict(&x, &t, &soiled), &wanted, 1e-6, "what follows a caption");
    for (i, prompt) in prompts(&golden).iter().enumerate() {
        let i = i as i64;
        let alone: Conditioning = text.encode(&[prompt], 8);
        let found = network.predict(&x.narrow(0, i, 1), &t.narrow(0, i, 1), &alone);
        assert_close(&found, &wanted.narrow(0, i, 1), 1e-5, prompt);
    }
}
