//! `scheduler/scheduler_config.json`: the noise a model was trained on, and how its images are drawn.
//!
//! Which solver draws an image is not for the file to say, so keys that only choose among solvers are read over; keys that
//! change the noise levels, the prediction or the timesteps the network is given are used or refused.
//!
//! Source: the constructors in `huggingface/diffusers:src/diffusers/schedulers/`.

mod flow;

use serde_json::{Value, json};
use tastemaker_math::ddim::{Sampling, Spacing};
use tastemaker_math::samplers::Sampler;
use tastemaker_math::schedule::{BetaSchedule, NoiseSchedule, Prediction};

use crate::config::ConfigReader;

/// The noise that a class of diffusers has where its configuration is silent.
struct Class {
    name: &'static str,
    schedule: BetaSchedule,
    betas: [f64; 2],
    clips_samples: bool,
}

/// DDPM's levels.
const fn early(name: &'static str) -> Class {
    Class { name, schedule: BetaSchedule::Linear, betas: [0.0001, 0.02], clips_samples: false }
}

/// Ends of Stable Diffusion's levels, spread evenly all the same.
const fn late(name: &'static str) -> Class {
    Class { betas: [0.00085, 0.012], ..early(name) }
}

/// Every class that trains and draws on levels of betas. How images are drawn is not the file's to say, so where it is silent
/// about that, the class of the sampler counts and not this one.
const CLASSES: [Class; 20] = [
    Class { clips_samples: true, ..early("DDIMScheduler") },
    Class { clips_samples: true, ..early("DDIMParallelScheduler") },
    Class { clips_samples: true, ..early("DDIMInverseScheduler") },
    Class { clips_samples: true, ..early("DDPMScheduler") },
    Class { clips_samples: true, ..early("DDPMParallelScheduler") },
    early("PNDMScheduler"),
    early("EulerDiscreteScheduler"),
    early("EulerAncestralDiscreteScheduler"),
    late("HeunDiscreteScheduler"),
    late("KDPM2DiscreteScheduler"),
    late("KDPM2AncestralDiscreteScheduler"),
    early("LMSDiscreteScheduler"),
    early("DEISMultistepScheduler"),
    early("DPMSolverMultistepScheduler"),
    early("DPMSolverSinglestepScheduler"),
    late("DPMSolverSDEScheduler"),
    early("SASolverScheduler"),
    early("UniPCMultistepScheduler"),
    Class { schedule: BetaSchedule::ScaledLinear, ..late("LCMScheduler") },
    Class { schedule: BetaSchedule::ScaledLinear, ..late("TCDScheduler") },
];

/// Keys that choose a solver or set it up.
const SOLVER: &str = "algorithm_type clip_sample_range corrector_order disable_corrector dynamic_thresholding_ratio euler_at_final \
    final_sigmas_type flow_shift interpolation_type lambda_min_clipped lower_order_final noise_sampler_seed original_inference_steps \
    predict_x0 predictor_order sample_max_value shift_terminal sigma_max sigma_min skip_prk_steps solver_p solver_type \
    tau_func time_shift_type timestep_scaling use_beta_sigmas use_exponential_sigmas use_lu_lambdas tensor_format";

/// Far more levels than any model has; a table of them still fits anywhere.
const MAX_TIMESTEPS: usize = 100_000;

/// Noise levels and sampling settings of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerConfig {
    /// The noise levels the model was trained on, and what it predicts.
    pub schedule: NoiseSchedule,
    /// DDIM over the model's own timesteps: 50 steps, eta 0.
    pub sampling: Sampling,
    /// The class that the file names.
    pub class: &'static str,
    /// How the file itself spreads timesteps; `None` where it is silent and the sampler decides.
    pub stated_spacing: Option<Spacing>,
}

impl SchedulerConfig {
    /// How a sampler draws with this model: where the file does not say how timesteps are spread, as the sampler's own class does,
    /// as `from_config` of diffusers has it.
    pub fn sampling_by(&self, sampler: Sampler) -> Sampling {
        let spacing = self.stated_spacing.unwrap_or(sampler.entry().spacing);
        Sampling { spacing, ..self.sampling }
    }

    /// The same noise, brought to end in pure noise, from where images are then drawn.
    pub fn with_zero_terminal_snr(self) -> Self {
        if self.schedule.ends_in_noise() {
            return self;
        }
        let spacing = Spacing::Trailing;
        Self {
            schedule: self.schedule.rescale_zero_terminal_snr(),
            sampling: Sampling { spacing, ..self.sampling },
            stated_spacing: Some(spacing),
            class: self.class,
        }
    }

