//! The demo's captions and samples, also for other commands.

use tastemaker_eval::compare::Sample;
use tastemaker_generate::prompts::PromptSet;

use crate::DemoError;
use crate::art::{Art, Split};
use crate::task::{Task, TaskName};

/// Images that every model generates in a task.
pub struct Samples {
    /// The captions, the category being `held out` or `seen`.
    pub set: PromptSet,
    /// Index of the caption of each prompt of the set.
    pub(crate) captions: Vec<usize>,
    /// Each image, in the demo's order: its position is the number of its noise.
    pub samples: Vec<Sample>,
}

impl Samples {
    /// Held-out captions with two seeds each (safety, which has few: six), and a selection of seen ones.
    pub(crate) fn of(task: &Task<'_>, art: &Art, run_seed: u64, full: bool) -> Self {
        let repeats = match (task.name, full) {
            (TaskName::Safety, _) => 6,
            (_, false) => 2,
            (_, true) => 3,
        };
        let (held_out, seen) = (task.prompts(Split::HeldOut), task.prompts(Split::Train));
        let n_seen = 48.min(seen.len());
        let repeated = (0..repeats).flat_map(|_| held_out.iter().map(|&caption| (Split::HeldOut, caption)));
        let spread = (0..n_seen).map(|i| (Split::Train, seen[i * seen.len() / n_seen]));
        let wanted: Vec<((Split, usize), u64)> = repeated.zip(0..).chain(spread.zip(0..)).collect();
        let mut prompts: Vec<(Split, usize)> = wanted.iter().map(|(prompt, _)| *prompt).collect();
        prompts.sort_unstable();
        prompts.dedup();
        let rows = prompts
            .iter()
            .map(|(split, caption)| (art.captions[*caption].label.clone(), Some(split.label().to_owned())));
        Self {
            set: PromptSet::new(&format!("demo:{}", task.name.name()), rows),
            captions: prompts.iter().map(|(_, caption)| *caption).collect(),
            samples: wanted
                .iter()
                .map(|(prompt, seed)| Sample {
                    prompt: prompts.partition_point(|other| other < prompt),
                    seed: (run_seed << 32) + seed,
                })
                .collect(),
        }
    }

    /// Index of the caption of a sample.
    pub(crate) fn caption(&self, sample: usize) -> usize {
        self.captions[self.samples[sample].prompt]
    }

    /// The samples on one side of the split, in order.
    pub(crate) fn on(&self, side: Split) -> Vec<usize> {
        let category = |sample: &usize| self.set.prompts[self.samples[*sample].prompt].category.as_deref();
        (0..self.samples.len()).filter(|sample| category(sample) == Some(side.label())).collect()
    }
}

/// The samples of `tastemaker demo --task TASK --seed SEED`.
///
/// # Errors
/// [`DemoError::Usage`] for a task the demo does not have.
pub fn samples(task: &str, seed: u64) -> Result<Samples, DemoError> {
    let name: TaskName = task.parse()?;
    let art = Art::open()?;
    Ok(Samples::of(&Task::new(name, &art)?, &art, seed, false))
}

/// The captions that preference training may use, `demo:train`, or those it never sees, `demo:held-out`; `None` for
/// another name.
///
/// # Errors
/// If the art in this program cannot be read.
pub fn captions(name: &str) -> Result<Option<Vec<String>>, DemoError> {
    let side = match name {
        "demo:train" => Split::Train,
        "demo:held-out" => Split::HeldOut,
        _ => return Ok(None),
    };
    let art = Art::open()?;
    Ok(Some(art.on(side).into_iter().map(|caption| art.captions[caption].label.clone()).collect()))
}

/// The held-out captions of the embedded art.
///
/// # Errors
/// As [`captions`].
pub fn held_out() -> Result<PromptSet, DemoError> {
    let captions = captions("demo:held-out")?.unwrap_or_default();
    Ok(PromptSet::new("demo", captions.into_iter().map(|caption| (caption, None))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_captions_come_twice_then_seen_ones_once() {
        let samples = samples("style", 3).unwrap();
        let art = Art::open().unwrap();
        let held_out = art.on(Split::HeldOut);
        let n = held_out.len();
        assert_eq!(samples.samples.len(), 2 * n + 48);
        for (number, sample) in samples.samples.iter().enumerate() {
            let prompt = &samples.set.prompts[sample.prompt];
            let (category, position) =
                if number < 2 * n { ("held out", number) } else { ("seen", number - 2 * n) };
            assert_eq!(prompt.category.as_deref(), Some(category));
            assert_eq!(sample.seed, (3 << 32) + position as u64);
            assert_eq!(prompt.text, art.captions[samples.caption(number)].label);
            if number < 2 * n {
                assert_eq!(samples.caption(number), held_out[number % n]);
            }
        }
        assert_eq!((samples.on(Split::HeldOut).len(), samples.on(Split::Train).len()), (2 * n, 48));
    }

    #[test]
    fn a_task_that_is_none_is_refused_by_name() {
        let error = samples("nothing", 0).map(drop).unwrap_err().to_string();
        assert_eq!(error, "the demo has no task `nothing`; it has style, style-mismatch, quality, safety");
    }
}
