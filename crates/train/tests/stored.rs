//! What a run reads back beside its cache: checkpoints and precomputed references, as they were written, damaged and crafted.

#![expect(clippy::unwrap_used, reason = "what the tests share ends them, too")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use common::{
    Pairing, assert_identical, batch, engine, options, pairs, plan, reference_key, schedule, train_labeled,
    uses, weights,
};
use serde_json::json;
use tastemaker_math::objectives::Objective;
use tastemaker_run::Plan;
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::dtype::DType;
use tastemaker_store::sealed;
use tastemaker_torch::tensors::{self, Named};
use tastemaker_train::TrainError;
use tastemaker_train::checkpoint::{self, Identity};
use tastemaker_train::data::{Order, feed};
use tastemaker_train::distributed::ProcessGroup;
use tastemaker_train::reference::PrecomputedReference;
use tastemaker_train::state::State;
use tch::{Kind, Tensor};

const BATCHES: &str = "train_batch_size = 2\ngradient_accumulation_steps = 2\nreference = \"precomputed\"\n";
const TRAIN: [usize; 5] = [0, 1, 2, 3, 4];

/// A plan of a method whose reference inverts.
fn inverting(name: &str) -> Plan {
    let mut plan = plan(name, 3, BATCHES.split_inclusive('\n').take(2).collect::<String>().as_str());
    plan.method.settings["model"] = json!("reference");
    plan
}

#[test]
fn latents_inverted_beforehand_make_the_same_run_bit_for_bit() {
    let pairs = pairs();
    for (name, has_soft_labels) in [("ddim-inpo", false), ("smpo", true)] {
        for pairing in [Pairing::adapted, Pairing::full] {
            let plan = inverting(name);
            let run = |precomputed: Option<&PrecomputedReference>| {
                let pairing = pairing(DType::F32);
                let run = match has_soft_labels {
                    true => common::train_softly(&pairing, &pairs, &plan, &TRAIN, precomputed),
                    false => train_labeled(&pairing, (&pairs, None), &plan, &TRAIN, &[], precomputed),
                };
                run.0.unwrap();
                weights(&pairing.policy.trainable)
            };
            let folder = tempfile::tempdir().unwrap();
            let key = reference_key(json!({"corruption": "inverted"}));
            let precomputed = PrecomputedReference::open(folder.path(), &key, 4).unwrap();
            assert_identical(&run(Some(&precomputed)), &run(None));
            assert!(precomputed.missing(0..3).unwrap().is_empty());
        }
    }
}

/// A precomputed reference of two steps of two pairs, in one shard, and a use of all of it.
struct Shard {
    folder: tempfile::TempDir,
    inverts: bool,
    objective: Objective,
    pairing: Pairing,
}

impl Shard {
    fn new(inverts: bool) -> Self {
        let name = if inverts { "ddim-inpo" } else { "diffusion-dpo" };
        let mut plan = plan(name, 2, "train_batch_size = 2\n");
        if inverts {
            plan.method.settings["model"] = json!("reference");
        }
        let objective = plan.method.objective().unwrap();
        let (folder, pairing) = (tempfile::tempdir().unwrap(), Pairing::adapted(DType::F32));
        let shard = Self { folder, inverts, objective, pairing };
        let (reference, schedule, pairs) = (shard.pairing.reference(), schedule(), pairs());
        let engine = engine(&shard.pairing.policy.unet, &reference, &shard.objective, &schedule);
        let order = Order::new(&plan, vec![0, 1], vec![], true);
        shard.open().unwrap().fill(0..2, &engine, &mut feed(&pairs, order, options(true))).unwrap();
        drop(reference);
        shard
    }

    fn open(&self) -> Result<PrecomputedReference, TrainError> {
        let draws = if self.inverts { json!({"corruption": "inverted"}) } else { json!({}) };
        PrecomputedReference::open(self.folder.path(), &reference_key(draws), 2)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("steps-000000.safetensors")
    }

    fn used(&self) -> Result<(), TrainError> {
        let open = self.open()?;
        assert!(open.missing(0..2)?.is_empty());
        for step in 0..2 {
            open.step(step)?.of(&batch(&pairs(), &uses(&[0, 1], step), &self.objective))?;
        }
        Ok(())
    }

