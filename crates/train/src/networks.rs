//! The networks of a run: the policy, its text encoders, and the reference.

use std::collections::BTreeMap;

use tastemaker_diffusion::Denoiser;
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::backbone::Backbone;
use tastemaker_models::nn::{LoraSpec, Role, Trainable};
use tastemaker_models::pipeline::{Loaded, Model, TextAdapters, TextEncoders};
use tastemaker_run::{Adapter, LoraPlan, Plan};
use tch::Device;

use crate::TrainError;
use crate::adapter::{AdapterShape, ranks};
use crate::reference::Reference;

/// The network that is trained, and the frozen copy where the reference is one.
///
/// Policy and reference run the same numeric path: masters cast to the compute type are bit for bit the weights that the
/// frozen copy holds in it, and an adapter starts at zero or beside a copy of itself, so at step 0 every logit is exactly
/// 0.
pub(crate) struct Networks {
    pub(crate) policy: Loaded<Backbone>,
    /// Its name, `unet` or `transformer`.
    component: &'static str,
    /// Where they are trained; otherwise captions are encoded before and encoders not kept.
    pub(crate) text: Option<TextEncoders>,
    frozen: Option<Loaded<Backbone>>,
    adapted: bool,
    /// Whether the adapters of text encoders stay as they are.
    keeps_text: bool,
    /// Of the adapters that training started from.
    pub(crate) shapes: BTreeMap<&'static str, AdapterShape>,
}

impl Networks {
    /// Loads them; `with_reference`: with a frozen copy where every weight is trained.
    pub(crate) fn load(
        folder: &Model,
        plan: &Plan,
        start: Option<LoraFile>,
        with_reference: bool,
        device: Device,
    ) -> Result<Self, TrainError> {
        let precision = plan.train.mixed_precision;
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
        let base = folder.clone().with_base_precision(plan.train.base_precision);
        let policy = base.backbone(role, precision, device, lora)?;
        let trains_text = !text_loras.is_empty();
        let text = trains_text.then(|| folder.adapted_text(text_loras, precision, device)).transpose()?;
        let keeps_text = plan.keeps_text();
        if keeps_text {
            let kept = text.iter().flat_map(TextEncoders::trainable).flat_map(|(_, trainable)| trainable);
            kept.for_each(|parameter| drop(parameter.tensor.set_requires_grad(false)));
        }
        if policy.trainable.is_empty() && (text.is_none() || keeps_text) {
            let target_modules = fresh(plan).map_or_else(Vec::new, |spec| spec.target_modules);
            return Err(TrainError::NothingTrainable { target_modules });
        }
        let frozen = (with_reference && !adapted)
            .then(|| folder.backbone(Role::Frozen, precision, device, None))
            .transpose()?;
        let component = folder.family().backbone();
        Ok(Self { policy, component, text, frozen, adapted, keeps_text, shapes })
    }

    /// The parameters that the result is made of by component, those of the network that predicts first: those that are trained, and adapters of text
    /// encoders that are kept.
    pub(crate) fn results(&self) -> impl Iterator<Item = (&'static str, &[Trainable])> {
        let policy = [(self.component, self.policy.trainable.as_slice())];
        policy.into_iter().chain(self.text.iter().flat_map(TextEncoders::trainable))
    }

    /// Second handles on the parameters that are trained, in the same order.
    pub(crate) fn handles(&self) -> Vec<Trainable> {
        let handle = |t: &Trainable| Trainable { name: t.name.clone(), tensor: t.tensor.shallow_clone() };
        let parts = self.results().filter(|(component, _)| *component == self.component || !self.keeps_text);
        parts.flat_map(|(_, trainable)| trainable).map(handle).collect()
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
    Some(spec(lora, &lora.target_modules, plan.train.seed))
}

/// The adapters of text encoders of such a plan.
fn fresh_text(folder: &Model, plan: &Plan) -> TextAdapters {
    let Adapter::Lora(lora) = &plan.adapter else { return TextAdapters::new() };
    let targets = &lora.text_encoder_target_modules;
    let components = folder.family().text_components().iter().filter(|_| !targets.is_empty());
    // Random numbers are keyed by names of layers, which both encoders share.
    let numbered = components.zip(1u64..);
    numbered
        .map(|((component, _), number)| (*component, spec(lora, targets, plan.train.seed ^ (number << 32))))
        .collect()
}

fn spec(lora: &LoraPlan, target_modules: &[String], seed: u64) -> LoraSpec {
    LoraSpec {
        ranks: ranks(lora),
        target_modules: target_modules.to_vec(),
        seed,
        tensors: None,
        anchored: false,
        use_dora: lora.use_dora,
    }
}
