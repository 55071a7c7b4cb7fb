//! The network.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tastemaker_diffusion::{Conditioning, Denoiser};
use tastemaker_store::dtype::DType;
use tastemaker_torch::kind_of;
use tastemaker_torch::recompute::segment;
use tch::{Kind, Tensor};

use super::blocks::{Block, time_width};
use super::config::ZImageConfig;
use super::rope::{Rotation, of_caption, of_image};
use crate::nn::{Init, Linear, Param, RmsNorm, Scope, layer_norm, sinusoids};

/// Width of the sinusoids of the time, and of the layer between.
const WAVES: i64 = 256;
const INNER: i64 = 1024;

/// Tokens of captions and of images are filled up to a multiple of this.
const MULTIPLE: i64 = 32;

const EPS: f64 = 1e-6;

/// `ZImageTransformer2DModel`.
#[derive(Debug)]
pub struct ZImage {
    config: ZImageConfig,
    compute: Kind,
    x_embedder: Linear,
    x_pad_token: Param,
    cap_norm: RmsNorm,
    cap_embedder: Linear,
    cap_pad_token: Param,
    time: [Linear; 2],
    noise_refiner: Vec<Rc<Block>>,
    context_refiner: Vec<Rc<Block>>,
    layers: Vec<Rc<Block>>,
    final_scale: Linear,
    final_layer: Linear,
    recompute: Cell<bool>,
}

impl ZImage {
    /// Builds the network from the parameters of `scope`.
    pub fn new(scope: Scope<'_>, config: ZImageConfig, precision: DType) -> Self {
        let (dim, patch) = (config.dim, config.patch_size);
        let features = patch * patch * config.in_channels;
        let of_patch = |name: &str| scope.sub(name).sub(format!("{patch}-1"));
        let stack = |name: &str, n: i64, is_modulated: bool| -> Vec<Rc<Block>> {
            let block = |i: i64| Rc::new(Block::new(scope.sub(name).sub(i), &config, is_modulated));
            (0..n).map(block).collect()
        };
        let padding = |name: &str| scope.param(name, &[1, dim], Init::Normal(0.02));
        let last = of_patch("all_final_layer");
        let embedder = scope.sub("cap_embedder");
        let time = scope.sub("t_embedder.mlp");
        Self {
            compute: kind_of(precision),
            x_embedder: Linear::new(of_patch("all_x_embedder"), features, dim),
            x_pad_token: padding("x_pad_token"),
            cap_norm: RmsNorm::new(embedder.sub(0), config.cap_feat_dim, config.norm_eps),
            cap_embedder: Linear::new(embedder.sub(1), config.cap_feat_dim, dim),
            cap_pad_token: padding("cap_pad_token"),
            time: [
                Linear::new(time.sub(0), WAVES, INNER),
                Linear::new(time.sub(2), INNER, time_width(&config)),
            ],
            noise_refiner: stack("noise_refiner", config.n_refiner_layers, true),
            context_refiner: stack("context_refiner", config.n_refiner_layers, false),
            layers: stack("layers", config.n_layers, true),
            final_scale: Linear::closing(last.sub("adaLN_modulation.1"), time_width(&config), dim),
            final_layer: Linear::closing(last.sub("linear"), dim, features),
            config,
            recompute: Cell::new(false),
        }
    }

    /// Whether blocks keep only their inputs between the passes and are computed again in the backward pass; off at first.
    ///
    /// Gradients are the same to the last bit, at the price of one more forward pass. Adapters must stay as they are, on or
    /// off, until the backward pass is over.
    pub fn set_recompute(&self, recompute: bool) {
        self.recompute.set(recompute);
    }

    /// The network's configuration.
    pub fn config(&self) -> &ZImageConfig {
        &self.config
    }

    /// The predicted velocity, noise less image, of images each with a caption of its own length. The published network predicts its
    /// negative at a time that runs from 0 for noise to 1.
    ///
    /// Captions that are filled up to the same length go through together, so nothing is masked.
    ///
    /// # Shapes
    /// `x` `[b, c, h, w]`, `timestep` `[b]`, captions `[n, d]` each; result `[b, c, h, w]` f32.
    pub fn forward(&self, x: &Tensor, timestep: &Tensor, captions: &[Tensor]) -> Tensor {
        let mut groups: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (index, caption) in (0..).zip(captions) {
            groups.entry(filled_up(caption.size()[0])).or_default().push(index);
        }
        let mut parts = Vec::with_capacity(groups.len());
        let mut order = Vec::with_capacity(captions.len());
        for (length, indices) in groups {
            let index = Tensor::from_slice(&indices).to_device(x.device());
            let own: Vec<&Tensor> = indices.iter().map(|&i| &captions[i as usize]).collect();
            let (x, timestep) = (x.index_select(0, &index), timestep.index_select(0, &index));
            parts.push(self.forward_alike(&x, &timestep, &own, length));
            order.extend(indices);
        }
        let mut back = vec![0i64; order.len()];
        order.iter().zip(0i64..).for_each(|(index, place)| back[*index as usize] = place);
        Tensor::cat(&parts, 0).index_select(0, &Tensor::from_slice(&back).to_device(x.device()))
    }

