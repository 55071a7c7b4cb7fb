//! Recorded cases under `golden/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tch::Tensor;

/// The folder of one recorded case, such as `("models", "unet-sd1")`.
pub fn golden_dir(area: &str, case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(area).join(case)
}

/// One recorded case: inputs, outputs and gradients by name, and where its network is.
#[derive(Debug)]
pub struct Golden {
    folder: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    meta: toml::Table,
}

impl Golden {
    /// Reads `io.safetensors` and `meta.toml` of a case.
    ///
    /// # Panics
    /// When a file is missing or malformed.
    #[track_caller]
    pub fn load(area: &str, case: &str) -> Self {
        let folder = golden_dir(area, case);
        let meta = text(&folder.join("meta.toml"));
        Self {
            tensors: read_tensors(&folder.join("io.safetensors")),
            meta: meta.parse().unwrap_or_else(|e| panic!("{}: meta.toml: {e}", folder.display())),
            folder,
        }
    }

    /// A recorded tensor, in its recorded element type, on the host.
    ///
    /// # Panics
    /// When the case has no such tensor; the message lists those it has.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> Tensor {
        self.get(name).unwrap_or_else(|| {
            let known: Vec<_> = self.tensors.keys().filter(|k| !k.starts_with("grad.")).collect();
            panic!("{}: no tensor `{name}`; it has {known:?} and gradients", self.folder.display())
        })
    }

    /// A recorded tensor, if the case has it.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        self.tensors.get(name).map(Tensor::shallow_clone)
    }

    /// Recorded tensors whose names start with `prefix`, by the rest of their names.
    pub fn under(&self, prefix: &str) -> BTreeMap<String, Tensor> {
        let named = self.tensors.iter();
        named.filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), v.shallow_clone()))).collect()
    }

    /// Gradients of the recorded loss, by parameter name.
    pub fn gradients(&self) -> BTreeMap<String, Tensor> {
        self.under("grad.")
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
        let path = self.path(file);
        serde_json::from_str(&text(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// `config.json` of the network the case runs, as its package wrote it.
    ///
    /// # Panics
    /// When it is missing or malformed.
    #[track_caller]
    pub fn config_json(&self) -> Value {
        let path = self.network().join("config.json");
        serde_json::from_str(&text(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// The weights of the network the case runs.
    pub fn weights_path(&self) -> PathBuf {
        self.network().join("weights.safetensors")
    }

    /// The weights of the network the case runs, by parameter name.
    ///
    /// # Panics
    /// When the file is missing or malformed.
    #[track_caller]
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        read_tensors(&self.weights_path())
    }

    /// Copies the network into `folder` as a diffusers component: `config.json` and the weights under `weights_name`,
    /// such as `diffusion_pytorch_model.safetensors` or `model.safetensors`.
    ///
    /// # Panics
    /// When a file cannot be read or written.
    #[track_caller]
    pub fn install(&self, folder: &Path, weights_name: &str) {
        std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        copy(&self.network().join("config.json"), &folder.join("config.json"));
        copy(&self.weights_path(), &folder.join(weights_name));
    }

    /// The folder of the network: the case's own, or the one that `weights` in `meta.toml` names.
    fn network(&self) -> PathBuf {
        self.note("weights").map_or_else(|| self.folder.clone(), |case| golden_dir("models", case))
    }
}

#[track_caller]
fn read_tensors(path: &Path) -> BTreeMap<String, Tensor> {
    tastemaker_torch::tensors::read(path).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
pub(crate) fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[track_caller]
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|e| panic!("{} to {}: {e}", from.display(), to.display()));
}
