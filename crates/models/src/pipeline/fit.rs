//! Whether the parts of a model fit each other.

use super::index::Family;
use super::model::Model;
use crate::ModelError;
use crate::backbone::BackboneConfig;
use crate::clip_text::ClipTextConfig;
use crate::unet::UNetConfig;
use crate::vae::VaeConfig;

impl Model {
    /// Checks every pair of components that hand tensors to each other, as far as their configurations are there.
    pub(super) fn check_fit(&self) -> Result<(), ModelError> {
        let mut problems = Vec::new();
        match self.family() {
            Family::StableDiffusion3 => return self.check_fit_of_sd3(),
            Family::ZImage => return self.check_fit_of_zimage(),
            Family::StableDiffusion | Family::StableDiffusionXl => {}
        }
        let unet = self.present("unet", Self::unet_config)?;
        let vae = self.present("vae", Self::vae_config)?;
        let mut encoders = Vec::new();
        for (name, _) in self.family().text_components() {
            encoders.push(self.present(name, |model| model.text_config(name))?);
        }
        if let (Some(unet), Some(vae)) = (&unet, &vae) {
            problems.extend(channels("UNet", (unet.in_channels, unet.out_channels), vae));
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
        self.fit_or(problems)
    }

    fn fit_or(&self, problems: Vec<String>) -> Result<(), ModelError> {
        if problems.is_empty() {
            return Ok(());
        }
        Err(ModelError::Config { path: self.index_path().to_owned(), problems: problems.join("; ") })
    }

    /// The transformer, if it is there, and what is wrong with the latents it shares with the VAE.
    fn transformer_on_latents(&self) -> Result<Option<(BackboneConfig, Vec<String>)>, ModelError> {
        let Some(transformer) = self.present("transformer", Self::backbone_config)? else { return Ok(None) };
        let given = (transformer.in_channels(), transformer.out_channels());
        let vae = self.present("vae", Self::vae_config)?;
        let problems = vae.map(|vae| channels("transformer", given, &vae)).unwrap_or_default();
        Ok(Some((transformer, problems)))
    }

    /// Both CLIP encoders have projections, which are as wide as the transformer's pooled text; their states side by side fit into
    /// those of T5, which are as wide as the transformer's text.
    fn check_fit_of_sd3(&self) -> Result<(), ModelError> {
        let Some((transformer, mut problems)) = self.transformer_on_latents()? else { return Ok(()) };
        let mut encoders = Vec::new();
        for (name, _) in self.family().text_components() {
            let encoder = self.present(name, |model| model.text_config(name))?;
            if encoder.as_ref().is_some_and(|config| !config.with_projection) {
                problems.push(format!("`{name}` has no projection; wanted CLIPTextModelWithProjection"));
            }
            encoders.push(encoder);
        }
        let width = transformer.text_width();
        if let Some(encoders) = encoders.into_iter().collect::<Option<Vec<_>>>() {
            let given: i64 = encoders.iter().map(|config| config.encoder.width).sum();
            if given > width {
                problems.push(format!(
                    "the transformer attends to text of width {width}, the CLIP encoders give {given}"
                ));
            }
            let given: i64 = encoders.iter().map(|config| config.projection_dim).sum();
            if let Some(wanted) = transformer.pooled_width().filter(|wanted| *wanted != given) {
                problems.push(format!(
                    "the transformer takes pooled text of width {wanted}, the CLIP encoders give {given}"
                ));
            }
        }
        let t5 = self.t5_components().map(|(name, _)| self.present(name, Self::t5_config)).transpose()?;
        if let Some(given) =
            t5.flatten().flatten().map(|config| config.d_model).filter(|given| *given != width)
        {
            problems.push(format!(
                "the transformer attends to text of width {width}, `text_encoder_3` gives {given}"
            ));
        }
        self.fit_or(problems)
    }

    /// The VAE's latents are those of the transformer, and what Qwen's layers give is as wide as its captions.
    fn check_fit_of_zimage(&self) -> Result<(), ModelError> {
        let Some((transformer, mut problems)) = self.transformer_on_latents()? else { return Ok(()) };
        let (encoder, width) = ("text_encoder", transformer.text_width());
        let qwen = self.present(encoder, Self::qwen_config)?.flatten();
        problems.extend(qwen.filter(|config| config.hidden_size != width).map(|config| {
            let given = config.hidden_size;
            format!("the transformer attends to text of width {width}, `{encoder}` gives {given}")
        }));
        self.fit_or(problems)
    }

    /// SDXL's additional conditioning: there exactly when the family has it, and as wide as what it is given.
    fn check_addition(&self, unet: &UNetConfig, encoders: &[ClipTextConfig]) -> Option<String> {
        match (self.family() == Family::StableDiffusionXl, unet.text_time) {
            (false, None) => None,
            (false, Some(_)) => Some(
                "the UNet wants SDXL's pooled text and sizes, which StableDiffusionPipeline does not give"
                    .into(),
            ),
            (true, None) => Some(
                "the UNet's `addition_embed_type` is null; StableDiffusionXLPipeline needs text_time".into(),
            ),
            (true, Some(text_time)) => {
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

/// What does not fit between a network that takes and predicts so many channels and a VAE.
fn channels(network: &str, (taken, predicted): (i64, i64), vae: &VaeConfig) -> Vec<String> {
    let of_vae = vae.latent_channels;
    let wrong =
        [("takes", taken), ("predicts", predicted)].into_iter().filter(|(_, channels)| *channels != of_vae);
    wrong
        .map(|(what, channels)| {
            format!("the {network} {what} {channels} channels, the VAE's latents have {of_vae}")
        })
        .collect()
}