    /// The same where all captions are filled up to one length.
    fn forward_alike(&self, x: &Tensor, timestep: &Tensor, captions: &[&Tensor], n_caption: i64) -> Tensor {
        let ZImageConfig { patch_size: p, in_channels: c, t_scale, .. } = self.config;
        let device = x.device();
        // From 0 for noise to 1, as the published code counts it.
        let time = (1000.0 - timestep.to_kind(Kind::Float)) / 1000.0 * t_scale;
        let waves = sinusoids(&time, WAVES, true, 0.0).to_kind(self.compute);
        let time = self.time[1].forward(&self.time[0].forward(&waves).silu()); // [b, t]

        let (b, _, height, width) = x.size4().expect("latents are four-dimensional");
        let (h, w) = (height / p, width / p);
        let n = filled_up(h * w);
        let patches = x.to_kind(self.compute).view([b, c, h, p, w, p]).permute([0, 2, 4, 3, 5, 1]);
        let patches = self.x_embedder.forward(&patches.reshape([b, h * w, p * p * c]));
        let padding = self.x_pad_token.value().unsqueeze(0).expand([b, n - h * w, -1], false);
        let mut image = Tensor::cat(&[patches, padding], 1);
        let of_image = Rc::new(Rotation::new(&self.config, &of_image((h, w), n_caption, n), device));
        for block in &self.noise_refiner {
            image = self.through(block, &image, &of_image, Some(&time));
        }

        let rows: Vec<Tensor> = captions.iter().map(|caption| self.caption(caption, n_caption)).collect();
        let mut caption = Tensor::stack(&rows, 0);
        let of_caption = Rc::new(Rotation::new(&self.config, &of_caption(n_caption), device));
        for block in &self.context_refiner {
            caption = self.through(block, &caption, &of_caption, None);
        }

        let mut joined = Tensor::cat(&[image, caption], 1);
        let of_both = Rc::new(of_image.followed_by(&of_caption));
        for block in &self.layers {
            joined = self.through(block, &joined, &of_both, Some(&time));
        }
        let scale = self.final_scale.forward(&time.silu()).unsqueeze(1) + 1.0;
        let y = self.final_layer.forward(&(layer_norm(&joined.narrow(1, 0, h * w), EPS) * scale));
        let y = y.view([b, h, w, p, p, c]).permute([0, 5, 1, 3, 2, 4]);
        -y.reshape([b, c, height, width]).to_kind(Kind::Float)
    }

    /// A caption's tokens, filled up: `[n, d]` to `[length, c]`.
    fn caption(&self, caption: &Tensor, length: i64) -> Tensor {
        let own = self.cap_embedder.forward(&self.cap_norm.forward(&caption.to_kind(self.compute)));
        let n = own.size()[0];
        Tensor::cat(&[own, self.cap_pad_token.value().expand([length - n, -1], false)], 0)
    }

    /// A block, computed again in the backward pass if that was asked for. The aliases have gradients added up within the block
    /// first, recomputed or not, so that both ways give the same bits.
    fn through(
        &self,
        block: &Rc<Block>,
        x: &Tensor,
        rotation: &Rc<Rotation>,
        time: Option<&Tensor>,
    ) -> Tensor {
        let inputs: Vec<Tensor> = [Some(x), time].into_iter().flatten().map(Tensor::alias).collect();
        if self.recompute.get() {
            let (block, rotation) = (Rc::clone(block), Rc::clone(rotation));
            segment(&inputs, move |inputs| block.forward(&inputs[0], &rotation, inputs.get(1)))
        } else {
            block.forward(&inputs[0], rotation, inputs.get(1))
        }
    }
}

impl Denoiser for ZImage {
    fn predict(&self, x: &Tensor, timestep: &Tensor, conditioning: &Conditioning) -> Tensor {
        self.forward(x, timestep, &conditioning.captions())
    }
}

/// So many tokens filled up.
pub(super) fn filled_up(n: i64) -> i64 {
    (n + MULTIPLE - 1) / MULTIPLE * MULTIPLE
}
