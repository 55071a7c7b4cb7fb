//! What networks are told about a batch when text encoders learn: it then differs between policy and reference.

use tastemaker_diffusion::Conditioning;
use tastemaker_models::pipeline::{TextEncoders, Tokens};

use crate::data::Batch;
use crate::reference::Off;

/// What the policy is told, the graph kept where text encoders learn; without them, what was encoded beforehand.
pub(crate) fn told_policy(text: Option<&TextEncoders>, batch: &Batch) -> Conditioning {
    match (text, &batch.tokens) {
        (Some(text), Some(tokens)) => encode(text, tokens, batch),
        _ => batch.conditioning.share(),
    }
}

/// What the reference is told: the same by encoders without their adapters, in the same numeric path.
pub(crate) fn told_reference(text: Option<&TextEncoders>, batch: &Batch) -> Conditioning {
    let _on_again: Vec<Off<'_>> = text.iter().flat_map(|text| text.switches()).map(Off::new).collect();
    tch::no_grad(|| told_policy(text, batch))
}

fn encode(text: &TextEncoders, tokens: &Tokens, batch: &Batch) -> Conditioning {
    let told = text.conditioning(tokens, 0);
    let told = if batch.with_losers { told.twice() } else { told };
    // Sizes are known beforehand, whoever encodes the text.
    Conditioning { time_ids: batch.conditioning.share().time_ids, ..told }
}
