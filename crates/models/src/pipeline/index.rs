//! `model_index.json`: what a model folder holds.
//!
//! Source: `huggingface/diffusers:src/diffusers/pipelines/{stable_diffusion,stable_diffusion_xl,stable_diffusion_3,z_image}/`, constructors.

use serde_json::Value;
use tastemaker_math::flow::Spread;

use crate::config::ConfigReader;

/// How the parts of a pipeline work together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// One text encoder: SD1.x and SD2.x.
    StableDiffusion,
    /// Two text encoders, a pooled embedding and sizes: SDXL.
    StableDiffusionXl,
    /// Two text encoders with pooled embeddings, and T5's: SD3 and SD3.5.
    StableDiffusion3,
    /// A language model as text encoder, captions of their own lengths: Z-Image.
    ZImage,
}

impl Family {
    const ALL: [(&'static str, Self); 4] = [
        ("StableDiffusionPipeline", Self::StableDiffusion),
        ("StableDiffusionXLPipeline", Self::StableDiffusionXl),
        ("StableDiffusion3Pipeline", Self::StableDiffusion3),
        ("ZImagePipeline", Self::ZImage),
    ];

    /// The class of the pipeline in diffusers.
    pub fn class(self) -> &'static str {
        let of_family = Self::ALL.iter().find(|(_, family)| *family == self);
        of_family.map_or("", |(name, _)| *name)
    }

    /// The components this project runs, by folder name, with the classes that may stand there (any, if empty).
    pub fn components(self) -> &'static [(&'static str, &'static [&'static str])] {
        const TEXT: &[&str] = &["CLIPTextModel", "CLIPTextModelWithProjection"];
        const TOKENIZER: &[&str] = &["CLIPTokenizer", "CLIPTokenizerFast"];
        const ALL: [(&str, &[&str]); 7] = [
            ("unet", &["UNet2DConditionModel"]),
            ("vae", &["AutoencoderKL"]),
            ("scheduler", &[]),
            ("text_encoder", TEXT),
            ("tokenizer", TOKENIZER),
            ("text_encoder_2", TEXT),
            ("tokenizer_2", TOKENIZER),
        ];
        const SD3: [(&str, &[&str]); 9] = [
            ("transformer", &["SD3Transformer2DModel"]),
            ALL[1],
            ALL[2],
            ALL[3],
            ALL[4],
            ALL[5],
            ALL[6],
            (T5.0, &["T5EncoderModel"]),
            (T5.1, &["T5Tokenizer", "T5TokenizerFast"]),
        ];
        const Z_IMAGE: [(&str, &[&str]); 5] = [
            ("transformer", &["ZImageTransformer2DModel"]),
            ALL[1],
            ALL[2],
            (QWEN.0, &["Qwen3Model", "Qwen3ForCausalLM"]),
            (QWEN.1, &["Qwen2Tokenizer", "Qwen2TokenizerFast"]),
        ];
        match self {
            Self::StableDiffusion => &ALL[..5],
            Self::StableDiffusionXl => &ALL,
            Self::StableDiffusion3 => &SD3,
            Self::ZImage => &Z_IMAGE,
        }
    }

    /// Folder name of the network that predicts.
    pub fn backbone(self) -> &'static str {
        self.components()[0].0
    }

    /// Programs other than diffusers that load the family's single files, and adapters beside diffusers' own.
    pub fn other_programs(self) -> &'static str {
        match self {
            Self::StableDiffusion | Self::StableDiffusionXl => "A1111, Forge, ComfyUI and InvokeAI",
            Self::StableDiffusion3 | Self::ZImage => "ComfyUI",
        }
    }

    /// Folder names of CLIP's text encoders and of their tokenizers.
    pub fn text_components(self) -> &'static [(&'static str, &'static str)] {
        const ALL: [(&str, &str); 2] = [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")];
        match self {
            Self::StableDiffusion => &ALL[..1],
            Self::StableDiffusionXl | Self::StableDiffusion3 => &ALL,
            Self::ZImage => &[],
        }
    }

    /// Folder names of T5's encoder and of its tokenizer.
    pub fn t5_components(self) -> Option<(&'static str, &'static str)> {
        (self == Self::StableDiffusion3).then_some(T5)
    }

    /// Folder names of Qwen's encoder and of its tokenizer.
    pub fn qwen_components(self) -> Option<(&'static str, &'static str)> {
        (self == Self::ZImage).then_some(QWEN)
    }

    /// Folder names of every text encoder and of its tokenizer.
    pub(super) fn encoders(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let clip = self.text_components().iter().copied();
        clip.chain(self.t5_components()).chain(self.qwen_components())
    }

    /// Whether a text encoder is as large as the network that predicts, so that the two are not held together without need.
    pub fn has_large_encoder(self) -> bool {
        self.t5_components().or(self.qwen_components()).is_some()
    }

    /// Whether the network attends to as many tokens as a caption has, instead of one number for all.
    pub fn captions_have_lengths(self) -> bool {
        self.qwen_components().is_some()
    }

    /// What the pipeline's levels are before its scheduler shifts them.
    pub(super) fn spread(self) -> Spread {
        match self {
            Self::ZImage => Spread::Even,
            Self::StableDiffusion | Self::StableDiffusionXl | Self::StableDiffusion3 => Spread::Table,
        }
    }

    /// Whether a model may come without this component.
    fn is_optional(self, component: &str) -> bool {
        self.t5_components()
            .is_some_and(|(encoder, tokenizer)| component == encoder || component == tokenizer)
    }
}

