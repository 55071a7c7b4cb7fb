//! Networks whose weights are drawn by a seed, where they compute.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tastemaker_diffusion::{Conditioning, Posterior};
use tastemaker_models::nn::{AdapterSwitch, LoraSpec, Ranks, Role, TensorSource, Trainable, Weights};
use tastemaker_models::original::unet_shapes;
use tastemaker_models::unet::{UNet, UNetConfig};
use tastemaker_store::dtype::DType;
use tastemaker_train::data::{EncodedPair, EncodedPairs};
use tastemaker_train::reference::Reference;
use tch::{Device, Kind, Tensor};

/// A network and what is trained of it.
pub struct Network {
    pub unet: UNet,
    pub trainable: Vec<Trainable>,
    pub switch: AdapterSwitch,
}

/// A policy and the reference it started from.
pub struct Pairing {
    pub policy: Network,
    frozen: Option<Network>,
}

/// How a policy is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapter {
    Lora,
    Full,
}

/// Weights by their shapes, drawn when they are asked for.
struct Drawn {
    shapes: BTreeMap<String, Vec<usize>>,
    device: Device,
}

impl TensorSource for Drawn {
    fn names(&self) -> Vec<String> {
        self.shapes.keys().cloned().collect()
    }

    fn read(&self, name: &str) -> Option<Tensor> {
        let shape: Vec<i64> = self.shapes.get(name)?.iter().map(|&n| n as i64).collect();
        let options = (Kind::Float, self.device);
        Some(match shape.as_slice() {
            [n] if name.ends_with("weight") => Tensor::ones([*n], options),
            [n] => Tensor::zeros([*n], options),
            many => {
                let fan_in: i64 = many[1..].iter().product();
                // The same values for policy and reference: the seed is the name's.
                tch::manual_seed(name.bytes().fold(7, |seed, byte| seed * 31 % 1_000_003 + i64::from(byte)));
                Tensor::randn(many, options) / (fan_in as f64).sqrt()
            }
        })
    }
}

impl Pairing {
    /// Of a configuration; values are drawn on `drawn_on`, so that other devices can have the same.
    pub fn new(config: &Value, adapter: Adapter, precision: DType, device: Device, drawn_on: Device) -> Self {
        let config = UNetConfig::from_json(config).expect("ours and published configurations are read");
        let shapes = unet_shapes(&config);
        let build = |role, lora: Option<LoraSpec>| {
            let source = Drawn { shapes: shapes.clone(), device: drawn_on };
            let mut weights = Weights::from_source(source, role, precision, device);
            if let Some(lora) = lora {
                weights = weights.with_lora(lora);
            }
            let switch = weights.adapter_switch();
            let unet = UNet::new(weights.root(), config.clone(), precision);
            Network {
                unet,
                trainable: weights.finish().expect("weights are drawn by their shapes").0,
                switch,
            }
        };
        let lora = LoraSpec {
            ranks: Ranks::uniform(8, 8.0),
            target_modules: ["to_q", "to_k", "to_v", "to_out.0"].map(str::to_owned).to_vec(),
            seed: 3,
            tensors: None,
            anchored: false,
            use_dora: false,
        };
        match adapter {
            Adapter::Lora => Self { policy: build(Role::Frozen, Some(lora)), frozen: None },
            Adapter::Full => {
                Self { policy: build(Role::Trained, None), frozen: Some(build(Role::Frozen, None)) }
            }
        }
    }

    pub fn reference(&self) -> Reference<'_> {
        match &self.frozen {
            Some(frozen) => Reference::Frozen(&frozen.unet),
            None => Reference::AdapterOff { policy: &self.policy.unet, switch: self.policy.switch.clone() },
        }
    }
}

/// A small network of the SD1 family: heads of `width / n_heads`, attention in two levels.
pub fn small(n_heads: i64) -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "sample_size": 8, "in_channels": 4, "out_channels": 4,
        "block_out_channels": [64, 64], "layers_per_block": 1, "norm_num_groups": 8, "cross_attention_dim": 12,
        "attention_head_dim": n_heads, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    })
}

/// Pairs of random latents of this side under captions of this width; with SDXL's second conditioning if it has a width.
pub fn pairs(n: usize, side: i64, (tokens, width): (i64, i64), pooled: Option<i64>) -> EncodedPairs {
    tch::manual_seed(5);
    let host = (Kind::Float, Device::Cpu);
    let images = [2 * n as i64, 4, side, side];
    let captions = |n: i64| Conditioning {
        pooled: pooled.map(|width| Tensor::randn([n, width], host)),
        time_ids: pooled.map(|_| Tensor::from_slice(&[1024f32, 1024., 0., 0., 1024., 1024.]).repeat([n, 1])),
        ..Conditioning::text(Tensor::randn([n, tokens, width], host))
    };
    EncodedPairs {
        images: Posterior { mean: Tensor::randn(images, host), std: Tensor::rand(images, host) * 0.1 },
        hflip: false,
        captions: captions(n as i64),
        empty: captions(1),
        pairs: (0..n)
            .map(|i| EncodedPair { id: 100 + i as u64, winner: 2 * i, loser: 2 * i + 1, caption: i })
            .collect(),
    }
}
