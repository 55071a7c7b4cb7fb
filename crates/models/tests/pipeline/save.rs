//! What is written is read back, and nothing else changes.

use std::fs;
use std::path::Path;

use tastemaker_models::ModelError;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Model, Trained, save};
use tastemaker_store::dtype::DType;
use tastemaker_torch::tensors;
use tastemaker_torch::tensors::Named;
use tch::{Device, Kind};
use tempfile::TempDir;

use crate::folders::{WEIGHTS, files, open, sd1};

fn trained(parameters: &Named, dtype: DType) -> Trained<'_> {
    Trained { component: "unet", parameters, dtype }
}

#[test]
fn a_saved_model_is_the_same_but_for_its_unet() {
    let (folder, out) = (sd1(), TempDir::new().unwrap());
    fs::write(folder.path().join("v1-5-pruned.safetensors"), "a checkpoint in another layout").unwrap();
    let model = open(&folder);
    let unet = model.unet(Role::Trained, DType::F32, Device::Cpu, None).unwrap();
    let destination = out.path().join("runs/tuned");
    tch::no_grad(|| unet.trainable.iter().for_each(|p| drop(p.tensor.shallow_clone().fill_(0.5))));
    save(&model, &[trained(&unet.parameters, DType::F32)], &destination).unwrap();

    let (mut before, mut after) = (files(folder.path()), files(&destination));
    let weights = Path::new("unet").join(WEIGHTS);
    before.remove(Path::new("v1-5-pruned.safetensors"));
    assert_ne!(before.remove(&weights), after.remove(&weights));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert_eq!(before, after);

    let again = Model::open(&destination).unwrap();
    let again = again.unet(Role::Frozen, DType::F32, Device::Cpu, None).unwrap();
    assert!(again.parameters.values().all(|tensor| tensor.eq(0.5).all().int64_value(&[]) == 1));
}

#[test]
fn saving_what_was_loaded_gives_the_same_weights() {
    let (folder, out) = (sd1(), TempDir::new().unwrap());
    let model = open(&folder);
    let unet = model.unet(Role::Trained, DType::F32, Device::Cpu, None).unwrap();
    for (dtype, kind) in [(DType::F32, Kind::Float), (DType::F16, Kind::Half), (DType::Bf16, Kind::BFloat16)]
    {
        save(&model, &[trained(&unet.parameters, dtype)], out.path()).unwrap();
        let stored = tensors::read(&out.path().join("unet").join(WEIGHTS)).unwrap();
        assert!(stored.keys().eq(unet.parameters.keys()));
        assert!(
            stored.iter().all(|(name, tensor)| tensor.equal(&unet.parameters[name].to_kind(kind))),
            "{kind:?}"
        );
    }
}

#[test]
fn a_model_is_not_saved_over_itself_nor_with_tensors_that_do_not_fit() {
    let folder = sd1();
    let before = files(folder.path());
    let model = open(&folder);
    let mut parameters = model.unet(Role::Frozen, DType::F32, Device::Cpu, None).unwrap().parameters;
    let error = save(&model, &[trained(&parameters, DType::F32)], folder.path()).unwrap_err();
    assert!(error.to_string().contains("the model itself"), "{error}");
    let tensor = parameters.remove("conv_in.bias").unwrap();
    parameters.insert("conv_in.lora_A.weight".into(), tensor);
    let out = TempDir::new().unwrap();
    let Err(ModelError::Weights { report, .. }) =
        save(&model, &[trained(&parameters, DType::F32)], out.path())
    else {
        panic!("a parameter is missing")
    };
    assert_eq!(report.missing, ["conv_in.bias"]);
    assert_eq!(report.unexpected, ["conv_in.lora_A.weight"]);
    assert_eq!(files(folder.path()), before);
    assert!(files(out.path()).is_empty());
}
