//! The list of samplers, walked by help texts, reference docs and conformance tests.

use std::str::FromStr;

use crate::ddim::Spacing;
use crate::nearest::{did_you_mean, nearest};

/// How images are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sampler {
    /// `ddim`.
    #[default]
    Ddim,
    /// `euler`.
    Euler,
    /// `euler-ancestral`.
    EulerAncestral,
    /// `heun`.
    Heun,
    /// `dpmpp-2m`.
    Dpmpp2m,
    /// `dpmpp-2m-karras`.
    Dpmpp2mKarras,
    /// `lcm`.
    Lcm,
    /// `tcd`.
    Tcd,
}

/// One sampler, as the list shows it.
#[derive(Debug)]
pub struct SamplerEntry {
    /// Which it is.
    pub sampler: Sampler,
    /// The kebab-case name users type.
    pub name: &'static str,
    /// Names of other programs, spelled as [`Sampler::from_str`] spells what is typed: lower case, dashes.
    pub aliases: &'static [&'static str],
    /// Its name in AUTOMATIC1111's interface and in the parameters that program writes into images.
    pub label: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// Where it comes from: paper and reference code.
    pub source: &'static str,
    /// How its class spreads timesteps where a model's configuration says nothing.
    pub spacing: Spacing,
    /// Whether every step draws fresh noise.
    pub is_stochastic: bool,
    /// Network calls of a step; the last step has one.
    pub n_calls: usize,
}

/// Every sampler there is.
pub static SAMPLERS: &[SamplerEntry] = &[
    SamplerEntry {
        sampler: Sampler::Ddim,
        name: "ddim",
        aliases: &["ddimscheduler"],
        label: "DDIM",
        summary: "first order on the model's own timesteps; what methods of this program train on",
        source: "arXiv 2010.02502; diffusers DDIMScheduler",
        spacing: Spacing::Leading,
        is_stochastic: false,
        n_calls: 1,
    },
    SamplerEntry {
        sampler: Sampler::Euler,
        name: "euler",
        aliases: &["k-euler", "eulerdiscretescheduler", "flowmatcheulerdiscretescheduler"],
        label: "Euler",
        summary: "first order along sigma, from the last timestep to no noise at all",
        source: "arXiv 2206.00364, algorithm 1; diffusers EulerDiscreteScheduler",
        spacing: Spacing::Linspace,
        is_stochastic: false,
        n_calls: 1,
    },
    SamplerEntry {
        sampler: Sampler::EulerAncestral,
        name: "euler-ancestral",
        aliases: &["euler-a", "k-euler-a", "k-euler-ancestral", "eulerancestraldiscretescheduler"],
        label: "Euler a",
        summary: "Euler with fresh noise after each step: the choice for distilled models of one to four steps",
        source: "k-diffusion sample_euler_ancestral; diffusers EulerAncestralDiscreteScheduler",
        spacing: Spacing::Linspace,
        is_stochastic: true,
        n_calls: 1,
    },
    SamplerEntry {
        sampler: Sampler::Heun,
        name: "heun",
        aliases: &["k-heun", "sample-heun", "heundiscretescheduler", "flowmatchheundiscretescheduler"],
        label: "Heun",
        summary: "second order, two network calls for each step: half as many steps as euler",
        source: "arXiv 2206.00364, algorithm 1; diffusers HeunDiscreteScheduler, FlowMatchHeunDiscreteScheduler",
        spacing: Spacing::Linspace,
        is_stochastic: false,
        n_calls: 2,
    },
    SamplerEntry {
        sampler: Sampler::Dpmpp2m,
        name: "dpmpp-2m",
        aliases: &["dpm++-2m", "k-dpmpp-2m", "dpmsolvermultistepscheduler"],
        label: "DPM++ 2M",
        summary: "second order, looking back one step: good from 15 steps on",
        source: "arXiv 2211.01095; diffusers DPMSolverMultistepScheduler",
        spacing: Spacing::Linspace,
        is_stochastic: false,
        n_calls: 1,
    },
    SamplerEntry {
        sampler: Sampler::Dpmpp2mKarras,
        name: "dpmpp-2m-karras",
        aliases: &["dpm++-2m-karras", "k-dpmpp-2m-karras"],
        label: "DPM++ 2M Karras",
        summary: "dpmpp-2m with smaller steps towards the end",
        source: "arXiv 2211.01095 and 2206.00364, eq. 5; diffusers DPMSolverMultistepScheduler with use_karras_sigmas",
        spacing: Spacing::Linspace,
        is_stochastic: false,
        n_calls: 1,
    },
    SamplerEntry {
        sampler: Sampler::Lcm,
        name: "lcm",
        aliases: &["lcmscheduler"],
        label: "LCM",
        summary: "for latent consistency models and LCM LoRAs, 4 to 8 steps",
        source: "arXiv 2310.04378; diffusers LCMScheduler",
        spacing: Spacing::Leading,
        is_stochastic: true,
        n_calls: 1,
    },
    SamplerEntry {
        sampler: Sampler::Tcd,
        name: "tcd",
        aliases: &["tcdscheduler"],
        label: "TCD",
        summary: "for TCD models and LoRAs, gamma 0.3, 4 to 8 steps",
        source: "arXiv 2402.19159; diffusers TCDScheduler",
        spacing: Spacing::Leading,
        is_stochastic: true,
        n_calls: 1,
    },
];

/// A name that no sampler has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found sampler \"{typed}\", wanted one of {}{}", known(), did_you_mean(*meant))]
pub struct UnknownSampler {
    /// As it was typed.
    pub typed: String,
    /// What it probably meant.
    pub meant: Option<&'static str>,
}

fn known() -> String {
    SAMPLERS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ")
}

impl Sampler {
    /// Its row of the list.
    pub fn entry(self) -> &'static SamplerEntry {
        SAMPLERS.iter().find(|entry| entry.sampler == self).unwrap_or(&SAMPLERS[0])
    }

    /// The name users type.
    pub fn name(self) -> &'static str {
        self.entry().name
    }
}

impl FromStr for Sampler {
    type Err = UnknownSampler;

    /// By its name or one that other programs have for it, whatever the case, with blanks or underscores for dashes.
    fn from_str(typed: &str) -> Result<Self, UnknownSampler> {
        let name = typed.trim().to_lowercase().replace([' ', '_'], "-");
        let fits = |entry: &&SamplerEntry| entry.name == name || entry.aliases.contains(&name.as_str());
        SAMPLERS.iter().find(fits).map(|entry| entry.sampler).ok_or_else(|| UnknownSampler {
            typed: typed.to_owned(),
            meant: nearest(&name, SAMPLERS.iter().map(|entry| entry.name)),
        })
    }
}
