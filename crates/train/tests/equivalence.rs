//! What a training step guarantees whatever the method: where it starts, what the sides of a pair share, and that how a
//! batch is cut does not matter.

mod common;

use std::cell::RefCell;
use std::f64::consts::LN_2;

use common::{
    Network, Pairing, adapted, assert_identical, batch, distance, engine, frozen_copy, learned, learned_dora,
    method, on_base, on_unpacked_base, options, pairs, plan, schedule, take_gradients, uses,
};
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_run::Plan;
use tastemaker_store::dtype::{BasePrecision, DType};
use tastemaker_train::data::{EncodedPair, FeedItem, Order, Rank, Use, feed, prefetch};
use tastemaker_train::draws::Noise;
use tastemaker_train::reference::Reference;
use tastemaker_train::step::PairRecord;
use tch::{Kind, Tensor};

const COMPARING: [&str; 2] = ["diffusion-dpo", "ddim-inpo"];
const REFERENCE_FREE: [&str; 2] = ["mapo", "sft"];

#[test]
fn before_training_every_logit_is_zero_and_every_loss_ln_two() {
    let (pairs, schedule) = (pairs(), schedule());
    for precision in [DType::F32, DType::Bf16, DType::F16] {
        for (kind, pairing) in [
            ("full", Pairing::full(precision)),
            ("lora", Pairing::adapted(precision)),
            ("continued", Pairing::continued(precision)),
            ("dora", Pairing::dora(precision)),
            ("continued dora", Pairing::continued_dora(precision)),
        ] {
            for name in COMPARING {
                let (reference, objective) = (pairing.reference(), method(name));
                let engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
                for draw in 0..2 {
                    let uses = uses(&[0, 1, 2, 3, 4, 5], draw);
                    for record in engine.accumulate(&batch(&pairs, &uses, &objective), uses.len()) {
                        let what = format!("{name}, {kind}, {precision:?}: {record:?}");
                        assert_eq!(record.outcome.logit, Some(0.0), "{what}");
                        assert_eq!(record.outcome.loss, LN_2, "{what}");
                        assert_eq!(
                            record.reference,
                            Some((record.winner_error, record.loser_error.unwrap())),
                            "{what}"
                        );
                        assert!(record.winner_error != record.loser_error.unwrap(), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn on_a_base_of_few_bits_every_logit_is_zero_before_training_whatever_the_bits() {
    let (pairs, schedule, dpo) = (pairs(), schedule(), method("diffusion-dpo"));
    let uses = uses(&[0, 1, 2, 3], 0);
    for base in BasePrecision::ALL {
        for (use_dora, precision) in [(false, DType::F32), (true, DType::F32), (false, DType::Bf16)] {
            let pairing = Pairing::on_base(base, use_dora, precision);
            let reference = pairing.reference();
            let engine = engine(&pairing.policy.unet, &reference, &dpo, &schedule);
            for record in engine.accumulate(&batch(&pairs, &uses, &dpo), uses.len()) {
                assert_eq!(record.outcome.logit, Some(0.0), "{base}, DoRA {use_dora}, {precision}");
            }
        }
    }
}

#[test]
fn gradients_on_a_base_of_few_bits_are_those_on_what_it_unpacks_to() {
    let (pairs, schedule, sft) = (pairs(), schedule(), method("sft"));
    let uses = uses(&[0, 1, 2, 3], 0);
    let learn = |network: &Network| {
        let engine = engine(&network.unet, &Reference::None, &sft, &schedule);
        let records = engine.accumulate(&batch(&pairs, &uses, &sft), uses.len());
        let errors: Vec<f64> = records.iter().map(|record| record.winner_error).collect();
        (errors, take_gradients(&network.trainable))
    };
    let whole = learn(&adapted(DType::F32)).0;
    for base in BasePrecision::ALL {
        for (use_dora, precision) in [(false, DType::F32), (true, DType::F32), (false, DType::Bf16)] {
            let (errors, gradients) = learn(&on_base(base, use_dora, precision));
            let (wanted_errors, wanted) = learn(&on_unpacked_base(base, use_dora, precision));
            assert_eq!(errors, wanted_errors, "{base}, DoRA {use_dora}, {precision}");
            assert_identical(&gradients, &wanted);
            assert!(errors != whole, "{base} rounds");
        }
    }
}

#[test]
fn the_reference_of_a_continued_adapter_is_the_model_with_it_and_stays_so() {
    let (pairs, schedule) = (pairs(), schedule());
    let (plain, bf16) = (DType::F32, DType::Bf16);
    for (precision, pairing, still) in [
        (plain, Pairing::continued(plain), learned(plain, false)),
        (bf16, Pairing::continued(bf16), learned(bf16, false)),
        (plain, Pairing::continued_dora(plain), learned_dora(plain, false)),
        (bf16, Pairing::continued_dora(bf16), learned_dora(bf16, false)),
    ] {
        let objective = method("diffusion-dpo");
        let errors = |policy: &dyn Denoiser, reference: &Reference<'_>| {
            let uses = uses(&[0, 1, 2], 0);
            let engine = engine(policy, reference, &objective, &schedule);
            engine.accumulate(&batch(&pairs, &uses, &objective), uses.len())
        };
        let wanted = errors(&still.unet, &Reference::Frozen(&still.unet));
        let before = errors(&pairing.policy.unet, &pairing.reference());
        assert!(before.iter().zip(&wanted).all(|(found, wanted)| found.reference == wanted.reference));
        let bare = adapted(precision);
        let of_base = errors(&bare.unet, &Reference::Frozen(&bare.unet));
        assert!(before.iter().zip(&of_base).all(|(found, base)| found.reference != base.reference));

        let gradients = take_gradients(&pairing.policy.trainable);
        for factor in &pairing.policy.trainable {
            let slope = &gradients[&factor.name];
            assert!(slope.abs().max().double_value(&[]) > 0.0, "{} does not learn", factor.name);
            tch::no_grad(|| drop(factor.tensor.shallow_clone().g_sub_(&(slope * 1e-3))));
        }
        let after = errors(&pairing.policy.unet, &pairing.reference());
        for (found, wanted) in after.iter().zip(&wanted) {
            assert_eq!(found.reference, wanted.reference, "{precision:?}");
            assert!(found.outcome.logit != Some(0.0), "{precision:?}");
        }
    }
}

#[test]
fn methods_that_do_not_compare_never_ask_for_a_reference() {
    let (pairs, schedule) = (pairs(), schedule());
    for name in REFERENCE_FREE {
        let (pairing, objective) = (Pairing::adapted(DType::F32), method(name));
        let engine = engine(&pairing.policy.unet, &Reference::None, &objective, &schedule);
        let batch = batch(&pairs, &uses(&[0, 1], 0), &objective);
        assert_eq!(batch.latents.size()[0], 2 * batch.n_sides() as i64);
        let records = engine.accumulate(&batch, 2);
        assert!(records.iter().all(|r| r.reference.is_none() && r.is_finite()));
        let gradients = take_gradients(&pairing.policy.trainable);
        assert!(gradients.values().any(|g| g.abs().max().double_value(&[]) > 0.0), "{name} learns nothing");
    }
}

/// How far six pairs at once are from the same six one by one: the largest relative difference of errors, the largest
/// difference of logits, and the distance of the gradients in units of the gradient's length.
fn cut_into_pairs(pairing: &Pairing, name: &str) -> [f64; 3] {
    let (pairs, schedule, reference, objective) = (pairs(), schedule(), pairing.reference(), method(name));
    let engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
    let uses: Vec<Use> = (0..6).map(|index| Use { index, draw: 0, drop_caption: index == 4 }).collect();
    let steps = |size: usize| {
        let cut = uses.chunks(size).map(|part| batch(&pairs, part, &objective));
        let records: Vec<_> = cut.flat_map(|part| engine.accumulate(&part, uses.len())).collect();
        (records, take_gradients(&pairing.policy.trainable))
    };
    let ((whole, wanted), (parts, found)) = (steps(6), steps(1));
    let same = |a: &PairRecord, b: &PairRecord| (a.id, a.timestep) == (b.id, b.timestep);
    assert!(parts.iter().zip(&whole).all(|(a, b)| same(a, b)) && parts.len() == 6);
    let largest = |difference: &dyn Fn(&PairRecord, &PairRecord) -> f64| {
        parts.iter().zip(&whole).map(|(a, b)| difference(a, b).abs()).fold(0.0, f64::max)
    };
    let winner = largest(&|a, b| a.winner_error / b.winner_error - 1.0);
    let loser = largest(&|a, b| a.loser_error.unwrap_or(1.0) / b.loser_error.unwrap_or(1.0) - 1.0);
    let logit = largest(&|a, b| a.outcome.logit.unwrap_or(0.0) - b.outcome.logit.unwrap_or(0.0));
    [winner.max(loser), logit, distance(&found, &wanted)]
}

/// Convolutions and products round differently for other batch sizes: that is all that differs. A logit multiplies
/// what errors near 1 differ by with half of beta, here 2500 for Diffusion-DPO, so seven digits of an error are three or
/// four of a logit; where policy and reference agree, it is 0 either way and the gradients keep five digits.
#[test]
fn a_batch_equals_its_pairs_one_by_one() {
    let (start, moved) = (Pairing::full(DType::F32), Pairing::moved());
    for name in COMPARING.into_iter().chain(REFERENCE_FREE) {
        let [errors, logits, gradient] = cut_into_pairs(&start, name);
        let what = format!("{name}: errors {errors:e}, logits {logits:e}, gradient {gradient:e}");
        assert!(errors < 1e-5 && logits < 1e-4 && gradient < 1e-5, "at the start, {what}");
        assert!(logits == 0.0 || !COMPARING.contains(&name), "at the start, {what}");

        let [errors, logits, gradient] = cut_into_pairs(&moved, name);
        let what = format!("{name}: errors {errors:e}, logits {logits:e}, gradient {gradient:e}");
        assert!(errors < 1e-5 && logits < 5e-3 && gradient < 1e-4, "once moved, {what}");
    }
}

/// A network that remembers what it was asked.
struct Recorder<'a> {
    network: &'a dyn Denoiser,
    asked: RefCell<Vec<[Tensor; 3]>>,
}

impl<'a> Recorder<'a> {
    fn new(network: &'a dyn Denoiser) -> Self {
        Self { network, asked: RefCell::default() }
    }

    /// The one question: noisy latents, timesteps, hidden states.
    fn question(self) -> [Tensor; 3] {
        let mut asked = self.asked.into_inner();
        assert_eq!(asked.len(), 1, "one forward per network");
        asked.remove(0)
    }
}

impl Denoiser for Recorder<'_> {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        self.asked.borrow_mut().push([x.copy(), timestep.copy(), conditioning.hidden.copy()]);
        self.network.predict(x, timestep, conditioning)
    }
}

#[test]
fn winner_and_loser_share_noise_timestep_and_caption_and_so_do_policy_and_reference() {
    let mut pairs = pairs();
    pairs.images.std = pairs.images.std.zeros_like();
    // A pair of one image with itself: its sides differ in nothing but what is drawn for them.
    pairs.pairs.iter_mut().for_each(|pair| *pair = EncodedPair { loser: pair.winner, ..*pair });
    let (pairing, objective, schedule) = (Pairing::full(DType::F32), method("diffusion-dpo"), schedule());
    let frozen = frozen_copy();
    let (policy, reference) = (Recorder::new(&pairing.policy.unet), Recorder::new(&frozen.unet));
    let uses: Vec<Use> = (0..4).map(|index| Use { index, draw: 0, drop_caption: index == 1 }).collect();
    let frozen = Reference::Frozen(&reference);
    let records =
        engine(&policy, &frozen, &objective, &schedule).accumulate(&batch(&pairs, &uses, &objective), 4);
    assert!(records.iter().all(|r| Some(r.winner_error) == r.loser_error), "{records:?}");

    let asked = policy.question();
    for (part, same) in asked.iter().zip(&reference.question()) {
        assert!(part.equal(same), "policy and reference are asked the same");
        assert!(part.narrow(0, 0, 4).equal(&part.narrow(0, 4, 4)), "winners and losers are asked the same");
        assert!(!part.get(0).equal(&part.get(2)), "pairs are asked different things");
    }
    let hidden = &asked[2];
    assert!(hidden.get(1).equal(&pairs.empty.hidden.get(0)), "the dropped caption");
    assert!(
        hidden.get(0).equal(&pairs.captions.hidden.get(0))
            && hidden.get(2).equal(&pairs.captions.hidden.get(2))
    );
}

#[test]
fn dropped_captions_are_dropped_from_both_sides() {
    let pairs = pairs();
    let uses: Vec<Use> = (0..3).map(|index| Use { index, draw: 0, drop_caption: index != 1 }).collect();
    let hidden = pairs.batch_of(&uses, &options(true)).conditioning.hidden;
    let side = Tensor::stack(
        &[pairs.empty.hidden.get(0), pairs.captions.hidden.get(1), pairs.empty.hidden.get(0)],
        0,
    );
    assert!(hidden.equal(&Tensor::cat(&[&side, &side], 0)));
}

#[test]
fn draws_depend_on_pair_and_repetition_alone() {
    let (pairs, schedule, pairing) = (pairs(), schedule(), Pairing::full(DType::F32));
    let (reference, objective) = (pairing.reference(), method("diffusion-dpo"));
    let engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
    let draw = |indices: &[usize], repetition: u64| {
        let batch = batch(&pairs, &uses(indices, repetition), &objective);
        let draws = engine.draw(&batch);
        let Noise::Forward(noise) = draws.noise else { panic!("the method adds noise") };
        (draws.levels, noise, batch.latents)
    };
    let (levels, noise, latents) = draw(&[3, 1, 5], 0);
    let (alone, alone_noise, alone_latents) = draw(&[1], 0);
    assert_eq!(alone, levels[1..2]);
    assert!(alone_noise.equal(&noise.narrow(0, 1, 1)));
    assert!(alone_latents.equal(&latents.index_select(0, &Tensor::from_slice(&[1i64, 4]))));
    let (again, again_noise, again_latents) = draw(&[3, 1, 5], 1);
    assert_ne!(again, levels);
    assert!(!again_noise.equal(&noise) && !again_latents.equal(&latents));
}

/// A network whose answers for the first `n_lost` rows are infinite.
struct Lost<'a> {
    network: &'a dyn Denoiser,
    n_lost: i64,
}

impl Denoiser for Lost<'_> {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        let y = self.network.predict(x, timestep, conditioning);
        let _ = y.narrow(0, 0, self.n_lost).fill_(f64::INFINITY);
        y
    }
}

