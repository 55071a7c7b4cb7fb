//! Parameters of layers.

use tch::{Kind, Tensor};

/// A parameter: an f32 master or a frozen tensor in the compute type.
#[derive(Debug)]
pub struct Param {
    pub(super) tensor: Tensor,
    pub(super) compute: Kind,
}

impl Param {
    /// The value in the compute type; differentiable with respect to the master.
    pub fn value(&self) -> Tensor {
        if self.tensor.kind() == self.compute {
            self.tensor.shallow_clone()
        } else {
            self.tensor.to_kind(self.compute)
        }
    }
}

/// A parameter that receives gradients, under the name it is saved by.
#[derive(Debug)]
pub struct Trainable {
    /// Diffusers name, or for adapters the layer's name followed by `.lora_A.weight` / `.lora_B.weight`.
    pub name: String,
    /// The f32 master; shares storage with the network.
    pub tensor: Tensor,
}