    /// Changes tables and their checksum.
    fn craft(&self, change: impl FnOnce(&mut Named)) {
        let mut parts = tensors::read(&self.path()).unwrap();
        change(&mut parts);
        let bytes = ["counts", "keys", "errors", "shapes", "checks"].into_iter().filter_map(|name| {
            let tensor = parts.get(name)?;
            let mut bytes = vec![0; 8 * tensor.numel()];
            tensor.copy_data_u8(&mut bytes, tensor.numel());
            Some(bytes)
        });
        let metadata = [("sha256".to_owned(), sha256_bytes(&bytes.collect::<Vec<_>>().concat()))].into();
        tensors::write(&self.path(), &parts, &metadata).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_precomputed_reference_is_found_and_named() {
    for inverts in [false, true] {
        let shard = Shard::new(inverts);
        shard.used().unwrap();
        for path in [shard.path(), shard.folder.path().join("reference.json")] {
            let whole = fs::read(&path).unwrap();
            for at in (0..whole.len()).filter(|at| *at < 1200 || at % 97 == 0) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                fs::write(&path, &bytes).unwrap();
                let Err(error) = shard.used() else { panic!("{path:?}: byte {at} is not covered") };
                assert!(
                    tastemaker_store::in_full(&error).contains(shard.folder.path().to_str().unwrap()),
                    "{error}"
                );
            }
            fs::write(&path, whole).unwrap();
        }
    }
}

fn numbers(parts: &mut Named, name: &str, change: impl FnOnce(&mut Vec<i64>)) {
    let mut numbers = Vec::<i64>::try_from(&parts[name]).unwrap();
    change(&mut numbers);
    parts.insert(name.to_owned(), Tensor::from_slice(&numbers));
}

#[test]
fn a_crafted_precomputed_reference_is_an_error() {
    let crafts: [fn(&mut Named); 13] = [
        |p| numbers(p, "counts", |counts| counts[0] = -1),
        |p| numbers(p, "counts", |counts| *counts = vec![i64::MAX, i64::MAX]),
        |p| numbers(p, "counts", |counts| *counts = vec![4, 0]),
        |p| numbers(p, "keys", |keys| keys.truncate(keys.len() - 1)),
        |p| numbers(p, "keys", |keys| keys[0] += 1),
        |p| drop(p.insert("errors".into(), Tensor::from_slice(&[f64::NAN; 8]))),
        |p| drop(p.insert("errors".into(), Tensor::from_slice(&[0.5f64; 7]))),
        |p| numbers(p, "shapes", |shapes| shapes[0] = -2),
        |p| numbers(p, "shapes", |shapes| shapes.swap(0, 1)),
        |p| numbers(p, "shapes", |shapes| shapes.iter_mut().for_each(|size| *size = i64::MAX)),
        |p| numbers(p, "checks", |checks| checks.swap(0, 1)),
        |p| drop(p.remove("noisy")),
        |p| drop(p.insert("noisy".into(), Tensor::zeros([3], (Kind::Float, tch::Device::Cpu)))),
    ];
    for (number, change) in crafts.into_iter().enumerate() {
        let shard = Shard::new(true);
        shard.craft(change);
        let found = catch_unwind(AssertUnwindSafe(|| shard.used()));
        let is_named = |used: Result<(), TrainError>| matches!(used, Err(TrainError::DamagedPrecomputed { path }) if path == shard.path());
        assert!(found.is_ok_and(is_named), "craft {number} is taken, or ends in a panic");
    }
    // Without inverted latents where they are wanted.
    let mut shard = Shard::new(false);
    shard.inverts = true;
    fs::remove_file(shard.folder.path().join("reference.json")).unwrap();
    assert!(matches!(shard.used(), Err(TrainError::DamagedPrecomputed { .. })));
}

/// A checkpoint of a run of three steps.
struct Saved {
    folder: tempfile::TempDir,
    plan: Plan,
    pairing: Pairing,
}

impl Saved {
    fn new() -> Self {
        let more = "mixed_precision = \"fp16\"\nema_decay = 0.9\n";
        let saved = Self {
            folder: tempfile::tempdir().unwrap(),
            plan: plan("sft", 3, more),
            pairing: Pairing::adapted(DType::F32),
        };
        let mut state = saved.state();
        state.step = 2;
        state.before = Some([(7, (0.5, 0.25))].into());
        saved.write(2, &state.tensors(&saved.pairing.policy.trainable));
        saved
    }

    fn state(&self) -> State {
        let trainable = &self.pairing.policy.trainable;
        State::new(trainable, 0, vec![true; trainable.len()], &self.plan)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("checkpoint-2")
    }