/// The winner's infinite reference error makes the logit infinite and the loss a perfect 0.
#[test]
fn an_infinite_error_is_noticed_behind_a_finite_loss() {
    let (pairs, schedule, pairing) = (pairs(), schedule(), Pairing::full(DType::F32));
    let (objective, frozen) = (method("diffusion-dpo"), frozen_copy());
    let lost = Lost { network: &frozen.unet, n_lost: 1 };
    let reference = Reference::Frozen(&lost);
    let engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
    let records = engine.accumulate(&batch(&pairs, &uses(&[0, 1], 0), &objective), 2);
    assert_eq!(records[0].outcome.loss, 0.0);
    assert_eq!(records.iter().map(|r| r.is_finite()).collect::<Vec<_>>(), [false, true]);
    assert!(pairing.policy.trainable.iter().all(|p| !p.tensor.grad().defined()), "no gradient was added");
}

#[test]
fn measuring_leaves_the_adapter_on_and_the_reference_as_it_was() {
    let (pairs, schedule, pairing) = (pairs(), schedule(), Pairing::adapted(DType::F32));
    let (reference, objective, before) = (pairing.reference(), method("ddim-inpo"), pairing.frozen_weights());
    let engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
    engine.accumulate(&batch(&pairs, &uses(&[0], 0), &objective), 1);
    assert!(pairing.policy.switch.get());
    assert_identical(&pairing.frozen_weights(), &before);
    let gradients = take_gradients(&pairing.policy.trainable);
    let largest = |end: &str| {
        let ends = gradients.iter().filter(|(name, _)| name.ends_with(end));
        ends.map(|(_, g)| g.abs().to_kind(Kind::Double).max().double_value(&[])).fold(0.0, f64::max)
    };
    assert!(largest("lora_B.weight") > 0.0, "the up projections learn from the first step on");
    assert_eq!(largest("lora_A.weight"), 0.0, "the down projections wait for them");
}

