//! From prompts to conditioning.
//!
//! Source: `encode_prompt` of diffusers' `StableDiffusionPipeline`, `StableDiffusionXLPipeline`, `StableDiffusion3Pipeline` and
//! `ZImagePipeline`.

use std::collections::BTreeMap;

use tastemaker_diffusion::Conditioning;
use tastemaker_store::dtype::DType;
use tch::{Device, Kind, Tensor, no_grad};

use super::component::{Build, Loaded, build};
use super::index::Family;
use super::model::Model;
use crate::ModelError;
use crate::clip_text::ClipText;
use crate::nn::{AdapterSwitch, LoraSpec, Role, Trainable};
use crate::qwen3::{self, Qwen3};
use crate::t5::{T5Config, T5Encoder};
use crate::tokenizer::{ClipTokenizer, QwenTokenizer, T5Tokenizer, TokenizerFiles};

/// Adapters of text encoders, by component.
pub type TextAdapters = BTreeMap<&'static str, LoraSpec>;

/// Ids of every prompt that T5 encodes: `max_sequence_length` of SD3's pipeline.
pub const T5_LENGTH: usize = 256;

/// Most ids of a prompt that Qwen encodes, its chat included: `max_sequence_length` of Z-Image's pipeline.
pub const QWEN_LENGTH: usize = 512;

/// Prompts encoded in one forward pass.
const BATCH: usize = 64;

#[derive(Debug)]
struct TextEncoder {
    component: &'static str,
    tokenizer: ClipTokenizer,
    loaded: Loaded<ClipText>,
}

/// What follows CLIP's states in SD3's text.
#[derive(Debug)]
struct T5 {
    /// Width of the text.
    width: i64,
    /// Zeros stand for the states where the model has none.
    encoder: Option<(T5Tokenizer, T5Encoder)>,
}

/// Token ids of prompts, one table for each text encoder.
///
/// # Shapes
/// `[n, k m]` int64 each, for k chunks of m tokens; `[n, 256]` for T5, the last.
#[derive(Debug)]
pub struct Tokens(Vec<Tensor>);

impl Tokens {
    /// The prompts at `index` (`[k]`, int64), in that order.
    pub fn select(&self, index: &Tensor) -> Self {
        Self(self.0.iter().map(|ids| ids.index_select(0, index)).collect())
    }

    /// These prompts followed by those of `other`.
    pub fn followed_by(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| Tensor::cat(&[a, b], 0)).collect())
    }
}

/// The text encoders of a model, with their tokenizers.
#[derive(Debug)]
pub struct TextEncoders {
    encoders: Vec<TextEncoder>,
    t5: Option<T5>,
    /// Z-Image's, in place of all others.
    qwen: Option<(QwenTokenizer, Qwen3)>,
    family: Family,
    zeros_for_empty: bool,
    n_chunks: usize,
    device: Device,
}

/// Captions that are longer than text encoders see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutCaptions {
    /// How many there are.
    pub n_captions: usize,
    /// Tokens of theirs that are cut.
    pub n_tokens: usize,
    /// Tokens that are limit.
    pub limit: usize,
}

impl Model {
    /// The text encoders with their tokenizers, frozen.
    ///
    /// # Errors
    /// As [`Model::unet`], and [`ModelError::Tokenizer`].
    pub fn text(&self, precision: DType, device: Device) -> Result<TextEncoders, ModelError> {
        self.adapted_text(TextAdapters::new(), precision, device)
    }

