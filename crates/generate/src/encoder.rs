//! Where the conditioning of prompts comes from.

use tastemaker_diffusion::Conditioning;
use tastemaker_models::pipeline::TextEncoders;
use tch::Tensor;

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
    prompts: Vec<String>,
    conditioning: Conditioning,
    unconditional: Conditioning,
}

impl EncodedPrompts {
    /// Encodes prompts, of which there is one at least.
    pub fn new(text: &TextEncoders, prompts: &[String], resolution: i64) -> Self {
        Self {
            prompts: prompts.to_vec(),
            conditioning: text.encode(prompts, resolution),
            unconditional: text.unconditional(resolution),
        }
    }
}

impl PromptEncoder for EncodedPrompts {
    fn encode(&self, prompts: &[&str], _: i64) -> Result<Conditioning, GenerateError> {
        let position = |prompt: &&str| {
            let found = self.prompts.iter().position(|known| known == prompt);
            let unknown = || GenerateError::UnknownPrompt { prompt: (*prompt).to_owned() };
            found.map(|position| position as i64).ok_or_else(unknown)
        };
        let rows = prompts.iter().map(position).collect::<Result<Vec<i64>, _>>()?;
        let device = self.conditioning.hidden.device();
        Ok(self.conditioning.select(&Tensor::from_slice(&rows).to_device(device)))
    }

    fn unconditional(&self, _: i64) -> Conditioning {
        self.unconditional.shallow_clone()
    }
}