#[test]
fn however_an_effective_batch_is_split_each_step_has_the_same_pairs_and_each_rank_knows_its_last_micro_batch()
{
    let pairs = pairs();
    // Pairs of each step over all ranks, sorted.
    let steps = |world_size: u32, micro_batch: u32, accumulation: u32| -> Vec<Vec<(u64, u64)>> {
        let mut steps = vec![Vec::new(); 5];
        for rank in 0..world_size as usize {
            let more =
                format!("train_batch_size = {micro_batch}\ngradient_accumulation_steps = {accumulation}\n");
            let plan = Plan { n_processes: world_size, ..plan("mapo", 5, &more) };
            let rank = Rank { rank, world_size: world_size as usize };
            let order = Order::new(&plan, (0..6).collect(), Vec::new(), true).of_rank(rank);
            let (mut step, mut was_last) = (0, true);
            for item in feed(&pairs, order, options(true)) {
                match item.unwrap() {
                    FeedItem::Batch(batch) => {
                        steps[step].extend(&batch.keys);
                        was_last = batch.is_last;
                    }
                    FeedItem::Skipped(skipped) => panic!("{skipped:?}"),
                    FeedItem::End => {
                        assert!(was_last, "the last of step {step} is not marked");
                        step += 1;
                    }
                }
            }
        }
        steps.iter_mut().for_each(|step| step.sort_unstable());
        steps
    };
    let one = steps(1, 1, 8);
    assert!(one.iter().all(|step| step.len() == 8));
    for (world_size, micro_batch, accumulation) in [(2, 1, 4), (4, 2, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2)] {
        assert_eq!(
            steps(world_size, micro_batch, accumulation),
            one,
            "{world_size} x {micro_batch} x {accumulation}"
        );
    }
}

