//! The networks of a run: the one that learns, its text encoders, and the reference.

use std::collections::BTreeMap;

use tastemaker_diffusion::Denoiser;
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::{LoraSpec, Role, Trainable};
use tastemaker_models::pipeline::{Loaded, Model, TextAdapters, TextEncoders};
use tastemaker_models::unet::UNet;
use tastemaker_run::{Adapter, Plan};
use tch::Device;

use crate::TrainError;
use crate::adapter::ranks;
use crate::data::cache::precision;
use crate::output::AdapterShape;
use crate::reference::Reference;

/// The network that learns, and the frozen copy where the reference is one.
///
/// Policy and reference run the same numeric path: masters cast to the compute type are bit for bit the weights that the
/// frozen copy holds in it, and an adapter starts at zero or beside a copy of itself, so at step 0 every logit is exactly
/// 0.
pub(crate) struct Networks {
    pub(crate) policy: Loaded<UNet>,
    /// Where they learn; otherwise captions are encoded before and encoders not kept.
    pub(crate) text: Option<TextEncoders>,
    frozen: Option<Loaded<UNet>>,
    adapted: bool,
    /// Of the adapters that training started from.
    pub(crate) shapes: BTreeMap<&'static str, AdapterShape>,
}

impl Networks {
    /// Loads them; `with_reference`: with a frozen copy where every weight learns.
    pub(crate) fn load(
        folder: &Model,
        plan: &Plan,
        start: Option<LoraFile>,
        with_reference: bool,
        device: Device,
    ) -> Result<Self, TrainError> {
        let precision = precision(plan);
        let shapes = match &start {
            Some(file) => file.parts().map(|(name, part)| (name, AdapterShape::from(part))).collect(),
            None => BTreeMap::new(),
        };
        let (lora, text_loras) = match start {
            Some(file) => {
                let text = file.text.into_iter().map(|(component, part)| (component, part.into_start()));
                (Some(file.unet.into_start()), text.collect())
            }
            None => (fresh(plan), fresh_text(folder, plan)),
        };
        let adapted = lora.is_some();
        let role = if adapted { Role::Frozen } else { Role::Trained };
        let policy = folder.unet(role, precision, device, lora)?;
        let learns = !text_loras.is_empty();
        let text = learns.then(|| folder.adapted_text(text_loras, precision, device)).transpose()?;
        if policy.trainable.is_empty() && text.is_none() {
            let target_modules = fresh(plan).map_or_else(Vec::new, |spec| spec.target_modules);
            return Err(TrainError::NothingTrainable { target_modules });
        }
        let frozen = (with_reference && !adapted)
            .then(|| folder.unet(Role::Frozen, precision, device, None))
            .transpose()?;
        Ok(Self { policy, text, frozen, adapted, shapes })
    }

    /// What learns, by component, the UNet's first.
    pub(crate) fn learned(&self) -> impl Iterator<Item = (&'static str, &[Trainable])> {
        let unet = [("unet", self.policy.trainable.as_slice())];
        unet.into_iter().chain(self.text.iter().flat_map(TextEncoders::trainable))
    }

    /// Second handles on all that learns, in the same order.
    pub(crate) fn shared(&self) -> Vec<Trainable> {
        self.learned().flat_map(|(_, learned)| learned).map(share).collect()
    }

    /// What the policy is compared with.
    pub(crate) fn reference(&self) -> Reference<'_> {
        let policy: &dyn Denoiser = &self.policy.network;
        match &self.frozen {
            Some(frozen) => Reference::Frozen(&frozen.network),
            None if self.adapted => Reference::AdapterOff { policy, switch: self.policy.switch.clone() },
            None => Reference::None,
        }
    }
}

/// The adapter of a plan that starts from none.
fn fresh(plan: &Plan) -> Option<LoraSpec> {
    let Adapter::Lora(lora) = &plan.adapter else { return None };
    let (ranks, target_modules) = (ranks(lora), lora.target_modules.clone());
    Some(LoraSpec {
        ranks,
        target_modules,
        seed: plan.train.seed,
        tensors: None,
        anchored: false,
        use_dora: lora.use_dora,
    })
}

/// The adapters of text encoders of such a plan.
fn fresh_text(folder: &Model, plan: &Plan) -> TextAdapters {
    let Adapter::Lora(lora) = &plan.adapter else { return TextAdapters::new() };
    let targets = &lora.text_encoder_target_modules;
    let components = folder.family().text_components().iter().filter(|_| !targets.is_empty());
    // Random numbers are keyed by names of layers, which both encoders share.
    let numbered = components.zip(1u64..);
    let spec = |number: u64| LoraSpec {
        ranks: ranks(lora),
        target_modules: targets.clone(),
        seed: plan.train.seed ^ (number << 32),
        tensors: None,
        anchored: false,
        use_dora: lora.use_dora,
    };
    numbered.map(|((component, _), number)| (*component, spec(number))).collect()
}

/// A second handle on what learns.
fn share(trainable: &Trainable) -> Trainable {
    Trainable { name: trainable.name.clone(), tensor: trainable.tensor.shallow_clone() }
}