    /// Reads and validates a diffusers configuration.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(config: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(config);
        let name = config.get("_class_name").and_then(Value::as_str).unwrap_or("no class");
        if [flow::CLASS, flow::HEUN].contains(&name) {
            return Self::of_flow(r, name == flow::HEUN);
        }
        let class = CLASSES.iter().find(|class| class.name == name).unwrap_or_else(|| {
            let known: Vec<_> =
                CLASSES.iter().map(|class| class.name).chain([flow::CLASS, flow::HEUN]).collect();
            r.problem(format!("`_class_name` is {name}; wanted one of {}", known.join(", ")));
            &CLASSES[0]
        });
        check_clipping(&mut r, class);
        let kind = r.or("beta_schedule", class.schedule);
        let prediction = r.or("prediction_type", Prediction::Epsilon);
        let n_timesteps = r.or("num_train_timesteps", 1000usize);
        let [start, end] = class.betas;
        let (start, end) = (r.or("beta_start", start), r.or("beta_end", end));
        let rescale = r.or("rescale_betas_zero_snr", false);
        let stated_spacing = r.optional("timestep_spacing");
        let own = Sampling::default();
        let sampling = Sampling {
            spacing: stated_spacing.unwrap_or(own.spacing),
            steps_offset: r.or("steps_offset", own.steps_offset),
            set_alpha_to_one: r.or("set_alpha_to_one", own.set_alpha_to_one),
            use_karras_sigmas: r.or("use_karras_sigmas", own.use_karras_sigmas),
            solver_order: solver_order(&mut r, own.solver_order),
            ..own
        };
        neutral_keys(&mut r);
        let schedule = if n_timesteps > MAX_TIMESTEPS {
            Err(format!("`num_train_timesteps` is {n_timesteps}; wanted at most {MAX_TIMESTEPS}"))
        } else {
            NoiseSchedule::new(kind, n_timesteps, start, end, prediction).map_err(|error| error.to_string())
        };
        match schedule {
            Ok(schedule) => {
                let schedule = if rescale { schedule.rescale_zero_terminal_snr() } else { schedule };
                r.finish().map(|()| Self { schedule, sampling, class: class.name, stated_spacing })
            }
            Err(problem) => {
                r.problem(problem);
                Err(r.finish().expect_err("a problem was just recorded"))
            }
        }
    }
}

impl SchedulerConfig {
    fn of_flow(mut r: ConfigReader, is_heun: bool) -> Result<Self, String> {
        let (flow, is_stochastic) = flow::read(&mut r);
        // What is drawn by, where the user does not say.
        let class = match is_stochastic {
            true => "EulerAncestralDiscreteScheduler",
            false if is_heun => flow::HEUN,
            false => flow::CLASS,
        };
        match NoiseSchedule::of_flow(flow) {
            Ok(schedule) => r.finish().map(|()| Self {
                schedule,
                sampling: Sampling::default(),
                class,
                stated_spacing: None,
            }),
            Err(problem) => {
                r.problem(problem.to_string());
                Err(r.finish().expect_err("a problem was just recorded"))
            }
        }
    }
}

/// The order of DPM++, which `from_config` takes from the configurations of other solvers too.
fn solver_order(r: &mut ConfigReader, default: usize) -> usize {
    let order = r.or("solver_order", default);
    if !(1..=3).contains(&order) {
        r.problem(format!("`solver_order` is {order}; wanted 1, 2 or 3"));
        return default;
    }
    order
}

/// Clipping to -1..1 is meant for pixels and would ruin latents.
fn check_clipping(r: &mut ConfigReader, class: &Class) {
    match r.optional::<bool>("clip_sample") {
        Some(true) => r.problem("`clip_sample` is true, which cuts latents off at 1; wanted false".into()),
        None if class.clips_samples => r.problem(format!(
            "`clip_sample` is absent and {} then cuts latents off at 1; write `\"clip_sample\": false`",
            class.name
        )),
        _ => {}
    }
}

