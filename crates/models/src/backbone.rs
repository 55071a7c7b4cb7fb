//! The network that predicts, whichever family it is of.

use serde_json::Value;
use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_store::dtype::DType;
use tch::Tensor;

use crate::mmdit::{Mmdit, MmditConfig};
use crate::nn::Scope;
use crate::original::shapes;
use crate::pipeline::Family;
use crate::place::Shapes;
use crate::unet::{Footprint, Pass, UNet, UNetConfig};
use crate::zimage::{ZImage, ZImageConfig};

/// Sizes of the network that predicts.
#[derive(Debug, Clone, PartialEq)]
pub enum BackboneConfig {
    /// Of SD1.x, SD2.x and SDXL.
    UNet(UNetConfig),
    /// Of SD3 and SD3.5.
    Mmdit(MmditConfig),
    /// Of Z-Image.
    ZImage(ZImageConfig),
}

impl From<UNetConfig> for BackboneConfig {
    fn from(config: UNetConfig) -> Self {
        Self::UNet(config)
    }
}

impl BackboneConfig {
    /// Reads and validates the diffusers configuration that a family's network has.
    ///
    /// # Errors
    /// Every unknown key and every value this implementation would get wrong, in one message.
    pub fn from_json(family: Family, config: &Value) -> Result<Self, String> {
        match family {
            Family::StableDiffusion | Family::StableDiffusionXl => {
                UNetConfig::from_json(config).map(Self::UNet)
            }
            Family::StableDiffusion3 => MmditConfig::from_json(config).map(Self::Mmdit),
            Family::ZImage => ZImageConfig::from_json(config).map(Self::ZImage),
        }
    }

    /// Latent channels in.
    pub fn in_channels(&self) -> i64 {
        match self {
            Self::UNet(config) => config.in_channels,
            Self::Mmdit(config) => config.in_channels,
            Self::ZImage(config) => config.in_channels,
        }
    }

    /// Latent channels out.
    pub fn out_channels(&self) -> i64 {
        match self {
            Self::UNet(config) => config.out_channels,
            Self::Mmdit(config) => config.out_channels,
            Self::ZImage(config) => config.in_channels,
        }
    }

    /// Latent side the model was made for.
    pub fn sample_size(&self) -> i64 {
        match self {
            Self::UNet(config) => config.sample_size,
            Self::Mmdit(config) => config.sample_size,
            Self::ZImage(config) => config.sample_size(),
        }
    }

    /// Width of the text hidden states.
    pub fn text_width(&self) -> i64 {
        match self {
            Self::UNet(config) => config.cross_attention_dim,
            Self::Mmdit(config) => config.joint_attention_dim,
            Self::ZImage(config) => config.cap_feat_dim,
        }
    }

    /// Width of the pooled text, where the network takes one.
    pub fn pooled_width(&self) -> Option<i64> {
        match self {
            Self::UNet(config) => config.text_time.map(|text| text.input_dim - 6 * text.time_embed_dim),
            Self::Mmdit(config) => Some(config.pooled_projection_dim),
            Self::ZImage(_) => None,
        }
    }

    /// Folder name of the network, which is the name before its layers in adapters too.
    pub fn component(&self) -> &'static str {
        match self {
            Self::UNet(_) => Family::StableDiffusion.backbone(),
            Self::Mmdit(_) => Family::StableDiffusion3.backbone(),
            Self::ZImage(_) => Family::ZImage.backbone(),
        }
    }

    /// CLIP's text encoders beside the network.
    pub fn n_text_encoders(&self) -> usize {
        match self {
            Self::UNet(UNetConfig { text_time: None, .. }) => 1,
            Self::UNet(_) | Self::Mmdit(_) => 2,
            Self::ZImage(_) => 0,
        }
    }

    /// What the sides of a latent must be multiples of.
    pub fn side_multiple(&self) -> i64 {
        match self {
            Self::UNet(_) => 1,
            Self::Mmdit(config) => config.patch_size,
            Self::ZImage(config) => config.patch_size,
        }
    }

    /// The largest side of a latent, where there is one.
    pub fn largest_side(&self) -> Option<i64> {
        match self {
            Self::UNet(_) => None,
            Self::Mmdit(config) => Some(config.largest_side()),
            Self::ZImage(config) => Some(config.largest_side()),
        }
    }

    /// What a pass holds in memory for each sample.
    pub fn footprint(&self, pass: &Pass) -> Footprint {
        match self {
            Self::UNet(config) => config.footprint(pass),
            Self::Mmdit(config) => config.footprint(pass),
            Self::ZImage(config) => config.footprint(pass),
        }
    }

    /// Names and shapes of the network's parameters.
    pub fn shapes(&self) -> Shapes {
        shapes(|scope| drop(Backbone::new(scope, self.clone(), DType::F32)))
    }
}

/// The network that predicts.
#[derive(Debug)]
pub enum Backbone {
    /// Of SD1.x, SD2.x and SDXL.
    UNet(Box<UNet>),
    /// Of SD3 and SD3.5.
    Mmdit(Box<Mmdit>),
    /// Of Z-Image.
    ZImage(Box<ZImage>),
}

impl Backbone {
    /// Builds the network from the parameters of `scope`.
    pub fn new(scope: Scope<'_>, config: BackboneConfig, precision: DType) -> Self {
        match config {
            BackboneConfig::UNet(config) => Self::UNet(Box::new(UNet::new(scope, config, precision))),
            BackboneConfig::Mmdit(config) => Self::Mmdit(Box::new(Mmdit::new(scope, config, precision))),
            BackboneConfig::ZImage(config) => Self::ZImage(Box::new(ZImage::new(scope, config, precision))),
        }
    }

    /// Whether layers keep only their inputs between the passes and are computed again in the backward pass; off at first.
    ///
    /// Gradients are the same to the last bit, at the price of one more forward pass. Adapters must stay as they are, on or
    /// off, until the backward pass is over.
    pub fn set_recompute(&self, recompute: bool) {
        match self {
            Self::UNet(network) => network.set_recompute(recompute),
            Self::Mmdit(network) => network.set_recompute(recompute),
            Self::ZImage(network) => network.set_recompute(recompute),
        }
    }
}

impl Denoiser for Backbone {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        match self {
            Self::UNet(network) => network.predict(x, timestep, conditioning),
            Self::Mmdit(network) => network.predict(x, timestep, conditioning),
            Self::ZImage(network) => network.predict(x, timestep, conditioning),
        }
    }
}
