//! The head of LAION's aesthetic predictor and of ImageReward: five linear layers with nothing but dropout between them.
//!
//! Source: `christophschuhmann/improved-aesthetic-predictor:simple_inference.py` and `zai-org/ImageReward:ImageReward/ImageReward.py`, `MLP`.

use std::path::Path;

use tastemaker_store::StoreError;
use tastemaker_store::dtype::DType;
use tch::{Device, Tensor};

use crate::ModelError;
use crate::nn::{Linear, Role, Scope};
use crate::original::{ComponentMap, OpenFile, shapes};
use crate::pipeline::{Build, Fingerprint, Stored, build};
use crate::place::Place;

/// Where the linear layers stand in the published sequence; dropout stands between.
pub const LAYERS: [i64; 5] = [0, 2, 4, 6, 7];

/// The published widths after each layer.
pub const WIDTHS: [i64; 5] = [1024, 128, 64, 16, 1];

/// One number of a vector.
#[derive(Debug)]
pub struct RewardHead {
    layers: Vec<Linear>,
}

impl RewardHead {
    /// Builds the head from the parameters `layers.N` of `scope`, for vectors of `n_in`.
    pub fn new(scope: Scope<'_>, n_in: i64, widths: &[i64; 5]) -> Self {
        let before = std::iter::once(&n_in).chain(widths);
        let layers = LAYERS.iter().zip(before.zip(widths));
        let layer =
            |(n, (&n_in, &n_out)): (&i64, (&i64, &i64))| Linear::new(scope.sub("layers").sub(n), n_in, n_out);
        Self { layers: layers.map(layer).collect() }
    }

    /// # Shapes
    /// `[b, n_in]` to `[b]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let last = self.layers.iter().fold(x.shallow_clone(), |x, layer| layer.forward(&x));
        last.squeeze_dim(1)
    }

    /// The aesthetic head in a file, in f32, for vectors of `n_in`; and the SHA-256 of its weights.
    ///
    /// # Errors
    /// [`ModelError::Store`] for a file that is missing or malformed; [`ModelError::Config`] naming every tensor that is
    /// missing, has another shape or is not known.
    pub fn open(path: impl AsRef<Path>, n_in: i64) -> Result<(Self, String), ModelError> {
        let file = OpenFile::open(path.as_ref())?;
        let found = widths(&file, "layers.").ok_or_else(|| {
            let wanted = "layers.0, .2, .4, .6 and .7, as sac+logos+ava1-l14-linearMSE.pth has them";
            StoreError::malformed(file.path(), "no five linear layers that end in one number", wanted)
        })?;
        let construct = |scope: Scope<'_>| Self::new(scope, n_in, &found);
        let map = ComponentMap::new(shapes(|scope| drop(construct(scope))), |name| Some(Place::same(name)));
        let map = map.map_err(|problems| file.refuse(&problems))?;
        file.check(&map)?;
        file.check_names(|name| map.stored_names().any(|known| known == name))?;
        let stored = Stored::held(&file, &map)?;
        let mut hash = Fingerprint::default();
        hash.tensors(&stored);
        let how =
            Build { role: Role::Frozen, precision: DType::F32, device: Device::Cpu, lora: None, base: None };
        let loaded = build(stored, how, construct)?;
        Ok((loaded.network, hash.finish()))
    }
}

/// The widths after the layers below `prefix`, if there are five that end in one number.
pub(crate) fn widths(file: &OpenFile, prefix: &str) -> Option<[i64; 5]> {
    let mut widths = [0; 5];
    for (width, layer) in widths.iter_mut().zip(LAYERS) {
        let view = file.weights().get(&format!("{prefix}{layer}.weight"))?;
        *width = i64::try_from(*view.shape.first()?).ok()?;
    }
    (widths[4] == 1).then_some(widths)
}
