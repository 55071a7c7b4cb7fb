//! What a single file says of the noise its network was trained on: in tensors that mark it, in its header, in its name.
//!
//! Source: `v_pred` and `ztsnr` as `Comfy-Org/ComfyUI:comfy/supported_models.py` and A1111 read them; `modelspec.*` of
//! `Stability-AI/ModelSpec`; the settings file that A1111 takes from beside a model.

use std::fmt;
use std::path::Path;

use tastemaker_math::schedule::Prediction;
use tastemaker_weights::safetensors::Metadata;

use super::keys::Layout;
use super::open_file::OpenFile;
use super::settings;
use crate::ModelError;

/// Marks a network that predicts velocity.
pub(crate) const V_PREDICTION: &str = "v_pred";

/// Marks noise levels that end in pure noise.
pub(crate) const ZERO_TERMINAL_SNR: &str = "ztsnr";

/// Mean and spread of latents in EDM's formulation, whose noise levels are none of ours.
const EDM: [&str; 3] = ["edm_mean", "edm_std", "edm_vpred.sigma_max"];

/// One thing that a file says, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness<T> {
    /// What it says.
    pub says: T,
    /// Where, in words.
    pub place: String,
}

impl fmt::Display for Witness<Prediction> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} says {}", self.place, spelled(self.says))
    }
}

/// Everything that a file says of its noise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatedNoise {
    /// What the network predicts; what is first is the plainest.
    pub predictions: Vec<Witness<Prediction>>,
    /// That noise levels end in pure noise.
    pub zero_terminal_snr: Option<String>,
}

