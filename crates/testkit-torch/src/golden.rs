//! Recorded cases with their tensors.

use std::collections::BTreeMap;
use std::ops::Deref;

use tch::Tensor;

/// One recorded case with its inputs, outputs and gradients by name.
#[derive(Debug)]
pub struct Golden {
    case: tastemaker_testkit::Golden,
    tensors: BTreeMap<String, Tensor>,
}

impl Deref for Golden {
    type Target = tastemaker_testkit::Golden;

    fn deref(&self) -> &Self::Target {
        &self.case
    }
}

impl Golden {
    /// Reads `io.safetensors` and `meta.toml` of a case.
    ///
    /// # Panics
    /// When a file is missing or malformed.
    #[track_caller]
    pub fn load(area: &str, case: &str) -> Self {
        let case = tastemaker_testkit::Golden::load(area, case);
        let tensors =
            tastemaker_torch::tensors::read(&case.path("io.safetensors")).unwrap_or_else(|e| panic!("{e}"));
        Self { case, tensors }
    }

    /// A recorded tensor, in its recorded element type, on the host.
    ///
    /// # Panics
    /// When the case has no such tensor; the message lists those it has.
    #[track_caller]
    pub fn tensor(&self, name: &str) -> Tensor {
        self.get(name).unwrap_or_else(|| {
            let known: Vec<_> = self.tensors.keys().filter(|k| !k.starts_with("grad.")).collect();
            panic!("{}: no tensor `{name}`; it has {known:?} and gradients", self.path("").display())
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

    /// The weights of the network the case runs, by parameter name.
    ///
    /// # Panics
    /// As [`tastemaker_testkit::golden_weights`].
    #[track_caller]
    pub fn weights(&self) -> BTreeMap<String, Tensor> {
        tensors(self.arrays())
    }
}

/// The weights of the network in a recorded case, by parameter name.
///
/// # Panics
/// As [`tastemaker_testkit::golden_weights`].
#[track_caller]
pub fn weights(area: &str, case: &str) -> BTreeMap<String, Tensor> {
    tensors(tastemaker_testkit::golden_weights(area, case))
}

/// As [`tastemaker_testkit::redrawn`].
pub fn redrawn(shapes: BTreeMap<String, Vec<usize>>, seed: u32) -> BTreeMap<String, Tensor> {
    tensors(tastemaker_testkit::redrawn(shapes, seed))
}

fn tensors(arrays: tastemaker_testkit::Arrays) -> BTreeMap<String, Tensor> {
    let tensor = |array: tastemaker_testkit::Array| {
        let shape: Vec<i64> = array.shape.iter().map(|&size| size as i64).collect();
        Tensor::from_slice(&array.values).reshape(shape)
    };
    arrays.into_iter().map(|(name, array)| (name, tensor(array))).collect()
}