#[test]
fn what_steps_draw_is_drawn_with_their_batches_and_is_what_the_step_would_draw() {
    let schedule = schedule();
    for name in ["mapo", "ddim-inpo"] {
        let pairing = Pairing::adapted(DType::F32);
        let (reference, objective) = (pairing.reference(), method(name));
        let engine = engine(&pairing.policy.unet, &reference, &objective, &schedule);
        let plan = plan(name, 3, "train_batch_size = 2\n[validation]\nvalidation_steps = 2\n");
        let order = Order::new(&plan, (0..4).collect(), vec![4, 5], true);
        let drawing = engine.drawing();
        let items: Vec<_> = prefetch(
            || Ok(pairs()),
            order,
            options(true),
            drawing,
            |feed| feed.map(Result::unwrap).collect(),
        );
        let (mut n_drawn, mut n_held_out) = (0, 0);
        for item in items {
            let FeedItem::Batch(mut batch) = item else { continue };
            let Some(found) = batch.draws.take() else {
                n_held_out += 1;
                continue;
            };
            n_drawn += 1;
            let wanted = engine.draw(&batch);
            assert_eq!(found.levels, wanted.levels);
            match (found.noise, wanted.noise) {
                (Noise::Forward(found), Noise::Forward(wanted)) => assert!(found.equal(&wanted)),
                (Noise::Inversion { keys: found, .. }, Noise::Inversion { keys: wanted, .. }) => {
                    assert_eq!(found, wanted);
                }
                different => panic!("{different:?}"),
            }
        }
        assert_eq!((n_drawn, n_held_out), (3, 3), "{name}: before, after two steps and after the last");
    }
}
