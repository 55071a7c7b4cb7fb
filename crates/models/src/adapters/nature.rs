//! What an adapter file is, where it cannot be used: of another family, or of another kind.

use std::path::Path;

use tastemaker_weights::safetensors::{Header, Metadata};

use super::keys;
use crate::ModelError;
use crate::original::Layout;

const OURS: [Layout; 5] = [Layout::Sd1, Layout::Sd2, Layout::Sdxl, Layout::Sd3, Layout::ZImage];

/// What the header of an adapter and the names and sizes of its tensors say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Nature {
    /// What it is called if it is no LoRA.
    other_kind: Option<&'static str>,
    /// The family of the models it is for.
    family: Option<&'static str>,
}

impl Nature {
    /// That of the file with this header.
    pub fn of(header: &Header) -> Self {
        let tensors: Vec<(&str, Option<usize>)> = header
            .tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), tensor.shape.get(1).copied()))
            .collect();
        Self::of_tensors(&tensors, &header.metadata)
    }

    /// That of tensors by name, each with the length of its second axis.
    pub(super) fn of_tensors(tensors: &[(&str, Option<usize>)], metadata: &Metadata) -> Self {
        let names = tensors.iter().map(|(name, _)| *name);
        let by_width =
            tensors.iter().filter(|(name, _)| keys::sees_text(name)).find_map(|(_, width)| match width {
                Some(768) => Some(Layout::Sd1.title()),
                Some(1024) => Some(Layout::Sd2.title()),
                Some(2048) => Some(Layout::Sdxl.title()),
                _ => None,
            });
        let stated = || keys::stated_family(|key| metadata.get(key));
        Self {
            other_kind: names.clone().find_map(keys::other_kind),
            family: by_width.or_else(|| keys::family_of(names)).or_else(stated),
        }
    }

    /// Whether the file with this header is an adapter, of a kind or for a family that is not supported.
    pub fn is_foreign(header: &Header) -> bool {
        let names = header.tensors.iter().map(|tensor| tensor.name.as_str());
        let family = keys::family_of(names.clone());
        let is_other = |family| !OURS.iter().any(|ours| ours.title() == family);
        names.clone().any(|name| keys::other_kind(name).is_some()) || family.is_some_and(is_other)
    }

    /// Why an adapter that does not fit a model of this family, or none at all, cannot be used; `None` where it does not say.
    pub(super) fn refusal(self, path: &Path, model: Option<Layout>) -> Option<ModelError> {
        let wanted = "a LoRA of SD1.x, SD2.x, SDXL, SD3 or Z-Image".to_owned();
        let refused = |found: String, wanted: String| {
            Some(ModelError::OtherAdapter { path: path.to_owned(), found, wanted })
        };
        match (self.other_kind, self.family, model) {
            (Some(kind), ..) => refused(format!("LyCORIS {kind}, which is not supported"), wanted),
            (None, Some(family), Some(model)) if family != model.title() => {
                let model = model.title();
                refused(format!("a LoRA for {family}; the model is {model}"), format!("a LoRA for {model}"))
            }
            (None, Some(family), None) if !OURS.iter().any(|ours| ours.title() == family) => {
                refused(format!("a LoRA for {family}, which is not supported"), wanted)
            }
            _ => None,
        }
    }
}
