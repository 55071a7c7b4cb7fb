//! The configurations of `FlowMatchEulerDiscreteScheduler` and `FlowMatchHeunDiscreteScheduler`.

use serde_json::json;
use tastemaker_math::flow::{FlowSchedule, Mu, Respacing, Shift, Spread, TimeShift};

use crate::config::ConfigReader;

/// Its class.
pub(super) const CLASS: &str = "FlowMatchEulerDiscreteScheduler";

/// The same levels for Heun's method.
pub(super) const HEUN: &str = "FlowMatchHeunDiscreteScheduler";

/// The levels of a configuration, and whether each step draws fresh noise. Levels are the scheduler's own; pipelines that pass theirs
/// change [`FlowSchedule::spread`].
pub(super) fn read(r: &mut ConfigReader) -> (FlowSchedule, bool) {
    let n_timesteps = r.or("num_train_timesteps", 1000usize);
    let factor = r.or("shift", 1.0);
    let is_dynamic = r.or("use_dynamic_shifting", false);
    let kind = r.or("time_shift_type", TimeShift::Exponential);
    let tokens = [r.or("base_image_seq_len", 256.0), r.or("max_image_seq_len", 4096.0)];
    let mu = [r.or("base_shift", 0.5), r.or("max_shift", 1.15)];
    if is_dynamic && tokens[0] >= tokens[1] {
        r.problem(format!(
            "`max_image_seq_len` is {}; wanted more than `base_image_seq_len`, {}",
            tokens[1], tokens[0]
        ));
    }
    let shift =
        if is_dynamic { Shift::Dynamic(kind, Mu::Linear { tokens, mu }) } else { Shift::Static(factor) };
    // diffusers takes 0 for no stretch.
    let shift_terminal = r.optional::<f64>("shift_terminal").filter(|&terminal| terminal != 0.0);
    let flow = FlowSchedule {
        n_timesteps,
        shift,
        spread: Spread::Table,
        shift_terminal,
        respacing: respacing(r),
        invert_sigmas: r.or("invert_sigmas", false),
    };
    r.neutral("prediction_type", &[json!("flow_prediction")]);
    (flow, r.or("stochastic_sampling", false))
}

fn respacing(r: &mut ConfigReader) -> Respacing {
    let asked: Vec<(&str, Respacing)> = [
        ("use_karras_sigmas", Respacing::Karras),
        ("use_exponential_sigmas", Respacing::Exponential),
        ("use_beta_sigmas", Respacing::Beta),
    ]
    .into_iter()
    .filter(|(key, _)| r.or(key, false))
    .collect();
    if let [(one, _), (other, _), ..] = asked[..] {
        r.problem(format!("`{one}` and `{other}` are both true; wanted one of them"));
    }
    asked.first().map_or(Respacing::Shifted, |&(_, respacing)| respacing)
}
