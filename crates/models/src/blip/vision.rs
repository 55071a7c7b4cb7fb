//! The image tower: a ViT that normalizes before each half of a layer.
//!
//! Shapes: b batch, m patches, c width.
//!
//! Source: `salesforce/BLIP:models/vit.py`, `VisionTransformer`.

use tastemaker_store::dtype::DType;
use tastemaker_torch::kind_of;
use tch::{Kind, Tensor};

use super::config::VitConfig;
use crate::nn::{Conv2d, ConvShape, Init, LayerNorm, Linear, Param, Scope, attend};

/// Epsilon of every layer normalization.
const EPS: f64 = 1e-6;

#[derive(Debug)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    n_heads: i64,
}

impl Block {
    fn new(scope: Scope<'_>, config: &VitConfig) -> Self {
        let (c, attn, mlp) = (config.width, scope.sub("attn"), scope.sub("mlp"));
        Self {
            norm1: LayerNorm::new(scope.sub("norm1"), c, EPS),
            qkv: Linear::new(attn.sub("qkv"), c, 3 * c),
            proj: Linear::closing(attn.sub("proj"), c, c),
            norm2: LayerNorm::new(scope.sub("norm2"), c, EPS),
            fc1: Linear::new(mlp.sub("fc1"), c, config.intermediate),
            fc2: Linear::closing(mlp.sub("fc2"), config.intermediate, c),
            n_heads: config.n_heads(),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let x = x + self.attention(&self.norm1.forward(x));
        &x + self.fc2.forward(&self.fc1.forward(&self.norm2.forward(&x)).gelu("none"))
    }

    fn attention(&self, x: &Tensor) -> Tensor {
        let (b, n, c) = x.size3().expect("hidden states are three-dimensional");
        let qkv = self.qkv.forward(x).view([b, n, 3, self.n_heads, c / self.n_heads]);
        let qkv = qkv.permute([2, 0, 3, 1, 4]); // [3, b, H, n, e]
        let y = attend(&qkv.select(0, 0), &qkv.select(0, 1), &qkv.select(0, 2), false);
        self.proj.forward(&y.transpose(1, 2).reshape([b, n, c]))
    }
}

/// The image tower.
#[derive(Debug)]
pub struct Vit {
    compute: Kind,
    patch_embed: Conv2d,
    cls_token: Param,
    pos_embed: Param,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Vit {
    /// Builds the network from the parameters of `scope`.
    pub fn new(scope: Scope<'_>, config: &VitConfig, precision: DType) -> Self {
        let (c, side) = (config.width, config.patch_size);
        let patches = ConvShape { n_in: 3, n_out: c, kernel: side, stride: side, padding: 0 };
        let n_positions = (config.image_size / side).pow(2) + 1;
        let block = |i: i64| Block::new(scope.sub("blocks").sub(i), config);
        Self {
            compute: kind_of(precision),
            patch_embed: Conv2d::new(scope.sub("patch_embed").sub("proj"), patches),
            cls_token: scope.param("cls_token", &[1, 1, c], Init::Normal(0.02)),
            pos_embed: scope.param("pos_embed", &[1, n_positions, c], Init::Normal(0.02)),
            blocks: (0..config.n_layers).map(block).collect(),
            norm: LayerNorm::new(scope.sub("norm"), c, EPS),
        }
    }

    /// # Shapes
    /// `[b, 3, image_size, image_size]` to `[b, 1 + m, c]`, the class position first.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let patches = self.patch_embed.forward(&images.to_kind(self.compute)); // [b, c, s', s']
        let patches = patches.flatten(2, -1).transpose(1, 2); // [b, m, c]
        let (b, _, c) = patches.size3().expect("patches are three-dimensional");
        let class = self.cls_token.value().expand([b, 1, c], false);
        let x = Tensor::cat(&[class, patches], 1) + self.pos_embed.value();
        self.norm.forward(&self.blocks.iter().fold(x, |x, block| block.forward(&x)))
    }
}
