//! Whole runs from prompts and given noise against `StableDiffusion3Pipeline`, and what the loaded model is made of.

use tastemaker_diffusion::guidance::Guided;
use tastemaker_diffusion::samplers::{sample, start};
use tastemaker_diffusion::{Conditioning, Vae};
use tastemaker_math::ddim::Sampling;
use tastemaker_math::samplers::Sampler;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Family, Model};
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close};
use tch::Device;

use crate::bench::folder;

#[test]
fn a_run_from_prompts_and_noise_equals_diffusers_with_and_without_t5() {
    let golden = Golden::load("sd3", "pipeline");
    let tolerance = golden.tolerance("output");
    let prompts: Vec<String> = serde_json::from_str(golden.note("prompts").unwrap()).unwrap();
    for (with_t5, prefix) in [(true, ""), (false, "without_t5.")] {
        let folder = folder(&golden, with_t5);
        let model = Model::open(folder.path()).unwrap();
        assert_eq!(model.family(), Family::StableDiffusion3);
        let text = model.text(DType::F32, Device::Cpu).unwrap();
        let prompted = text.encode(&prompts, 8);
        let negative = text.encode(&[golden.note("negative").unwrap()], 8);
        for (name, conditioning) in [("", &prompted), ("negative_", &negative)] {
            let Conditioning { hidden, pooled, time_ids, .. } = conditioning;
            assert!(time_ids.is_none());
            let pooled = pooled.as_ref().unwrap();
            for (kind, found) in [("prompt_embeds", hidden), ("pooled_prompt_embeds", pooled)] {
                if let Some(wanted) = golden.get(&format!("{prefix}{name}{kind}")) {
                    assert_close(found, &wanted, tolerance, &format!("{prefix}{name}{kind}"));
                }
            }
        }
        assert_eq!(prompted.hidden.size(), [2, 77 + 256, 24]);

        let scheduler = model.schedule().unwrap();
        let n_steps = golden.note("steps").unwrap().parse().unwrap();
        let sampling = Sampling { n_steps, ..scheduler.sampling_by(Sampler::Euler) };
        let plan = Sampler::Euler.plan(&scheduler.schedule, &sampling, 0).unwrap();
        let network = model.backbone(Role::Frozen, DType::F32, Device::Cpu, None).unwrap().network;
        let scale = golden.note("guidance").unwrap().parse().unwrap();
        let guided = Guided::new(&network, &negative, scale);
        let noise = start(&plan, &golden.tensor("noise"), None);
        let latents = sample(&guided, &noise, &prompted, &plan, || panic!("no step adds noise"));
        assert_close(
            &latents,
            &golden.tensor(&format!("{prefix}latents")),
            tolerance,
            &format!("{prefix}latents"),
        );
        let vae = model.vae(Role::Frozen, DType::F32, Device::Cpu).unwrap().network;
        let wanted = golden.tensor(&format!("{prefix}decoded"));
        assert_close(&vae.decode(&latents), &wanted, tolerance, &format!("{prefix}decoded"));
    }
}