    /// As [`Model::text`], with adapters that train.
    ///
    /// # Errors
    /// As [`Model::unet`], and [`ModelError::Tokenizer`].
    pub fn adapted_text(
        &self,
        mut adapters: TextAdapters,
        precision: DType,
        device: Device,
    ) -> Result<TextEncoders, ModelError> {
        self.check_token_length()?;
        self.check_precision(precision)?;
        let mut encoders: Vec<TextEncoder> = Vec::new();
        for (component, tokenizer_name) in self.family().text_components() {
            let config = self.text_config(component)?;
            let files = self.tokenizer(tokenizer_name);
            let tokenizer = ClipTokenizer::from_files(&files)?;
            let first_length =
                encoders.first().map_or(tokenizer.max_length(), |first| first.tokenizer.max_length());
            let (n_ids, length) = (tokenizer.n_ids(), tokenizer.max_length());
            let (vocab_size, positions) = (config.vocab_size, config.max_position_embeddings);
            let problem = if n_ids as i64 > vocab_size {
                Some(format!("ids up to {}; `{component}` knows {vocab_size} tokens", n_ids - 1))
            } else if length as i64 > positions {
                Some(format!("prompts of {length} tokens; `{component}` has {positions} positions"))
            } else if length != first_length {
                Some(format!("prompts of {length} tokens; the first tokenizer makes {first_length}"))
            } else {
                None
            };
            if let Some(problem) = problem {
                return Err(ModelError::Tokenizer {
                    path: files.root().to_owned(),
                    message: format!("it makes {problem}"),
                });
            }
            let how =
                Build { role: Role::Frozen, precision, device, lora: adapters.remove(component), base: None };
            let stored = self.stored(component)?;
            let loaded = build(stored, how, |scope| ClipText::new(scope, config.clone()))?;
            encoders.push(TextEncoder { component, tokenizer, loaded });
        }
        let zeros_for_empty = self.index().force_zeros_for_empty_prompt;
        let n_chunks = self.n_chunks;
        let t5 = match self.family() {
            Family::StableDiffusion | Family::StableDiffusionXl | Family::ZImage => None,
            Family::StableDiffusion3 => {
                let width = self.backbone_config()?.text_width();
                Some(T5 { width, encoder: self.t5(precision, device)? })
            }
        };
        let qwen = self.qwen(precision, device)?;
        Ok(TextEncoders { encoders, t5, qwen, family: self.family(), zeros_for_empty, n_chunks, device })
    }

    /// Qwen's encoder as far as it is read, with its tokenizer, where the family has one.
    fn qwen(&self, precision: DType, device: Device) -> Result<Option<(QwenTokenizer, Qwen3)>, ModelError> {
        let (Some((component, tokenizer)), Some(config)) =
            (self.family().qwen_components(), self.qwen_config()?)
        else {
            return Ok(None);
        };
        let files = self.tokenizer(tokenizer);
        let tokenizer = QwenTokenizer::from_files(&files, QWEN_LENGTH)?;
        knows_all(&files, tokenizer.n_ids(), component, config.vocab_size)?;
        let n_layers = config.n_read();
        let stored = self.stored(component)?.without(|name| qwen3::is_after(name, n_layers));
        let how = Build { role: Role::Frozen, precision, device, lora: None, base: None };
        let loaded = build(stored, how, |scope| Qwen3::new(scope, config.clone(), n_layers))?;
        Ok(Some((tokenizer, loaded.network)))
    }

    /// T5's encoder with its tokenizer, where the model has one.
    fn t5(&self, precision: DType, device: Device) -> Result<Option<(T5Tokenizer, T5Encoder)>, ModelError> {
        let (Some((component, tokenizer)), Some(config)) = (self.t5_components(), self.t5_config()?) else {
            return Ok(None);
        };
        let files = self.tokenizer(tokenizer);
        let tokenizer = T5Tokenizer::from_files(&files, T5_LENGTH)?;
        knows_all(&files, tokenizer.n_ids(), component, config.vocab_size)?;
        let how = Build {
            role: Role::Frozen,
            precision: T5Config::runs_in(precision),
            device,
            lora: None,
            base: None,
        };
        let loaded = build(self.stored(component)?, how, |scope| T5Encoder::new(scope, config.clone()))?;
        Ok(Some((tokenizer, loaded.network)))
    }

    /// How many of these captions are cut.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`], [`ModelError::Store`] for a tokenizer that cannot be read.
    pub fn cut_captions<'a>(
        &self,
        captions: impl IntoIterator<Item = &'a str>,
    ) -> Result<CutCaptions, ModelError> {
        /// Tokens of a caption.
        type Count = Box<dyn Fn(&str) -> usize>;
        let clip = self.family().text_components().first();
        let (limit, n_tokens): (usize, Count) = match (clip, self.family().qwen_components()) {
            (Some((_, name)), _) => {
                let tokenizer = ClipTokenizer::from_files(&self.tokenizer(name))?;
                let limit = self.n_chunks * (tokenizer.max_length() - 2);
                (limit, Box::new(move |caption| tokenizer.n_tokens(caption)))
            }
            (None, Some((_, name))) => {
                let tokenizer = QwenTokenizer::from_files(&self.tokenizer(name), QWEN_LENGTH)?;
                let of_chat = tokenizer.n_tokens("");
                (QWEN_LENGTH - of_chat, Box::new(move |caption| tokenizer.n_tokens(caption) - of_chat))
            }
            (None, None) => (0, Box::new(|_| 0)),
        };
        let mut cut = CutCaptions { n_captions: 0, n_tokens: 0, limit };
        // A token is a byte at least.
        for caption in captions.into_iter().filter(|caption| caption.len() > limit) {
            let more = n_tokens(caption).saturating_sub(limit);
            cut.n_captions += usize::from(more > 0);
            cut.n_tokens += more;
        }
        Ok(cut)
    }
}

