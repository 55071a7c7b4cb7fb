//! The conditioning of a batch where text encoders are trained: it then differs between policy and reference.

use tastemaker_diffusion::Conditioning;
use tastemaker_models::pipeline::{TextEncoders, Tokens};

use crate::data::Batch;
use crate::reference::AdaptersOff;

/// The policy's, the graph kept where text encoders are trained; without them, what was encoded beforehand.
pub(crate) fn policy_conditioning(text: Option<&TextEncoders>, batch: &Batch) -> Conditioning {
    match (text, &batch.tokens) {
        (Some(text), Some(tokens)) => encode(text, tokens, batch),
        _ => batch.conditioning.shallow_clone(),
    }
}

/// The reference's: the same by encoders without their adapters, in the same numeric path.
pub(crate) fn reference_conditioning(text: Option<&TextEncoders>, batch: &Batch) -> Conditioning {
    let _on_again: Vec<AdaptersOff<'_>> =
        text.iter().flat_map(|text| text.switches()).map(AdaptersOff::new).collect();
    tch::no_grad(|| policy_conditioning(text, batch))
}

fn encode(text: &TextEncoders, tokens: &Tokens, batch: &Batch) -> Conditioning {
    let encoded = text.conditioning(tokens, 0);
    let encoded = if batch.with_losers { encoded.twice() } else { encoded };
    // Sizes are known beforehand, whoever encodes the text.
    Conditioning { time_ids: batch.conditioning.shallow_clone().time_ids, ..encoded }
}
