//! What every model is put through: the same questions, the same painter, the same judges.

use anyhow::Result;
use image::RgbImage;
use tastemaker_diffusion::Denoiser;
use tastemaker_eval::generate::{Job, PaintSettings, Painter};
use tastemaker_eval::report::Shares;
use tastemaker_eval::scorers::{
    Artwork, Judge, PreferenceScorer, Reading, ScorerCheck, StyleTaste, check_preference, motif_pairs,
    style_pairs,
};
use tastemaker_eval::winrate::{self, Comparison, Group, WinRate};

use super::art::{Art, STYLES, Split};
use super::task::{BASE_STYLES, Preference, Task, TaskName};

/// What a model painted, and how the judge reads it.
pub struct Painted {
    /// The pictures, in the order of the questions.
    pub pictures: Vec<RgbImage>,
    /// What the judge sees in each.
    pub readings: Vec<Reading>,
}

/// One picture to be painted by everybody.
#[derive(Clone, Copy)]
pub struct Question {
    /// Index of the caption asked for.
    pub caption: usize,
    /// Seed of the starting noise.
    pub seed: u64,
    /// Whether the caption was in the training pairs.
    pub group: Group,
}

/// Steps of the demo's sampler.
pub const N_STEPS: usize = 20;
/// Its guidance.
pub const GUIDANCE_SCALE: f64 = 2.0;
/// Its pictures per forward pass.
pub const BATCH_SIZE: usize = 32;

/// The demo's fixed parts.
pub struct Stage<'a> {
    /// What the pairs prefer.
    pub task: &'a Task<'a>,
    /// The real art.
    pub art: &'a Art,
    /// Turns prompts into pictures.
    pub painter: Painter,
    /// The nearest-art judge.
    pub judge: &'a Judge,
    /// The learnt second opinion, where the task has one.
    pub scorer: Option<PreferenceScorer<'a>>,
    /// What is asked.
    pub questions: Vec<Question>,
    /// How it is painted.
    pub settings: PaintSettings,
}

/// Every caption in every style.
pub fn gallery(art: &Art) -> Vec<Artwork> {
    let cell = |caption: usize| {
        (0..STYLES.len()).map(move |style| Artwork { caption, style, image: art.picture(caption, style) })
    };
    (0..art.captions.len()).flat_map(cell).collect()
}

/// Held-out captions with two seeds each (safety, which has few: six), and a sample of seen ones.
pub fn questions(task: &Task<'_>, run_seed: u64, full: bool) -> Vec<Question> {
    let repeats = match (task.name, full) {
        (TaskName::Safety, _) => 6,
        (_, false) => 2,
        (_, true) => 3,
    };
    let held_out = task.prompts(Split::HeldOut);
    let seen = task.prompts(Split::Train);
    let n_seen = 48.min(seen.len());
    let ask = |group: Group| move |(i, caption): (usize, usize)| Question { caption, seed: i as u64, group };
    let shown = (0..n_seen).map(|i| seen[i * seen.len() / n_seen]);
    (0..repeats)
        .flat_map(|_| held_out.iter().copied())
        .enumerate()
        .map(ask(Group::HeldOut))
        .chain(shown.enumerate().map(ask(Group::Seen)))
        .map(|q| Question { seed: (run_seed << 32) + q.seed, ..q })
        .collect()
}