/// Every id that a tokenizer makes must have an embedding.
fn knows_all(
    files: &TokenizerFiles,
    n_ids: usize,
    component: &str,
    vocab_size: i64,
) -> Result<(), ModelError> {
    if n_ids as i64 <= vocab_size {
        return Ok(());
    }
    let message = format!("it makes ids up to {}; `{component}` knows {vocab_size} tokens", n_ids - 1);
    Err(ModelError::Tokenizer { path: files.root().to_owned(), message })
}

impl TextEncoders {
    /// The conditioning of one sample per prompt, in the compute type.
    ///
    /// Of several chunks the hidden states stand one after the other, between the start of the first and the end of the last, and
    /// the projection is that of the first.
    ///
    /// SD1.x and SD2.x: the last hidden state. SDXL: the penultimate hidden states of both encoders side by side, the
    /// second's projection, and the sizes of an uncropped square image of side `resolution`, in pixels (for SDXL). SD3: the
    /// penultimate hidden states of both side by side, filled up with zeros to the width of T5's, which follow; the projections of
    /// both side by side. Z-Image: the last hidden state but one of each prompt's own tokens.
    ///
    /// # Panics
    /// If there are no prompts.
    pub fn encode(&self, prompts: &[impl AsRef<str>], resolution: i64) -> Conditioning {
        let parts = prompts.chunks(BATCH).map(|some| no_grad(|| self.encode_some(some, resolution)));
        parts.reduce(|all, part| all.followed_by(&part)).expect("at least one prompt")
    }

    /// The conditioning of the empty prompt: what captions are replaced by when they are dropped in training.
    pub fn empty(&self, resolution: i64) -> Conditioning {
        self.encode(&[""], resolution)
    }

    /// The negative prompt's conditioning where none is given: [`TextEncoders::empty`], or zeros where the model's index says so
    /// (SDXL).
    pub fn unconditional(&self, resolution: i64) -> Conditioning {
        let empty = self.empty(resolution);
        if self.family != Family::StableDiffusionXl || !self.zeros_for_empty {
            return empty;
        }
        Conditioning {
            hidden: empty.hidden.zeros_like(),
            pooled: empty.pooled.as_ref().map(Tensor::zeros_like),
            ..empty
        }
    }

    /// The tokenizer of each encoder.
    pub fn tokenizers(&self) -> impl Iterator<Item = &ClipTokenizer> {
        self.encoders.iter().map(|encoder| &encoder.tokenizer)
    }

    /// Trainable parameters, by component.
    pub fn trainable(&self) -> impl Iterator<Item = (&'static str, &[Trainable])> {
        self.encoders.iter().map(|encoder| (encoder.component, encoder.loaded.trainable.as_slice()))
    }

    /// The switches of the adapters.
    pub fn switches(&self) -> impl Iterator<Item = &AdapterSwitch> {
        self.encoders.iter().map(|encoder| &encoder.loaded.switch)
    }

    /// The ids of prompts.
    pub fn tokens(&self, prompts: &[impl AsRef<str>]) -> Tokens {
        let ids = self.encoders.iter().map(|TextEncoder { tokenizer, .. }| {
            let of = |prompt| tokenizer.encode_chunks(AsRef::as_ref(prompt), self.n_chunks);
            let ids: Vec<i64> = prompts.iter().flat_map(of).collect();
            Tensor::from_slice(&ids).view([prompts.len() as i64, -1]).to_device(self.device)
        });
        let of_t5 = self.t5.iter().flat_map(|t5| &t5.encoder).map(|(tokenizer, _)| {
            let ids: Vec<i64> = prompts.iter().flat_map(|prompt| tokenizer.encode(prompt.as_ref())).collect();
            Tensor::from_slice(&ids).view([prompts.len() as i64, -1]).to_device(self.device)
        });
        Tokens(ids.chain(of_t5).collect())
    }