impl StatedNoise {
    /// What the network predicts: `chosen`, else what all that is said agrees on; `None` where nothing is.
    ///
    /// # Errors
    /// [`ModelError::Contradiction`] for two that disagree, and for levels that end in pure noise where nothing says that the
    /// network predicts anything from it.
    pub fn prediction(
        &self,
        path: &Path,
        chosen: Option<Prediction>,
    ) -> Result<Option<Prediction>, ModelError> {
        let contradiction = |what: String| ModelError::Contradiction { path: path.to_owned(), what };
        if chosen.is_some() {
            return Ok(chosen);
        }
        let Some(first) = self.predictions.first() else {
            return match &self.zero_terminal_snr {
                None => Ok(None),
                Some(place) => Err(contradiction(format!(
                    "{place} says zero terminal SNR, and nothing says that it predicts v_prediction"
                ))),
            };
        };
        match self.predictions.iter().find(|other| other.says != first.says) {
            None => Ok(Some(first.says)),
            Some(other) => Err(contradiction(format!("{first}, {other}"))),
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// [`ModelError::Config`] for noise that is not supported, [`ModelError::Store`] for a settings file that cannot be read.
    pub(crate) fn of(file: &OpenFile, layout: Layout) -> Result<Self, ModelError> {
        let has = |name: &str| file.get(name).is_some();
        if let Some(name) = EDM.into_iter().find(|name| has(name)) {
            let found = format!("`{name}` marks noise levels of EDM, which are not supported");
            return Err(file.refuse(&vec![found]));
        }
        let mut stated = Self::default();
        if has(V_PREDICTION) {
            stated.says(Prediction::VPrediction, format!("tensor `{V_PREDICTION}`"));
        }
        if has(ZERO_TERMINAL_SNR) {
            stated.zero_terminal_snr = Some(format!("tensor `{ZERO_TERMINAL_SNR}`"));
        } else if ends_in_noise(file) {
            stated.zero_terminal_snr = Some("tensor `alphas_cumprod`".to_owned());
        }
        stated.header(file)?;
        for (says, place) in settings::beside(file.path())? {
            stated.says(says, place.display().to_string());
        }
        stated.name(file.path(), layout);
        Ok(stated)
    }

    fn says(&mut self, says: Prediction, place: String) {
        self.predictions.push(Witness { says, place });
    }

    fn header(&mut self, file: &OpenFile) -> Result<(), ModelError> {
        let entry = |key: &str| Some(file.weights().metadata(key)?.trim().to_ascii_lowercase());
        if let Some(text) = entry("modelspec.prediction_type") {
            let Some(prediction) = parsed(&text) else {
                let found = format!("`modelspec.prediction_type` is {text:?}; wanted epsilon or v");
                return Err(file.refuse(&vec![found]));
            };
            self.says(prediction, "`modelspec.prediction_type` in the header".to_owned());
        }
        if let Some(text) = entry("modelspec.architecture") {
            let known = [("v2-768-v", Prediction::VPrediction), ("v2-512", Prediction::Epsilon)];
            if let Some((_, prediction)) = known.iter().find(|(part, _)| text.contains(part)) {
                self.says(*prediction, "`modelspec.architecture` in the header".to_owned());
            }
        }
        if entry("ss_zero_terminal_snr").as_deref() == Some("true") {
            self.zero_terminal_snr.get_or_insert_with(|| "`ss_zero_terminal_snr` in the header".to_owned());
        }
        Ok(())
    }

    fn name(&mut self, path: &Path, layout: Layout) {
        let Some(stem) = path.file_stem().and_then(|stem| stem.to_str()) else { return };
        let name = stem.to_ascii_lowercase();
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let v = plain.contains("vpred") || layout == Layout::Sd2 && name.contains("768");
        let epsilon = plain.contains("epsilon")
            || plain.contains("epspred")
            || words.contains(&"eps")
            || layout == Layout::Sd2 && name.contains("512");
        for (says, prediction) in [(v, Prediction::VPrediction), (epsilon, Prediction::Epsilon)] {
            if says {
                self.says(prediction, format!("the file's name {stem:?}"));
            }
        }
        if ["ztsnr", "zsnr", "zeroterminalsnr"].iter().any(|mark| plain.contains(mark)) {
            self.zero_terminal_snr.get_or_insert_with(|| format!("the file's name {stem:?}"));
        }
    }
}

/// What a file written here says of itself: entries of its header and, for those who read nothing else, empty tensors.
pub(crate) fn marks(
    layout: Layout,
    prediction: Prediction,
    zero_terminal_snr: bool,
) -> (Metadata, Vec<&'static str>) {
    let mut metadata: Metadata =
        [("modelspec.architecture".to_owned(), architecture(layout, prediction).to_owned())].into();
    // A flow's path has no other prediction, and its levels end in pure noise whatever they are.
    if prediction == Prediction::Flow {
        return (metadata, Vec::new());
    }
    let velocity = prediction == Prediction::VPrediction;
    let said = if velocity { "v" } else { "epsilon" };
    metadata.insert("modelspec.prediction_type".to_owned(), said.to_owned());
    if zero_terminal_snr {
        metadata.insert("ss_zero_terminal_snr".to_owned(), "True".to_owned());
    }
    let tensors = [(velocity, V_PREDICTION), (zero_terminal_snr, ZERO_TERMINAL_SNR)];
    (metadata, tensors.into_iter().filter_map(|(is, name)| is.then_some(name)).collect())
}

/// ModelSpec's name of a family.
pub(crate) fn architecture(layout: Layout, prediction: Prediction) -> &'static str {
    match layout {
        Layout::Sd1 => "stable-diffusion-v1",
        Layout::Sd2 if prediction == Prediction::VPrediction => "stable-diffusion-v2-768-v",
        Layout::Sd2 => "stable-diffusion-v2-512",
        Layout::Sdxl => "stable-diffusion-xl-v1-base",
        Layout::Sd3 => "stable-diffusion-3",
        Layout::ZImage => "Z-Image",
    }
}

/// As diffusers spells it, and our flag.
pub fn spelled(prediction: Prediction) -> &'static str {
    match prediction {
        Prediction::Epsilon => "epsilon",
        Prediction::VPrediction => "v_prediction",
        Prediction::Flow => "flow_prediction",
    }
}

pub(crate) fn parsed(text: &str) -> Option<Prediction> {
    match text {
        "v" | "v_prediction" | "vpred" | "v_pred" | "v-prediction" => Some(Prediction::VPrediction),
        "epsilon" | "eps" => Some(Prediction::Epsilon),
        _ => None,
    }
}

/// Whether the table of signal powers that some files carry ends at 0.
fn ends_in_noise(file: &OpenFile) -> bool {
    use tastemaker_weights::safetensors::Dtype;
    let Some(table) = file.get("alphas_cumprod").filter(|table| table.dtype == Dtype::F32) else {
        return false;
    };
    let last = table.bytes.last_chunk().map(|bytes| f32::from_le_bytes(*bytes));
    last.is_some_and(|last| last.abs() < 1e-7)
}
