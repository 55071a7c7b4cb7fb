//! Where the conditioning of prompts comes from.

use std::collections::BTreeMap;

use tastemaker_diffusion::Conditioning;
use tastemaker_models::pipeline::TextEncoders;

use crate::GenerateError;

/// Text encoders, or what they made of a few prompts.
pub trait PromptEncoder {
    /// The conditioning of prompts, one sample each.
    ///
    /// # Errors
    /// [`GenerateError::UnknownPrompt`] for a prompt that was not encoded beforehand.
    fn encode(&self, prompts: &[&str], resolution: i64) -> Result<Conditioning, GenerateError>;

    /// The conditioning of guidance without a negative prompt, one sample.
    fn unconditional(&self, resolution: i64) -> Conditioning;
}

impl PromptEncoder for TextEncoders {
    fn encode(&self, prompts: &[&str], resolution: i64) -> Result<Conditioning, GenerateError> {
        Ok(self.encode(prompts, resolution))
    }

    fn unconditional(&self, resolution: i64) -> Conditioning {
        self.unconditional(resolution)
    }
}

/// The conditioning of fixed prompts, kept when the text encoders are gone.
#[derive(Debug)]
pub struct EncodedPrompts {
    /// One sample each.
    prompts: BTreeMap<String, Conditioning>,
    unconditional: Conditioning,
}

impl EncodedPrompts {
    /// Encodes prompts, each by itself, so that what others there are is nothing to it.
    pub fn new<'a>(text: &TextEncoders, prompts: impl IntoIterator<Item = &'a str>, resolution: i64) -> Self {
        let mut known = BTreeMap::new();
        for prompt in prompts {
            if !known.contains_key(prompt) {
                known.insert(prompt.to_owned(), text.encode(&[prompt], resolution));
            }
        }
        Self { prompts: known, unconditional: text.unconditional(resolution) }
    }
}

impl PromptEncoder for EncodedPrompts {
    fn encode(&self, prompts: &[&str], _: i64) -> Result<Conditioning, GenerateError> {
        let known = |prompt: &&str| {
            let unknown = || GenerateError::UnknownPrompt { prompt: (*prompt).to_owned() };
            self.prompts.get(*prompt).map(Conditioning::shallow_clone).ok_or_else(unknown)
        };
        let each = prompts.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        let joined = each.into_iter().reduce(|all, one| all.followed_by(&one));
        joined.ok_or_else(|| GenerateError::UnknownPrompt { prompt: String::new() })
    }

    fn unconditional(&self, _: i64) -> Conditioning {
        self.unconditional.shallow_clone()
    }
}
