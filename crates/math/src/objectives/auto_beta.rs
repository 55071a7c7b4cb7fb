//! A `beta` that keeps the typical logit at a target, whatever the scale of the errors.
//!
//! The size of margins differs by model, resolution and noise level by orders of magnitude, and `beta` has to undo that. A running
//! mean of the margins' absolute values tells the scale; the trainer keeps it, and all ranks share it.

/// A rule for `beta`, per unit of mean squared error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoBeta {
    /// Absolute value of the logit at a margin of typical size.
    pub target_logit: f64,
    /// Decay of the running mean, per optimizer step.
    pub decay: f64,
    /// Smallest and largest `beta`.
    pub range: (f64, f64),
    /// The `beta` while no margin is known.
    pub start: f64,
}

impl AutoBeta {
    /// SimpleTuner's: at a margin of typical size the winner is preferred with probability 0.8. Its range is of a `beta` that multiplies sums, so it
    /// depends on the number of elements of a latent.
    ///
    /// Source: `auto_beta` of `bghira/SimpleTuner:simpletuner/helpers/distillation/flow_dpo/distiller.py`.
    pub fn simple_tuner(n_elements: usize) -> Self {
        let n_elements = n_elements as f64;
        let range = (1e-3 * n_elements, n_elements);
        Self { target_logit: logit_of(0.2), decay: 0.99, range, start: n_elements }
    }

    /// The running mean of margins after a step, from that before it, if there was one, and the mean absolute margin of this step's
    /// pairs. What is no number changes nothing, nor does 0: policy and reference agree before the first step, and an average that began
    /// there would be too small for hundreds of steps.
    pub fn next_scale(&self, before: Option<f64>, mean_margin: f64) -> Option<f64> {
        if !(mean_margin.is_finite() && mean_margin > 0.0) {
            return before;
        }
        Some(before.map_or(mean_margin, |before| self.decay * before + (1.0 - self.decay) * mean_margin))
    }

    /// The `beta` at this scale of margins; the one to start with while there is none.
    pub fn beta(&self, scale: Option<f64>) -> f64 {
        let (least, most) = self.range;
        match scale {
            // |logit| = 0.5 beta |margin|
            Some(scale) if scale > 0.0 => (2.0 * self.target_logit / scale).clamp(least, most),
            _ => self.start.clamp(least, most),
        }
    }
}

/// The logit at which a pair pulls with this fraction of the full gradient: `sigmoid(-logit)`.
pub fn logit_of(gradient_factor: f64) -> f64 {
    ((1.0 - gradient_factor) / gradient_factor).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typical_margin_gets_the_target_logit_whatever_the_scale() {
        let rule = AutoBeta { target_logit: 4.0_f64.ln(), decay: 0.99, range: (1.0, 1e9), start: 1.0 };
        for scale in [1e-6, 1e-3, 0.05] {
            assert!((0.5 * rule.beta(Some(scale)) * scale - 4.0_f64.ln()).abs() < 1e-12, "{scale}");
        }
    }

    #[test]
    fn simple_tuners_numbers_come_out_in_our_unit() {
        let rule = AutoBeta::simple_tuner(65_536);
        // beta of sums: 2.77258872 / mean |sum margin|, within 0.001 and 1.
        for (sum_margin, theirs) in [(50.0, 2.772_588_72 / 50.0), (1.0, 1.0), (1e6, 1e-3)] {
            let ours = rule.beta(Some(sum_margin / 65_536.0));
            assert!((ours / 65_536.0 - theirs).abs() < 1e-9, "{sum_margin}: {ours}");
        }
        assert!((rule.range.0 - 65.536).abs() < 1e-9 && rule.range.1 == 65_536.0);
        assert_eq!(rule.beta(None), 65_536.0);
        assert_eq!(AutoBeta { start: 500.0, ..rule }.beta(None), 500.0, "no margin is known");
    }

    #[test]
    fn the_scale_is_a_running_mean_that_skips_what_is_no_number() {
        let rule = AutoBeta::simple_tuner(1);
        let scale = [4.0, 2.0].into_iter().fold(None, |scale, margin| rule.next_scale(scale, margin));
        assert!((scale.expect("two steps") - 3.98).abs() < 1e-12);
        assert_eq!(rule.next_scale(scale, f64::NAN), scale);
        assert_eq!(rule.next_scale(None, f64::INFINITY), None);
        assert_eq!(rule.next_scale(None, 0.0), None, "policy and reference agree");
    }
}
