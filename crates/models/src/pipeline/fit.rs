//! Whether the parts of a model fit each other.

use super::index::Family;
use super::model::Model;
use crate::ModelError;
use crate::clip_text::ClipTextConfig;
use crate::unet::UNetConfig;

impl Model {
    /// Checks every pair of components that hand tensors to each other, as far as their configurations are there.
    pub(super) fn check_fit(&self) -> Result<(), ModelError> {
        let mut problems = Vec::new();
        let unet = self.present("unet", Self::unet_config)?;
        let vae = self.present("vae", Self::vae_config)?;
        let mut encoders = Vec::new();
        for (name, _) in self.family().text_components() {
            encoders.push(self.present(name, |model| model.text_config(name))?);
        }
        if let (Some(unet), Some(vae)) = (&unet, &vae) {
            for (what, channels) in [("takes", unet.in_channels), ("predicts", unet.out_channels)] {
                if channels != vae.latent_channels {
                    let of_vae = vae.latent_channels;
                    problems.push(format!(
                        "the UNet {what} {channels} channels, the VAE's latents have {of_vae}"
                    ));
                }
            }
        }
        let encoders: Option<Vec<_>> = encoders.into_iter().collect();
        if let (Some(unet), Some(encoders)) = (&unet, &encoders) {
            let width: i64 = encoders.iter().map(|config| config.encoder.width).sum();
            if unet.cross_attention_dim != width {
                let wanted = unet.cross_attention_dim;
                problems.push(format!(
                    "the UNet attends to text of width {wanted}, the text encoders give {width}"
                ));
            }
            problems.extend(self.check_addition(unet, encoders));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(ModelError::Config { path: self.index_path().to_owned(), problems: problems.join("; ") })
    }

    /// SDXL's additional conditioning: there exactly when the family has it, and as wide as what it is given.
    fn check_addition(&self, unet: &UNetConfig, encoders: &[ClipTextConfig]) -> Option<String> {
        match (self.family(), unet.text_time) {
            (Family::StableDiffusion, None) => None,
            (Family::StableDiffusion, Some(_)) => Some(
                "the UNet wants SDXL's pooled text and sizes, which StableDiffusionPipeline does not give"
                    .into(),
            ),
            (Family::StableDiffusionXl, None) => Some(
                "the UNet's `addition_embed_type` is null; StableDiffusionXLPipeline needs text_time".into(),
            ),
            (Family::StableDiffusionXl, Some(text_time)) => {
                let second = &encoders[encoders.len() - 1];
                let given = second.projection_dim + 6 * text_time.time_embed_dim;
                if !second.with_projection {
                    Some("`text_encoder_2` has no projection; wanted CLIPTextModelWithProjection".into())
                } else if text_time.input_dim != given {
                    let wanted = text_time.input_dim;
                    Some(format!(
                        "the UNet's additional embedding takes {wanted} values, pooled text and sizes are {given}"
                    ))
                } else {
                    None
                }
            }
        }
    }

    /// A component's configuration, if its folder has one.
    fn present<C>(
        &self,
        component: &str,
        read: impl Fn(&Self) -> Result<C, ModelError>,
    ) -> Result<Option<C>, ModelError> {
        if self.config(component).exists() { read(self).map(Some) } else { Ok(None) }
    }
}