/// Folder names of T5's encoder and of its tokenizer.
const T5: (&str, &str) = ("text_encoder_3", "tokenizer_3");

/// Folder names of Qwen's encoder and of its tokenizer.
const QWEN: (&str, &str) = ("text_encoder", "tokenizer");

/// Components that never run here; they travel with a model all the same.
const PASSENGERS: [&str; 3] = ["safety_checker", "feature_extractor", "image_encoder"];

/// What `model_index.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelIndex {
    /// How the parts work together.
    pub family: Family,
    /// Folder names of every component that is not null, those that never run here included.
    pub components: Vec<String>,
    /// Whether an unprompted SDXL image is guided by zeros instead of the encoded empty prompt.
    pub force_zeros_for_empty_prompt: bool,
}

impl ModelIndex {
    /// Reads and validates an index.
    ///
    /// # Errors
    /// Every unknown key and every component this implementation cannot run, in one message.
    pub fn from_json(index: &Value) -> Result<Self, String> {
        let mut r = ConfigReader::new(index);
        let name = index.get("_class_name").and_then(Value::as_str).unwrap_or("no class");
        let family = Family::ALL.iter().find(|(known, _)| *known == name).map_or_else(
            || {
                let known = Family::ALL.map(|(known, _)| known).join(", ");
                r.problem(format!("`_class_name` is {name}; wanted one of {known}"));
                // Listed components are then judged by the larger family, to complain of no more than the class.
                Family::StableDiffusionXl
            },
            |(_, family)| *family,
        );
        let mut components = Vec::new();
        for (component, classes) in family.components() {
            match class_of(&mut r, component) {
                Some(class) if classes.is_empty() || classes.contains(&class.as_str()) => {
                    components.push((*component).to_owned());
                }
                Some(class) => {
                    r.problem(format!("`{component}` is {class}; wanted {}", classes.join(" or ")))
                }
                None if family.is_optional(component) => {}
                None => r.problem(format!("`{component}` is not listed; {name} needs it")),
            }
        }
        for component in PASSENGERS {
            if class_of(&mut r, component).is_some() {
                components.push(component.to_owned());
            }
        }
        let force_zeros_for_empty_prompt =
            r.or("force_zeros_for_empty_prompt", family == Family::StableDiffusionXl);
        r.ignored("requires_safety_checker");
        r.ignored("add_watermarker");
        r.finish().map(|()| Self { family, components, force_zeros_for_empty_prompt })
    }
}

/// The class of a component, `None` if there is no such component.
fn class_of(r: &mut ConfigReader, component: &str) -> Option<String> {
    r.optional::<(Option<String>, Option<String>)>(component)?.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_component_that_is_null_does_not_exist() {
        let index = ModelIndex::from_json(&json!({
            "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0",
            "feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": [null, null],
            "requires_safety_checker": true, "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        }))
        .unwrap();
        assert_eq!(index.family, Family::StableDiffusion);
        let wanted = ["unet", "vae", "scheduler", "text_encoder", "tokenizer", "feature_extractor"];
        assert_eq!(index.components, wanted);
    }

    #[test]
    fn what_cannot_run_here_is_refused_at_once() {
        let text = ModelIndex::from_json(&json!({
            "_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"], "transformer": ["diffusers", "FluxTransformer2DModel"],
        }))
        .unwrap_err();
        for part in ["T5EncoderModel", "`vae` is not listed", "unknown key `transformer`"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = ModelIndex::from_json(&json!({"_class_name": "FluxPipeline"})).unwrap_err();
        assert!(text.contains("FluxPipeline"), "{text}");
    }
}