impl Stage<'_> {
    /// Has a model answer every question.
    pub fn paint(&self, denoiser: &dyn Denoiser) -> Result<Painted> {
        let jobs: Vec<Job> = self
            .questions
            .iter()
            .enumerate()
            .map(|(number, question)| Job {
                prompt: self.art.captions[question.caption].label.clone(),
                seed: question.seed,
                number: number as u64,
                ..Job::default()
            })
            .collect();
        let pictures = self.painter.paint(denoiser, &jobs, &self.settings)?;
        let readings = pictures.iter().map(|picture| self.judge.read(picture)).collect();
        Ok(Painted { pictures, readings })
    }

    /// Caption accuracy and target share.
    pub fn shares(&self, painted: &Painted) -> Result<winrate::Split<Shares>> {
        winrate::Split::try_build(|group| {
            let of_group: Vec<(&Reading, usize)> = painted
                .readings
                .iter()
                .zip(&self.questions)
                .filter(|(_, question)| question.group == group)
                .map(|(reading, question)| (reading, question.caption))
                .collect();
            let n = of_group.len();
            let share = |test: &dyn Fn(&Reading, usize) -> bool| {
                of_group.iter().filter(|(reading, caption)| test(reading, *caption)).count() as f64 / n as f64
            };
            let has_target = self.task.name.target_share().is_some();
            Ok(Shares {
                n,
                caption_accuracy: share(&|reading, caption| self.task.caption_correct(reading, caption)),
                target_share: has_target.then(|| {
                    share(&|reading, caption| self.task.meets_target(reading, caption) == Some(true))
                }),
            })
        })
    }

    /// A against B, by the judge.
    pub fn compare(&self, a: &Painted, b: &Painted, seed: u64) -> Result<winrate::Split<winrate::WinRate>> {
        let score =
            |painted: &Painted, i: usize| self.task.score(&painted.readings[i], self.questions[i].caption);
        let comparisons: Vec<Comparison> = self
            .questions
            .iter()
            .enumerate()
            .map(|(i, q)| Comparison {
                prompt: q.caption,
                seed: q.seed,
                group: q.group,
                a: score(a, i),
                b: score(b, i),
            })
            .collect();
        Ok(winrate::win_rates(&comparisons, seed)?)
    }

    /// A against B on held-out captions, by the learnt scorer.
    pub fn compare_by_scorer(&self, a: &Painted, b: &Painted, seed: u64) -> Result<Option<WinRate>> {
        let Some(scorer) = &self.scorer else { return Ok(None) };
        let held_out = self.questions.iter().enumerate().filter(|(_, q)| q.group == Group::HeldOut);
        let comparisons: Vec<Comparison> = held_out
            .map(|(i, q)| Comparison {
                prompt: q.caption,
                seed: q.seed,
                group: q.group,
                a: scorer.score_image(&a.pictures[i], q.caption),
                b: scorer.score_image(&b.pictures[i], q.caption),
            })
            .collect();
        Ok(Some(winrate::win_rate(&comparisons, seed)?))
    }
}

/// The learnt scorer of a style task, with its check on held-out art; none for the other tasks.
///
/// It learns from real art of training captions alone.
pub fn scorer<'a>(
    task: &Task<'_>,
    art: &Art,
    gallery: &[Artwork],
    judge: &'a Judge,
    seed: u64,
) -> Result<Option<(PreferenceScorer<'a>, ScorerCheck)>> {
    let Some(target) = task.name.style() else { return Ok(None) };
    let others: Vec<usize> = BASE_STYLES.into_iter().filter(|&style| style != target).collect();
    let taste = StyleTaste { target, others: &others };
    let train = art.on(Split::Train);
    let mut pairs = style_pairs(gallery, taste, &train);
    pairs.extend(motif_pairs(gallery, target, &train, seed));
    let labels: Vec<String> = art.captions.iter().map(|caption| caption.label.clone()).collect();
    let scorer = PreferenceScorer::fit(&pairs, &labels, Some(judge), seed)?;
    let check = check_preference(&scorer, judge, gallery, taste, &art.on(Split::HeldOut), seed)?;
    Ok(Some((scorer, check)))
}

/// Four pictures per training caption by the base; best against worst, by the judge.
pub fn ranked_by_the_judge(stage: &Stage<'_>, base: &dyn Denoiser, seed: u64) -> Result<Vec<Preference>> {
    const CANDIDATES: usize = 4;
    let captions = stage.art.on(Split::Train);
    let jobs: Vec<Job> = captions
        .iter()
        .flat_map(|&caption| (0..CANDIDATES).map(move |k| (caption, k)))
        .map(|(caption, k)| Job {
            prompt: stage.art.captions[caption].label.clone(),
            seed: seed ^ (1 << 60),
            number: (caption * CANDIDATES + k) as u64,
            ..Job::default()
        })
        .collect();
    println!("painting {} candidates with the base", jobs.len());
    let pictures = stage.painter.paint(base, &jobs, &stage.settings)?;
    let preference = |(caption, candidates): (&usize, &[RgbImage])| {
        let score = |picture: &RgbImage| stage.task.score(&stage.judge.read(picture), *caption);
        let mut ranked: Vec<(f64, &RgbImage)> = candidates.iter().map(|p| (score(p), p)).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        Some(Preference {
            loser: ranked.first()?.1.clone(),
            winner: ranked.last()?.1.clone(),
            caption: stage.art.captions[*caption].label.clone(),
        })
    };
    Ok(captions.iter().zip(pictures.chunks(CANDIDATES)).filter_map(preference).collect())
}
