//! What a micro-batch draws: its noise levels and its noise, a pure function of seed, pair and repetition.

use tastemaker_diffusion::corruption::Inversion;
use tastemaker_diffusion::noise::{NoiseKey, gaussian};
use tastemaker_math::flow::Density;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_math::level::Level;
use tastemaker_math::objectives::{Corruption, InversionModel};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_torch::tensors::upload;
use tch::Tensor;

use crate::data::Batch;

/// What is done on purpose to what a step draws.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Disturbance {
    /// Standard deviation of an offset of each channel that is added to forward noise.
    ///
    /// Source: SalesforceAIResearch/DiffusionDPO train.py `--noise_offset`.
    pub noise_offset: f64,
    /// Probability that winner and loser of a pair are exchanged, drawn anew for each repetition.
    ///
    /// Source: mapo-t2i/mapo train.py `--label_noise_prob`.
    pub label_noise: f64,
}

/// Which noise levels training visits.
#[derive(Debug, Clone, Copy)]
pub enum Timesteps<'a> {
    /// Every entry of the schedule's table, all alike.
    All,
    /// A given few (SDXL-Turbo's four), all alike.
    Among(&'a [Level]),
    /// Those of a flow, by a density.
    By(Density),
}

impl Timesteps<'_> {
    /// One draw.
    fn draw(self, schedule: &NoiseSchedule, mut keyed: Keyed) -> Level {
        match self {
            Timesteps::All => schedule.level(keyed.below(schedule.len() as u64) as usize),
            Timesteps::Among(few) => few[keyed.below(few.len() as u64) as usize],
            Timesteps::By(density) => schedule.draw(density, &mut keyed),
        }
    }

    /// The level that this fraction of draws lies at or below; `fraction` from 0 to below 1.
    pub(crate) fn quantile(self, schedule: &NoiseSchedule, fraction: f64) -> Level {
        match self {
            Timesteps::All => schedule.level((fraction * schedule.len() as f64) as usize),
            Timesteps::Among(few) => few[(fraction * few.len() as f64) as usize],
            Timesteps::By(density) => schedule.quantile(density, fraction.max(2.0_f64.powi(-54))),
        }
    }
}

/// The random draws of a micro-batch.
#[derive(Debug)]
pub struct Draws {
    /// Noise level of each pair.
    pub levels: Vec<Level>,
    /// How its latents become noisy.
    pub noise: Noise,
}

/// A corruption, its noise drawn.
#[derive(Debug)]
pub enum Noise {
    /// Unit gaussians of each pair, `[n, c, h, w]`, shared by winner and loser.
    Forward(Tensor),
    /// Inversion, which adds a little posterior noise to each row.
    Inversion {
        /// Which network inverts.
        model: InversionModel,
        /// The levels it goes through.
        settings: Inversion,
        /// Names the posterior noise of each row.
        keys: Vec<NoiseKey>,
    },
}

/// What draws depend on besides the pairs. It can change threads, so that noise is drawn while the step before is computed.
#[derive(Debug, Clone, Copy)]
pub struct Drawing<'a> {
    /// How latents become noisy.
    pub corruption: Corruption,
    /// Noise levels.
    pub schedule: &'a NoiseSchedule,
    /// Where levels are drawn from.
    pub timesteps: Timesteps<'a>,
    /// Seed of every draw.
    pub seed: u64,
    /// What is done to draws on purpose.
    pub disturbance: Disturbance,
}

impl Drawing<'_> {
    /// Draws for each pair of a micro-batch.
    pub fn draw(&self, batch: &Batch) -> Draws {
        let noise = match self.corruption {
            Corruption::Forward => {
                let shape = &batch.latents.size()[1..];
                let mut noise = gaussian(&batch.pair_keys(self.seed, Stream::Noise), shape);
                if self.disturbance.noise_offset > 0.0 {
                    let keys = batch.pair_keys(self.seed, Stream::NoiseOffset);
                    noise += gaussian(&keys, &[shape[0], 1, 1]) * self.disturbance.noise_offset;
                }
                Noise::Forward(upload(&noise, batch.latents.device()))
            }
            Corruption::DdimInversion { steps, eta, model, grid } => Noise::Inversion {
                model,
                settings: Inversion { n_steps: steps, eta, grid },
                keys: batch.row_keys(self.seed, Stream::InversionNoise),
            },
        };
        Draws { levels: batch.keys.iter().map(|&key| self.level(key)).collect(), noise }
    }

    fn level(&self, (id, draw): (u64, u64)) -> Level {
        self.timesteps.draw(self.schedule, Keyed::new(self.seed, Stream::Timestep, id, draw))
    }
}
