//! Table look-up.

use tch::Tensor;

use super::param::Param;
use super::weights::{Init, Scope};

/// A table of vectors.
#[derive(Debug)]
pub struct Embedding {
    weight: Param,
}

impl Embedding {
    /// # Shapes
    /// Weight `[n_entries, width]`; fresh entries are normal with standard deviation 0.02 as in CLIP.
    pub fn new(scope: Scope<'_>, n_entries: i64, width: i64) -> Self {
        Self { weight: scope.param("weight", &[n_entries, width], Init::Normal(0.02)) }
    }

    /// # Shapes
    /// `[..]` int64 to `[.., width]`.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.weight.value(), ids, -1, false, false)
    }

    /// The whole table, `[n_entries, width]`.
    pub fn table(&self) -> Tensor {
        self.weight.value()
    }
}