    fn encode_some(&self, prompts: &[impl AsRef<str>], resolution: i64) -> Conditioning {
        let Some((tokenizer, encoder)) = &self.qwen else {
            return self.conditioning(&self.tokens(prompts), resolution);
        };
        let ids: Vec<Vec<i64>> = prompts.iter().map(|prompt| tokenizer.encode(prompt.as_ref())).collect();
        let longest = ids.iter().map(Vec::len).max().unwrap_or_default();
        // A token sees those before it alone, so nothing has to be masked.
        let filled = ids
            .iter()
            .flat_map(|own| own.iter().copied().chain((own.len()..longest).map(|_| tokenizer.pad())));
        let table = Tensor::from_slice(&filled.collect::<Vec<_>>()).view([ids.len() as i64, -1]);
        let hidden = encoder.last(&table.to_device(self.device), |_| ());
        let lengths = ids.iter().map(|own| own.len() as i64).collect();
        Conditioning { lengths: Some(lengths), ..Conditioning::text(hidden) }
    }

    /// The conditioning of token ids, as [`TextEncoders::encode`] makes it of prompts; differentiable with respect to adapters.
    pub fn conditioning(&self, tokens: &Tokens, resolution: i64) -> Conditioning {
        let n = tokens.0[0].size()[0];
        let outputs: Vec<_> = self
            .encoders
            .iter()
            .zip(&tokens.0)
            .map(|(encoder, ids)| {
                let chunks = ids.view([n * self.n_chunks as i64, encoder.tokenizer.max_length() as i64]);
                encoder.loaded.network.forward(&chunks)
            })
            .collect();
        if self.family == Family::StableDiffusion {
            return Conditioning::text(self.joined(&outputs[0].last_hidden_state));
        }
        let states: Vec<_> = outputs.iter().map(|output| self.joined(output.penultimate())).collect();
        if let Some(t5) = &self.t5 {
            let projections: Vec<_> = outputs
                .iter()
                .filter_map(|output| output.projected.as_ref())
                .map(|pooled| self.first(pooled))
                .collect();
            let hidden = t5.followed(&Tensor::cat(&states, -1), tokens.0.get(self.encoders.len()));
            return Conditioning {
                pooled: Some(Tensor::cat(&projections, -1)),
                ..Conditioning::text(hidden)
            };
        }
        let sizes = [resolution, resolution, 0, 0, resolution, resolution];
        let time_ids = Tensor::from_slice(&sizes).to_kind(Kind::Float).to_device(self.device);
        Conditioning {
            pooled: outputs[1].projected.as_ref().map(|pooled| self.first(pooled)),
            time_ids: Some(time_ids.view([1, 6]).repeat([n, 1])),
            ..Conditioning::text(Tensor::cat(&states, -1)) // [n, m, c1 + c2]
        }
    }

    /// The states of the chunks of each prompt as one: `[n k, m, c]` to `[n, k (m - 2) + 2, c]`.
    ///
    /// Source: `get_hidden_states` of `kohya-ss/sd-scripts:library/train_util.py`.
    fn joined(&self, states: &Tensor) -> Tensor {
        let k = self.n_chunks as i64;
        if k == 1 {
            return states.shallow_clone();
        }
        let (nk, m, c) = states.size3().expect("hidden states are three-dimensional");
        let chunks = states.view([nk / k, k, m, c]);
        let start = chunks.select(1, 0).narrow(1, 0, 1);
        let texts = chunks.narrow(2, 1, m - 2).reshape([nk / k, k * (m - 2), c]);
        let end = chunks.select(1, k - 1).narrow(1, m - 1, 1);
        Tensor::cat(&[start, texts, end], 1)
    }

    /// What the first chunk of each prompt has: `[n k, p]` to `[n, p]`.
    fn first(&self, pooled: &Tensor) -> Tensor {
        let k = self.n_chunks as i64;
        let (nk, p) = pooled.size2().expect("a vector for each chunk");
        pooled.view([nk / k, k, p]).select(1, 0)
    }
}

impl T5 {
    /// CLIP's states, and then T5's of these ids.
    ///
    /// # Shapes
    /// `clip` `[n, m, c]`, `ids` `[n, 256]`, result `[n, m + 256, d]` with d at least c.
    fn followed(&self, clip: &Tensor, ids: Option<&Tensor>) -> Tensor {
        let (n, _, c) = clip.size3().expect("hidden states are three-dimensional");
        let own = match (&self.encoder, ids) {
            (Some((_, encoder)), Some(ids)) => encoder.forward(ids).to_kind(clip.kind()),
            _ => Tensor::zeros([n, T5_LENGTH as i64, self.width], (clip.kind(), clip.device())),
        };
        Tensor::cat(&[clip.constant_pad_nd([0, self.width - c]), own], 1)
    }
}
