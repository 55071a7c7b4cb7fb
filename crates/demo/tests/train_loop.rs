//! The resumable loop: stopped and resumed it ends where it would have ended, and it refuses what it cannot go on from.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tastemaker_demo::DemoError;
use tastemaker_demo::pretrain::{LoopSettings, Progress, train};
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_models::nn::Trainable;
use tastemaker_torch::tensors::Named;
use tastemaker_train::TrainError;
use tch::{Kind, Tensor};

fn normal(index: u64, n: usize) -> Tensor {
    let mut values = vec![0f32; n];
    Keyed::new(1, Stream::Data, index, 0).fill_normal(&mut values);
    Tensor::from_slice(&values)
}

/// A line to be fitted.
fn line(n: usize) -> Vec<Trainable> {
    let trainable =
        |name: &str, tensor: Tensor| Trainable { name: name.into(), tensor: tensor.set_requires_grad(true) };
    vec![trainable("slope", normal(0, n)), trainable("offset", normal(1, n))]
}

/// One step's loss, a pure function of weights and step.
fn backward(line: &[Trainable], step: u64) -> f64 {
    let (x, noise) = (normal(10 + 2 * step, 16), normal(11 + 2 * step, 16));
    let (slope, offset) = (&line[0].tensor, &line[1].tensor);
    let target = &x * 2.0 + 0.5 + noise * 0.1;
    let loss = (x.unsqueeze(1) * slope + offset - target.unsqueeze(1)).square().mean(Kind::Float);
    loss.backward();
    loss.double_value(&[])
}

fn settings(folder: &Path) -> LoopSettings {
    LoopSettings {
        n_steps: 11,
        learning_rate: 0.05,
        n_warmup: 3,
        max_grad_norm: 1.0,
        ema_decay: 0.8,
        state: folder.join("state.safetensors"),
        save_every: 4,
    }
}

fn whole(folder: &Path, mut heard: impl FnMut(Progress)) -> (Named, Vec<Trainable>) {
    let line = line(3);
    let averaged = train(&line, &settings(folder), |step| backward(&line, step), &mut heard).unwrap();
    (averaged, line)
}

#[track_caller]
fn assert_identical(found: &(Named, Vec<Trainable>), wanted: &(Named, Vec<Trainable>)) {
    assert!(found.0 == wanted.0, "averages");
    assert!(found.1.iter().zip(&wanted.1).all(|(a, b)| a.tensor.equal(&b.tensor)), "masters");
}

#[test]
fn a_run_killed_at_any_step_and_resumed_ends_as_if_it_had_not_been() {
    let never = tempfile::tempdir().unwrap();
    let mut losses = Vec::new();
    let wanted = whole(never.path(), |progress| losses.push(progress));
    for killed_at in [1, 4, 6, 10] {
        let folder = tempfile::tempdir().unwrap();
        let line = line(3);
        let killed = catch_unwind(AssertUnwindSafe(|| {
            let step = |step: u64| if step == killed_at { panic!("killed") } else { backward(&line, step) };
            train(&line, &settings(folder.path()), step, |_| {})
        }));
        assert!(killed.is_err());
        let mut resumed = Vec::new();
        assert_identical(&whole(folder.path(), |progress| resumed.push(progress)), &wanted);
        let saved = killed_at / 4 * 4;
        assert_eq!(resumed, losses[saved as usize..], "killed at {killed_at}");
    }
}

#[test]
fn a_finished_run_has_nothing_left_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = whole(folder.path(), |_| {});
    assert_identical(&whole(folder.path(), |_| panic!("another step")), &wanted);
}

#[test]
fn the_average_is_between_the_start_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (averaged, end) = whole(folder.path(), |_| {});
    for (start, end) in line(3).iter().zip(&end) {
        let part = (&averaged[&end.name] - &start.tensor) / (&end.tensor - &start.tensor);
        let parts = Vec::<f32>::try_from(part.detach()).unwrap();
        assert!(parts.iter().all(|part| 0.0 < *part && *part < 1.0), "{parts:?}");
    }
}

#[test]
fn a_state_of_another_network_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    whole(folder.path(), |_| {});
    let state = settings(folder.path()).state;
    let before = std::fs::read(&state).unwrap();
    let wider = line(4);
    let result = train(&wider, &settings(folder.path()), |_| panic!("a step"), |_| {});
    assert!(
        matches!(&result, Err(DemoError::Train(TrainError::OtherState { path })) if *path == state),
        "{result:?}"
    );
    assert_eq!(std::fs::read(&state).unwrap(), before);
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_state() {
    let folder = tempfile::tempdir().unwrap();
    let line = line(3);
    let step = |step: u64| if step == 6 { f64::NAN } else { backward(&line, step) };
    let result = train(&line, &settings(folder.path()), step, |_| {});
    assert!(matches!(result, Err(DemoError::Train(TrainError::NonFinite { step: 6, .. }))), "{result:?}");
    assert!(line.iter().all(|p| p.tensor.isfinite().all().int64_value(&[]) == 1));
    let wanted = whole(tempfile::tempdir().unwrap().path(), |_| {});
    assert_identical(&whole(folder.path(), |_| {}), &wanted);
}
