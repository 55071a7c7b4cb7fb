//! From what the models generated to the comparison, and to what the report has beyond it.

use tastemaker_eval::compare::{Choice, ComparedModel, Comparison, ShownSample};
use tastemaker_pages::{Fact, Thumbnail};
use tastemaker_store::version;

use super::{Details, Method, Training};
use crate::DemoError;
use crate::art::Split;
use crate::base;
use crate::evaluation::{Evaluation, GUIDANCE_SCALE, Generated, N_STEPS};
use crate::methods::{BATCH, MethodName, Numbers};
use crate::run::Settings;
use crate::scorers::{CheckRow, ScorerCheck};

/// Samples shown of held-out and of seen prompts.
const SHOWN: [usize; 2] = [10, 4];

/// What one method left behind.
pub struct Trained {
    /// How training went.
    pub training: Training,
    /// What the result generates.
    pub generated: Generated,
}

/// One method's settings, and its result or what ended it.
pub struct MethodResult {
    /// Which method.
    pub method: MethodName,
    /// Its recipe.
    pub numbers: Numbers,
    /// What came of it.
    pub result: Result<Trained, DemoError>,
}

/// The comparison of the base with the methods that finished.
pub fn comparison(
    settings: &Settings,
    evaluation: &Evaluation<'_>,
    base: &Generated,
    results: &[MethodResult],
    n_pairs: usize,
) -> Result<Comparison, DemoError> {
    let finished: Vec<(&MethodResult, &Generated)> =
        results.iter().filter_map(|result| Some((result, &result.result.as_ref().ok()?.generated))).collect();
    let generated: Vec<&Generated> =
        std::iter::once(base).chain(finished.iter().map(|(_, generated)| *generated)).collect();
    let of_base = ComparedModel {
        name: "base".to_owned(),
        what: settings.out.join("base").display().to_string(),
        settings: vec![Fact::new("sha256", base::fingerprint())],
    };
    let aligned = finished.iter().map(|(MethodResult { method, numbers, .. }, _)| ComparedModel {
        name: method.name().to_owned(),
        what: settings.out.join(method.name()).display().to_string(),
        settings: vec![
            Fact::new("method", method.label()),
            Fact::new("learning rate", format!("{:e}", numbers.learning_rate)),
            Fact::new("steps", numbers.steps),
            Fact::new("pairs per step", BATCH),
            Fact::new("objective", numbers.settings.trim()),
        ],
    });
    Ok(Comparison {
        prompts_name: evaluation.samples.set.name.clone(),
        prompts: evaluation.samples.set.prompts.clone(),
        samples: evaluation.samples.samples.clone(),
        models: std::iter::once(of_base).chain(aligned).collect(),
        scorers: evaluation.scorers(),
        scores: evaluation.scores(&generated),
        seed: settings.seed,
        settings: vec![
            Fact::new("program", format!("tastemaker {}", version())),
            Fact::new("seed", settings.seed),
            Fact::new("training pairs", n_pairs),
            Fact::new("sampler", format!("DDIM, {N_STEPS} steps, guidance {GUIDANCE_SCALE}")),
            Fact::new("threads", tch::get_num_threads()),
        ],
        shown: shown(evaluation, &generated)?,
        focus: Some(Split::HeldOut.label().to_owned()),
    })
}

/// What the report has beyond the comparison.
pub fn details(
    settings: &Settings,
    evaluation: &Evaluation<'_>,
    base: &Generated,
    results: &[MethodResult],
    (judge_check, scorer_check): (Vec<CheckRow>, Option<ScorerCheck>),
) -> Details {
    let fractions = |generated: &Generated| Split::BOTH.map(|side| evaluation.fractions(generated, side));
    let method = |MethodResult { method, result, .. }: &MethodResult| Method {
        name: method.name().to_owned(),
        is_control: *method == MethodName::Sft,
        training: result.as_ref().map(|trained| trained.training.clone()).unwrap_or_default(),
        fractions: result.as_ref().ok().map(|trained| fractions(&trained.generated)),
        failure: result.as_ref().err().map(ToString::to_string),
    };
    Details {
        task: settings.task,
        seed: settings.seed,
        base: fractions(base),
        methods: results.iter().map(method).collect(),
        judge_check,
        scorer_check,
    }
}

/// Prompts spread evenly over both sides of the split, not chosen by what their images look like.
fn shown(evaluation: &Evaluation<'_>, generated: &[&Generated]) -> Result<Vec<ShownSample>, DemoError> {
    let spread = |(side, n): (Split, usize)| {
        let mut prompts = std::collections::BTreeSet::new();
        let mut samples = evaluation.samples.on(side);
        samples.retain(|&sample| prompts.insert(evaluation.samples.samples[sample].prompt));
        let n = n.min(samples.len());
        (0..n).map(move |k| samples[k * samples.len() / n]).collect::<Vec<_>>()
    };
    let shown = |sample: usize| {
        let images = generated.iter().map(|generated| Thumbnail::new(&generated.images[sample]));
        Ok(ShownSample {
            sample,
            choice: Choice::Spread,
            real: Some(Thumbnail::new(&evaluation.task.real(evaluation.samples.caption(sample)))?),
            images: images.collect::<Result<_, _>>()?,
        })
    };
    Split::BOTH.into_iter().zip(SHOWN).flat_map(spread).map(shown).collect()
}
