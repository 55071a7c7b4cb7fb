//! The recipes of the demo, by method and task; what was tried stands in `docs/log.md`.

use std::path::Path;

use clap::ValueEnum;

use crate::task::TaskName;

/// The methods the demo compares, the control first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// The control: only imitates winners.
    Sft,
    /// Diffusion-DPO.
    DiffusionDpo,
    /// MaPO.
    Mapo,
    /// DDIM-InPO.
    DdimInpo,
}

/// A recipe's numbers.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// Optimizer steps.
    pub steps: u64,
    /// Peak learning rate, after warm-up over a tenth of the steps and before half a cosine down to zero.
    pub learning_rate: f64,
    /// Lines of the recipe's `[method]` table besides the name.
    pub settings: &'static str,
}

impl MethodName {
    /// The objective's name.
    pub fn name(self) -> &'static str {
        match self {
            MethodName::Sft => "sft",
            MethodName::DiffusionDpo => "diffusion-dpo",
            MethodName::Mapo => "mapo",
            MethodName::DdimInpo => "ddim-inpo",
        }
    }

    /// The name for people.
    pub fn label(self) -> &'static str {
        match self {
            MethodName::Sft => "SFT on winners",
            MethodName::DiffusionDpo => "Diffusion-DPO",
            MethodName::Mapo => "MaPO",
            MethodName::DdimInpo => "DDIM-InPO",
        }
    }

    /// The recipe for a task.
    pub fn numbers(self, task: TaskName, full: bool) -> Numbers {
        let more = if full { 2 } else { 1 };
        // A style the base has never seen takes several times the steps, and images to imitate more than a margin.
        let unseen = task == TaskName::StyleMismatch;
        let (steps, learning_rate, settings) = match self {
            MethodName::Sft if unseen => (300, 2e-4, ""),
            MethodName::Sft => (50, 1e-4, ""),
            MethodName::DiffusionDpo if unseen => (100, 5e-5, "beta = 5000.0\n"),
            MethodName::DiffusionDpo => (50, 2e-5, "beta = 5000.0\n"),
            MethodName::Mapo if unseen => (300, 2e-4, "form = \"release\"\nbeta = 0.001\n"),
            MethodName::Mapo => (50, 5e-5, "form = \"release\"\nbeta = 0.005\n"),
            MethodName::DdimInpo if unseen => (100, 6e-5, "beta = 5000.0\nmodel = \"reference\"\n"),
            MethodName::DdimInpo => (50, 6e-5, "beta = 5000.0\nmodel = \"reference\"\n"),
        };
        Numbers { steps: steps * more, learning_rate, settings }
    }

    /// The recipe as a file a user can run by hand with `tastemaker train`.
    pub fn recipe(self, numbers: &Numbers, model: &Path, pairs: &Path, output: &Path, seed: u64) -> String {
        let Numbers { steps, learning_rate, settings } = numbers;
        format!(
            "# {label} on the embedded model, as `tastemaker demo` runs it.\n\
             output_dir = {output:?}\n\n\
             [model]\npretrained_model_name_or_path = {model:?}\n\n\
             [data]\ntrain_data_dir = {pairs:?}\nresolution = 64\nheld_out_fraction = 0.1\nheld_out_choice = \"drawn\"\nno_hflip = true\n\
             proportion_empty_prompts = 0.1\ncache_to = {cache:?}\n\n\
             [method]\nname = {name:?}\n{settings}\n\
             [adapter]\nadapter_type = \"full\"\n\n\
             [optimizer]\nlearning_rate = {learning_rate:?}\nlr_scheduler = \"cosine\"\n\
             lr_warmup_steps = {warmup}\nmax_grad_norm = 1.0\n\n\
             [train]\nmax_train_steps = {steps}\ntrain_batch_size = {BATCH}\ngradient_accumulation_steps = 1\n\
             mixed_precision = \"no\"\nseed = {seed}\n\n\
             [validation]\nvalidation_steps = {every}\nvalidation_pairs = 64\n",
            cache = pairs.with_file_name("encoded"),
            label = self.label(),
            name = self.name(),
            warmup = steps / 10,
            every = (steps / 8).max(1),
        )
    }
}

/// Pairs per optimizer step.
pub const BATCH: usize = 32;
