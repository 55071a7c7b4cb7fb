//! Recorded cases under `golden/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Arrays, arrays, redraw::redraw};

/// The folder of one recorded case, such as `("models", "unet-sd1")`.
pub fn golden_dir(area: &str, case: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden");
    // A program that was carried to another machine runs in the root of a checkout.
    let golden = if here.is_dir() { here } else { PathBuf::from("golden") };
    golden.join(area).join(case)
}

/// The weights of a network: those in the case's `weights.safetensors`, or drawn again from the case's seed.
///
/// # Panics
/// When a file of the case is missing or malformed.
#[track_caller]
pub fn golden_weights(area: &str, case: &str) -> Arrays {
    let folder = golden_dir(area, case);
    let stored = folder.join("weights.safetensors");
    if stored.is_file() {
        return arrays::read(&stored);
    }
    let seed = meta(&folder).get("seed").and_then(toml::Value::as_integer);
    let seed = seed.unwrap_or_else(|| panic!("{}: no seed in meta.toml", folder.display()));
    let recorded = arrays::shapes(&folder.join("io.safetensors"));
    // Every parameter has a recorded gradient of its shape.
    let parameters =
        recorded.into_iter().filter_map(|(k, shape)| Some((k.strip_prefix("grad.")?.to_owned(), shape)));
    redraw(parameters.collect(), u32::try_from(seed).expect("seeds are small"))
}

/// Parameters of these names and shapes as `redraw` of `golden/common.py` draws them from a seed.
pub fn redrawn(shapes: BTreeMap<String, Vec<usize>>, seed: u32) -> Arrays {
    redraw(shapes, seed)
}

/// One recorded case: what it says of itself, and where its network is.
#[derive(Debug)]
pub struct Golden {
    folder: PathBuf,
    meta: toml::Table,
    /// Area and case of the network.
    network: (String, String),
}

impl Golden {
    /// Reads `meta.toml` of a case.
    ///
    /// # Panics
    /// When it is missing or malformed.
    #[track_caller]
    pub fn load(area: &str, case: &str) -> Self {
        let folder = golden_dir(area, case);
        let meta = meta(&folder);
        let other = meta.get("weights").and_then(toml::Value::as_str).map(|other| {
            let (area, case) = other.split_once('/').unwrap_or(("models", other));
            (area.to_owned(), case.to_owned())
        });
        let network = other.unwrap_or_else(|| (area.to_owned(), case.to_owned()));
        Self { folder, meta, network }
    }

    /// Whether the gradient of this parameter is zero in exact arithmetic, so that only rounding was recorded.
    pub fn vanishes(&self, parameter: &str) -> bool {
        let listed = self.meta.get("vanishing_gradients").and_then(toml::Value::as_array);
        listed.is_some_and(|names| {
            names.iter().filter_map(toml::Value::as_str).any(|n| n.strip_prefix("grad.") == Some(parameter))
        })
    }

    /// A tolerance the recording states: `output`, `gradient` or, for losses, `loss`.
    ///
    /// # Panics
    /// When the case states no such tolerance.
    #[track_caller]
    pub fn tolerance(&self, kind: &str) -> f64 {
        let stated = self.meta.get("tolerance").and_then(|t| t.get(kind)).and_then(toml::Value::as_float);
        stated.unwrap_or_else(|| panic!("{}: no tolerance for {kind}", self.folder.display()))
    }

    /// A text that `meta.toml` records, such as `weights`, `steps`, `guidance`, `eta`, `beta`, `rank` or `alpha`.
    pub fn note(&self, key: &str) -> Option<&str> {
        self.meta.get(key).and_then(toml::Value::as_str)
    }

    /// A file of the case.
    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// A JSON file of the case.
    ///
    /// # Panics
    /// When it is missing or malformed.
    #[track_caller]
    pub fn json(&self, file: &str) -> Value {
        json(&self.path(file))
    }

    /// `config.json` of the network the case runs, as its package wrote it.
    ///
    /// # Panics
    /// When it is missing or malformed.
    #[track_caller]
    pub fn config_json(&self) -> Value {
        json(&self.config())
    }

    /// The weights of the network the case runs, by parameter name.
    ///
    /// # Panics
    /// As [`golden_weights`].
    #[track_caller]
    pub fn arrays(&self) -> Arrays {
        golden_weights(&self.network.0, &self.network.1)
    }

    /// Writes the network into `folder` as a diffusers component: `config.json` and the weights under `weights_name`,
    /// such as `diffusion_pytorch_model.safetensors` or `model.safetensors`. Returns the path of the weights.
    ///
    /// # Panics
    /// When a file cannot be read or written.
    #[track_caller]
    pub fn install(&self, folder: &Path, weights_name: &str) -> PathBuf {
        std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        copy(&self.config(), &folder.join("config.json"));
        let weights = folder.join(weights_name);
        arrays::write(&weights, &self.arrays());
        weights
    }

    fn config(&self) -> PathBuf {
        golden_dir(&self.network.0, &self.network.1).join("config.json")
    }
}

#[track_caller]
fn meta(folder: &Path) -> toml::Table {
    text(&folder.join("meta.toml")).parse().unwrap_or_else(|e| panic!("{}: meta.toml: {e}", folder.display()))
}

#[track_caller]
fn json(path: &Path) -> Value {
    serde_json::from_str(&text(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[track_caller]
pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[track_caller]
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|e| panic!("{} to {}: {e}", from.display(), to.display()));
}
