//! What published scripts do on purpose to what a step draws: labels that are noise, offsets of the noise.

mod common;

use common::{Pairing, batch, engine, method, pairs, schedule, take_gradients, uses};
use tastemaker_store::dtype::DType;
use tastemaker_train::draws::{Disturbance, Noise};

#[test]
fn a_label_that_is_noise_exchanges_winner_and_loser_and_their_gradients() {
    let (pairs, schedule, pairing, objective) =
        (pairs(), schedule(), Pairing::moved(), method("diffusion-dpo"));
    let reference = pairing.reference();
    let plain = engine(&pairing.policy.unet, &reference, &objective, &schedule);
    let exchanged = |label_noise: f64| {
        let mut engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
        engine.disturbance = Disturbance { label_noise, ..Disturbance::default() };
        engine
    };
    let pair = batch(&pairs, &uses(&[3], 0), &objective);
    let labeled = plain.accumulate(&pair, 1).remove(0);
    let forward = take_gradients(&pairing.policy.trainable);
    let noisy = exchanged(1.0).accumulate(&pair, 1).remove(0);
    let backward = take_gradients(&pairing.policy.trainable);
    assert_eq!(Some(noisy.winner_error), labeled.loser_error);
    assert_eq!(noisy.loser_error, Some(labeled.winner_error));
    let (logit, there) = (noisy.outcome.logit.unwrap(), labeled.outcome.logit.unwrap());
    assert!((logit + there).abs() < 1e-9 * there.abs(), "{logit} {there}");
    // The loss is a function of the logit alone: its slope there turns the gradient around.
    let factor = noisy.outcome.d_winner / labeled.outcome.d_winner;
    for (name, slope) in &forward {
        let wanted = slope * -factor;
        let off = (&backward[name] - &wanted).abs().max().double_value(&[]);
        assert!(off <= 1e-4 * wanted.abs().max().double_value(&[]) + 1e-12, "{name}: {off}");
    }
    // Drawn anew for each repetition, at about its rate.
    let flips = |draw: u64| {
        let batch = batch(&pairs, &uses(&[0, 1, 2, 3, 4, 5], draw), &objective);
        let plain = plain.accumulate(&batch, 6);
        let noisy = exchanged(0.5).accumulate(&batch, 6);
        plain
            .iter()
            .zip(&noisy)
            .map(|(one, other)| one.winner_error != other.winner_error)
            .collect::<Vec<_>>()
    };
    let all: Vec<Vec<bool>> = (0..4).map(flips).collect();
    let n_flipped = all.iter().flatten().filter(|flip| **flip).count();
    assert!((5..=19).contains(&n_flipped) && all[0] != all[1], "{all:?}");
}

#[test]
fn a_noise_offset_moves_whole_channels_of_both_images_alike() {
    let (pairs, schedule, pairing, objective) =
        (pairs(), schedule(), Pairing::adapted(DType::F32), method("diffusion-dpo"));
    let reference = pairing.reference();
    let mut engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
    let batch = batch(&pairs, &uses(&[0, 1], 0), &objective);
    let noise = |engine: &tastemaker_train::step::Engine<'_>| match engine.draw(&batch).noise {
        Noise::Forward(noise) => noise,
        Noise::Inversion { .. } => panic!("Diffusion-DPO adds noise"),
    };
    let plain = noise(&engine);
    engine.disturbance = Disturbance { noise_offset: 0.1, ..Disturbance::default() };
    let moved = noise(&engine) - plain;
    let offsets = moved.amax([2, 3], true);
    assert!((&moved - &offsets).abs().max().double_value(&[]) < 1e-6, "channels are not moved as one");
    let spread = offsets.std(true).double_value(&[]);
    assert!((0.03..0.3).contains(&spread), "{spread}");
}