fn neutral_keys(r: &mut ConfigReader) {
    r.neutral("thresholding use_dynamic_shifting use_flow_sigmas", &[json!(false)]);
    r.neutral("trained_betas", &[]);
    r.neutral("timestep_type", &[json!("discrete")]);
    let fixed = ["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"];
    r.neutral("variance_type", &fixed.map(Value::from));
    r.ignored(SOLVER);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As published with Stable Diffusion 1.5.
    fn sd1() -> Value {
        json!({
            "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
            "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null,
            "clip_sample": false,
        })
    }

    fn with(mut config: Value, key: &str, value: Value) -> Value {
        config[key] = value;
        config
    }

    #[test]
    fn the_published_sd1_configuration_is_read() {
        let SchedulerConfig { schedule, sampling, .. } = SchedulerConfig::from_json(&sd1()).unwrap();
        let wanted =
            NoiseSchedule::new(BetaSchedule::ScaledLinear, 1000, 0.00085, 0.012, Prediction::Epsilon)
                .unwrap();
        assert_eq!(schedule, wanted);
        let leading = Sampling {
            spacing: Spacing::Leading,
            steps_offset: 1,
            set_alpha_to_one: false,
            ..Sampling::default()
        };
        assert_eq!(sampling, leading);
    }

    #[test]
    fn the_published_sdxl_configuration_is_read() {
        let config = SchedulerConfig::from_json(&json!({
            "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
            "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon",
            "sample_max_value": 1.0, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
            "timestep_spacing": "leading", "trained_betas": null, "use_karras_sigmas": false,
        }))
        .unwrap();
        let sd1 = SchedulerConfig::from_json(&sd1()).unwrap();
        assert_eq!((&config.schedule, config.sampling), (&sd1.schedule, sd1.sampling));
        assert_eq!((config.stated_spacing, sd1.stated_spacing), (Some(Spacing::Leading), None));
        let spacing = |config: &SchedulerConfig, sampler| config.sampling_by(sampler).spacing;
        assert_eq!(spacing(&config, Sampler::Euler), Spacing::Leading, "the file says so");
        assert_eq!(spacing(&sd1, Sampler::Euler), Spacing::Linspace, "as Euler's class does");
        assert_eq!(spacing(&sd1, Sampler::Ddim), Spacing::Leading, "as DDIM's class does");
        let silent = json!({"_class_name": "EulerDiscreteScheduler"});
        let silent = SchedulerConfig::from_json(&silent).unwrap();
        assert_eq!(spacing(&silent, Sampler::Ddim), Spacing::Leading, "whatever class the file names");
    }

    #[test]
    fn every_class_whose_levels_are_known_is_read_with_its_own_levels() {
        // beta of the first and the last timestep, from the constructors of diffusers 0.42.
        for (name, first, last) in [
            ("DDIMScheduler", 0.0001, 0.02),
            ("PNDMScheduler", 0.0001, 0.02),
            ("DEISMultistepScheduler", 0.0001, 0.02),
            ("HeunDiscreteScheduler", 0.00085, 0.012),
            ("KDPM2DiscreteScheduler", 0.00085, 0.012),
            ("KDPM2AncestralDiscreteScheduler", 0.00085, 0.012),
            ("DPMSolverSDEScheduler", 0.00085, 0.012),
            ("LCMScheduler", 0.00085, 0.012),
            ("TCDScheduler", 0.00085, 0.012),
            ("SASolverScheduler", 0.0001, 0.02),
        ] {
            let read = |config: Value| SchedulerConfig::from_json(&config).unwrap();
            let silent = read(json!({"_class_name": name, "clip_sample": false}));
            let beta = |t: usize| 1.0 - silent.schedule.alpha_bar(t) / silent.schedule.alpha_bar(t - 1);
            assert!((1.0 - silent.schedule.alpha_bar(0) - first).abs() < 1e-12, "{name}");
            assert!((beta(999) - last).abs() < 1e-12, "{name}: {}", beta(999));
            // As published with Stable Diffusion, whatever the class.
            assert_eq!(
                read(with(sd1(), "_class_name", json!(name))).schedule,
                read(sd1()).schedule,
                "{name}"
            );
        }
    }

    #[test]
    fn settings_of_solvers_are_honored() {
        let read = |key: &str, value: Value| {
            SchedulerConfig::from_json(&with(
                with(sd1(), "_class_name", json!("DPMSolverMultistepScheduler")),
                key,
                value,
            ))
        };
        assert!(read("use_karras_sigmas", json!(true)).unwrap().sampling.use_karras_sigmas);
        assert_eq!(read("solver_order", json!(3)).unwrap().sampling.solver_order, 3);
        assert!(read("solver_order", json!(4)).unwrap_err().contains("`solver_order` is 4"));
    }

    #[test]
    fn zero_terminal_snr_and_v_prediction_are_used() {
        let config = with(
            with(sd1(), "rescale_betas_zero_snr", json!(true)),
            "prediction_type",
            json!("v_prediction"),
        );
        let schedule = SchedulerConfig::from_json(&config).unwrap().schedule;
        assert_eq!((schedule.alpha_bar(999), schedule.prediction()), (0.0, Prediction::VPrediction));
    }

    #[test]
    fn clipping_latents_is_refused_even_where_it_is_only_a_default() {
        let error = |config: &Value| SchedulerConfig::from_json(config).unwrap_err();
        assert!(error(&with(sd1(), "clip_sample", json!(true))).contains("`clip_sample` is true"));
        assert!(error(&json!({"_class_name": "DDIMScheduler"})).contains("`clip_sample` is absent"));
        let silent = json!({"_class_name": "EulerDiscreteScheduler"});
        assert!(SchedulerConfig::from_json(&silent).is_ok());
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let text = SchedulerConfig::from_json(&json!({
            "_class_name": "EDMEulerScheduler", "clip_sample": false, "prediction_type": "sample", "thresholding": true,
            "trained_betas": [0.1, 0.2], "beta_start": 2.0, "sigma_data": 0.5, "variance_type": "learned",
        }))
        .unwrap_err();
        for part in [
            "EDMEulerScheduler",
            "`prediction_type` is \"sample\"",
            "`thresholding` is true",
            "`trained_betas`",
            "found 2 and 0.02",
            "unknown key `sigma_data`",
            "`variance_type` is \"learned\"",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_table_of_absurd_length_is_refused_before_it_is_built() {
        let text =
            SchedulerConfig::from_json(&with(sd1(), "num_train_timesteps", json!(1_000_000_000_000u64)));
        assert!(text.unwrap_err().contains("`num_train_timesteps`"));
    }
}
