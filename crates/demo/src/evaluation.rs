//! What every model is put through: the same samples, the same generator, the same scorers.

use image::RgbImage;
use tastemaker_diffusion::Denoiser;
use tastemaker_eval::compare::ScorerInfo;
use tastemaker_generate::{GenerateSettings, Generator, Networks, SampleRequest};

use crate::DemoError;
use crate::art::{Art, Split};
use crate::prompts::Samples;
use crate::scorers::{
    Artwork, Judge, NEAREST_ART, PreferenceScorer, Reading, ScorerCheck, StyleTaste, check_preference,
    motif_pairs, preference, style_pairs,
};
use crate::task::{BASE_STYLES, Preference, Task};

/// Steps of the demo's sampler.
pub const N_STEPS: usize = 20;
/// Its guidance.
pub const GUIDANCE_SCALE: f64 = 2.0;
/// Its images per forward pass.
pub const BATCH_SIZE: usize = 32;

/// Images a model generated for ranking by the judge, per caption.
const CANDIDATES: usize = 4;

/// What a model generated, and how the judge reads it.
pub struct Generated {
    /// The images, in the order of the samples.
    pub images: Vec<RgbImage>,
    /// What the judge sees in each.
    pub readings: Vec<Reading>,
}

/// Called after each image with how many are generated, and how many will be.
pub type OnImage<'a> = &'a mut dyn FnMut(usize, usize);

/// The demo's fixed parts.
pub struct Evaluation<'a> {
    /// What the pairs prefer.
    pub task: &'a Task<'a>,
    /// The real art.
    pub art: &'a Art,
    /// Turns prompts into images.
    pub generator: Generator<'static>,
    /// The nearest-art judge.
    pub judge: &'a Judge,
    /// The learned second opinion, where the task has one.
    pub preference: Option<PreferenceScorer<'a>>,
    /// What is generated.
    pub samples: Samples,
}

/// How a model's images are read by the judge, counted over the images of one side of the split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fractions {
    /// Number of images.
    pub n: usize,
    /// Fraction whose caption the judge names.
    pub caption_accuracy: f64,
    /// Fraction that meets the goal of the task, where it has one.
    pub target: Option<f64>,
}

