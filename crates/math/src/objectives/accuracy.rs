//! Implicit accuracy: how often the model sides with the label.

/// What an undecided pair, logit exactly 0, counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TieRule {
    /// Nothing. An untouched policy scores 0.
    ///
    /// Source: SalesforceAIResearch/DiffusionDPO train.py.
    Strict,
    /// One half. An untouched policy scores 0.5.
    ///
    /// Source: huggingface/diffusers train_diffusion_dpo_sdxl.py.
    Half,
}

/// 1 where the logit sides with the label, 0 where it does not, the rule's worth where it is exactly 0.
///
/// NaN stays NaN.
pub fn implicit_accuracy(logit: f64, ties: TieRule) -> f64 {
    match logit.partial_cmp(&0.0) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Less) => 0.0,
        Some(std::cmp::Ordering::Equal) if ties == TieRule::Half => 0.5,
        Some(std::cmp::Ordering::Equal) => 0.0,
        None => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_undecided_pairs_tell_the_rules_apart() {
        for (logit, strict, half) in [(0.1, 1.0, 1.0), (-0.1, 0.0, 0.0), (0.0, 0.0, 0.5), (-0.0, 0.0, 0.5)] {
            assert_eq!(implicit_accuracy(logit, TieRule::Strict), strict);
            assert_eq!(implicit_accuracy(logit, TieRule::Half), half);
        }
        assert!(implicit_accuracy(f64::NAN, TieRule::Half).is_nan());
    }
}