    fn write(&self, step: u64, state: &Named) {
        let beside = |_: &Path| Ok(());
        let part = (step, Some(state));
        let ranks = ProcessGroup::default();
        let path = checkpoint::write(self.folder.path(), &self.plan, &identity(), part, ranks, 0, beside)
            .unwrap()
            .path;
        if path != self.path() {
            fs::remove_dir_all(self.path()).unwrap();
            fs::rename(path, self.path()).unwrap();
        }
    }

    /// Reads it and resumes from it.
    fn used(&self) -> Result<Option<u64>, TrainError> {
        let saved = checkpoint::read(&self.path(), &self.plan, &identity())?;
        let mut state = self.state();
        let restored = state.restore(&self.pairing.policy.trainable, &|name| saved.read(name));
        Ok(restored.map(|()| state.step).filter(|step| *step == saved.step))
    }
}

fn identity() -> Identity {
    Identity { pairs: "12".into(), unet: "34".into(), drawn_in: None }
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_checkpoint_is_found_and_named() {
    let saved = Saved::new();
    assert_eq!(saved.used().unwrap(), Some(2));
    for (name, every) in [("checkpoint.json", 1), ("state.safetensors", 4999)] {
        let path = saved.path().join(name);
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(every) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            let Err(error) = saved.used() else { panic!("{name}: byte {at} is not covered") };
            let error = error.to_string();
            assert!(error.contains(saved.path().to_str().unwrap()) && error.contains(name), "{error}");
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_checkpoint_of_an_earlier_version_is_read() {
    let saved = Saved::new();
    let path = saved.path().join("checkpoint.json");
    let mut manifest = sealed::read(&path).unwrap().value;
    fs::write(&path, manifest.to_string()).unwrap();
    assert!(saved.used().unwrap_err().to_string().contains("format 2 without a checksum"));
    manifest["format"] = json!(1);
    fs::write(&path, manifest.to_string()).unwrap();
    assert_eq!(saved.used().unwrap(), Some(2));
}

#[test]
fn a_step_after_the_runs_last_is_refused() {
    let saved = Saved::new();
    let mut state = saved.state();
    state.step = 4;
    saved.write(4, &state.tensors(&saved.pairing.policy.trainable));
    let error = saved.used().unwrap_err().to_string();
    assert!(error.contains("it is after step 4, and this run ends at step 3"), "{error}");
}

#[test]
fn a_crafted_state_is_refused_whatever_is_changed_in_it() {
    let saved = Saved::new();
    let trainable = &saved.pairing.policy.trainable;
    let mut state = saved.state();
    (state.step, state.before) = (2, Some([(7, (0.5, 0.25))].into()));
    // One of each kind of tensor is enough.
    let whole = || state.tensors(trainable);
    let mut kinds = BTreeMap::new();
    for name in whole().keys() {
        kinds
            .entry(name.split('.').next().unwrap().to_owned() + &name[name.rfind('.').unwrap_or(0)..])
            .or_insert(name.clone());
    }
    type Change = fn(&Tensor) -> Option<Tensor>;
    let changes: [(&str, Change); 4] = [
        ("gone", |_| None),
        ("reshaped", |tensor| Some(tensor.reshape([1, 1, -1]))),
        ("of another type", |tensor| Some(tensor.to_kind(Kind::Int16))),
        ("longer", |tensor| Some(Tensor::cat(&[tensor.reshape([-1]), tensor.reshape([-1])], 0))),
    ];
    for name in kinds.values() {
        for (what, change) in changes {
            let mut crafted = whole();
            let tensor = crafted.remove(name).unwrap();
            if let Some(changed) = change(&tensor) {
                crafted.insert(name.clone(), changed);
            }
            saved.write(2, &crafted);
            let found = catch_unwind(AssertUnwindSafe(|| saved.used()));
            let found = found.unwrap_or_else(|_| panic!("{name}, {what}, ends in a panic"));
            assert!(!matches!(found, Ok(Some(_))), "{name}, {what}, is taken");
        }
    }
    let numbers: [(&str, Tensor); 6] = [
        ("step", Tensor::from(-1i64)),
        ("step", Tensor::from(1i64)),
        ("n_steps", Tensor::from(i64::MAX)),
        ("mean_gain", Tensor::from(f64::NAN)),
        ("loss_scale", Tensor::from_slice(&[f64::INFINITY, 0.0])),
        ("before.errors", Tensor::from_slice(&[f64::NAN, 0.0])),
    ];
    for (name, tensor) in numbers {
        let mut crafted = whole();
        crafted.insert(name.to_owned(), tensor);
        saved.write(2, &crafted);
        assert_eq!(saved.used().unwrap(), None, "{name}");
    }
}