impl Evaluation<'_> {
    /// Has a model generate every sample.
    pub fn generate(&self, denoiser: &dyn Denoiser, on_image: OnImage<'_>) -> Result<Generated, DemoError> {
        let prompt = |sample: usize| self.art.captions[self.samples.caption(sample)].label.clone();
        let requests: Vec<SampleRequest> = (self.samples.samples.iter().enumerate())
            .map(|(number, sample)| SampleRequest {
                prompt: prompt(number),
                seed: sample.seed,
                number: number as u64,
                ..SampleRequest::default()
            })
            .collect();
        let images = self.run(denoiser, &requests, on_image)?;
        let readings = images.iter().map(|image| self.judge.read(image)).collect();
        Ok(Generated { images, readings })
    }

    fn run(
        &self,
        denoiser: &dyn Denoiser,
        requests: &[SampleRequest],
        on_image: OnImage<'_>,
    ) -> Result<Vec<RgbImage>, DemoError> {
        let settings = GenerateSettings {
            n_steps: N_STEPS,
            guidance_scale: GUIDANCE_SCALE,
            batch_size: BATCH_SIZE,
            ..GenerateSettings::default()
        };
        let networks = Networks { denoiser, negative: None };
        let mut images = Vec::with_capacity(requests.len());
        self.generator.generate_each(
            networks,
            requests,
            &settings,
            |_| true,
            |_, image| {
                images.push(image);
                on_image(images.len(), requests.len());
                Ok::<(), DemoError>(())
            },
        )?;
        Ok(images)
    }

    /// Caption accuracy and fraction that meets the goal.
    pub fn fractions(&self, generated: &Generated, side: Split) -> Fractions {
        let samples = self.samples.on(side);
        let fraction = |test: &dyn Fn(&Reading, usize) -> bool| {
            let meets = |&&sample: &&usize| test(&generated.readings[sample], self.samples.caption(sample));
            samples.iter().filter(meets).count() as f64 / samples.len() as f64
        };
        let target =
            self.task.name.target().map(|_| {
                fraction(&|reading, caption| self.task.meets_target(reading, caption) == Some(true))
            });
        Fractions { n: samples.len(), caption_accuracy: fraction(&Reading::caption_correct), target }
    }

    /// The scorers: the judge, and the learned one where there is one.
    pub fn scorers(&self) -> Vec<ScorerInfo> {
        let judge = format!("{}:{}", NEAREST_ART.name, self.task.name.name());
        let judge = ScorerInfo {
            name: judge,
            unit: self.task.score_unit().to_owned(),
            about: NEAREST_ART.summary.to_owned(),
        };
        let learned = ScorerInfo {
            name: preference::NAME.to_owned(),
            unit: preference::UNIT.to_owned(),
            about: preference::SUMMARY.to_owned(),
        };
        std::iter::once(judge).chain(self.preference.as_ref().map(|_| learned)).collect()
    }

    /// What every scorer says about every sample of each model, `[scorers][models][samples]`.
    pub fn scores(&self, models: &[&Generated]) -> Vec<Vec<Vec<f64>>> {
        let n = self.samples.samples.len();
        let by = |score: &dyn Fn(&Generated, usize) -> f64| -> Vec<Vec<f64>> {
            models.iter().map(|generated| (0..n).map(|sample| score(generated, sample)).collect()).collect()
        };
        let judged = by(&|generated, sample| {
            self.task.score(&generated.readings[sample], self.samples.caption(sample))
        });
        let learned = self.preference.as_ref().map(|scorer| {
            by(&|generated, sample| {
                scorer.score_image(&generated.images[sample], self.samples.caption(sample))
            })
        });
        std::iter::once(judged).chain(learned).collect()
    }

    /// Four images per training caption by the base; best against worst, by the judge.
    pub fn ranked_by_the_judge(
        &self,
        base: &dyn Denoiser,
        seed: u64,
        log: &mut dyn FnMut(&str),
        on_image: OnImage<'_>,
    ) -> Result<Vec<Preference>, DemoError> {
        let captions = self.art.on(Split::Train);
        let requests: Vec<SampleRequest> = captions
            .iter()
            .flat_map(|&caption| (0..CANDIDATES).map(move |k| (caption, k)))
            .map(|(caption, k)| SampleRequest {
                prompt: self.art.captions[caption].label.clone(),
                seed: seed ^ (1 << 60),
                number: (caption * CANDIDATES + k) as u64,
                ..SampleRequest::default()
            })
            .collect();
        log(&format!("generating {} candidates with the base", requests.len()));
        let images = self.run(base, &requests, on_image)?;
        let preference = |(caption, candidates): (&usize, &[RgbImage])| {
            let score = |image: &RgbImage| self.task.score(&self.judge.read(image), *caption);
            let mut ranked: Vec<(f64, &RgbImage)> = candidates.iter().map(|p| (score(p), p)).collect();
            ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
            Some(Preference {
                loser: ranked.first()?.1.clone(),
                winner: ranked.last()?.1.clone(),
                caption: self.art.captions[*caption].label.clone(),
            })
        };
        Ok(captions.iter().zip(images.chunks(CANDIDATES)).filter_map(preference).collect())
    }
}

/// The learned scorer of a style task, with its check on held-out art; none for the other tasks.
///
/// It learns from real art of training captions alone.
pub fn preference_scorer<'a>(
    task: &Task<'_>,
    art: &Art,
    gallery: &[Artwork],
    judge: &'a Judge,
    seed: u64,
) -> Result<Option<(PreferenceScorer<'a>, ScorerCheck)>, DemoError> {
    let Some(target) = task.name.style() else { return Ok(None) };
    let others: Vec<usize> = BASE_STYLES.into_iter().filter(|&style| style != target).collect();
    let taste = StyleTaste { target, others: &others };
    let train = art.on(Split::Train);
    let mut pairs = style_pairs(gallery, taste, &train);
    pairs.extend(motif_pairs(gallery, target, &train, seed));
    let scorer = PreferenceScorer::fit(&pairs, art.captions.len(), Some(judge), seed)?;
    let check = check_preference(&scorer, judge, gallery, taste, &art.on(Split::HeldOut), seed)?;
    Ok(Some((scorer, check)))
}
