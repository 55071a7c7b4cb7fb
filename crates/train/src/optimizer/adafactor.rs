//! Adafactor at a given learning rate.

use tch::{Kind, Tensor};

use super::{At, Move, Update};

/// Settings of Adafactor, under the names of transformers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdafactorSettings {
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to squared gradients.
    pub epsilon: f64,
    /// Updates with a larger root mean square are shortened to it.
    pub clip_threshold: f64,
    /// The second moment's decay is 1 - step^decay_rate.
    pub decay_rate: f64,
}

impl Default for AdafactorSettings {
    fn default() -> Self {
        Self { weight_decay: 0.0, epsilon: 1e-30, clip_threshold: 1.0, decay_rate: -0.8 }
    }
}

/// Adafactor without a first moment and without its own learning rate: matrices and convolutions keep one number per row and
/// column in place of a second moment.
///
/// Source: arXiv 1804.04235, algorithms 4 and 5; `transformers.Adafactor` with `scale_parameter=False,
/// relative_step=False`, as SalesforceAIResearch/DiffusionDPO train.py calls it for SDXL.
#[derive(Debug)]
pub struct Adafactor {
    settings: AdafactorSettings,
    second: Vec<Second>,
}

#[derive(Debug)]
enum Second {
    /// Means over the last axis, and over the last but one.
    Factored { row: Tensor, column: Tensor },
    /// Each on its own.
    Whole(Tensor),
}

impl Adafactor {
    /// For these parameters, moments at zero.
    pub fn new(parameters: &[Tensor], settings: AdafactorSettings) -> Self {
        let second = parameters.iter().map(|parameter| {
            let shape = parameter.size();
            match shape.as_slice() {
                [rest @ .., n_rows, n_columns] => {
                    let options = (parameter.kind(), parameter.device());
                    let row = Tensor::zeros([rest, &[*n_rows]].concat(), options);
                    Second::Factored { row, column: Tensor::zeros([rest, &[*n_columns]].concat(), options) }
                }
                _ => Second::Whole(parameter.detach().zeros_like()),
            }
        });
        Self { settings, second: second.collect() }
    }
}

impl Update for Adafactor {
    fn update(&mut self, moves: &mut [Move], gradient_scale: f64, at: At) {
        for Move { i, parameter, gradient } in moves {
            if gradient_scale != 1.0 {
                let _ = gradient.g_mul_scalar_(gradient_scale);
            }
            self.one(*i, parameter, gradient, at);
        }
    }

    fn state(&self, i: usize) -> Vec<(&'static str, Tensor)> {
        match &self.second[i] {
            Second::Factored { row, column } => {
                vec![("row", row.shallow_clone()), ("column", column.shallow_clone())]
            }
            Second::Whole(second) => vec![("second", second.shallow_clone())],
        }
    }
}

impl Adafactor {
    fn one(&mut self, i: usize, parameter: &mut Tensor, gradient: &mut Tensor, at: At) {
        let At { learning_rate, step } = at;
        let AdafactorSettings { weight_decay, epsilon, clip_threshold, decay_rate } = self.settings;
        let decay = 1.0 - f64::from(step).powf(decay_rate);
        let square = gradient.square() + epsilon;
        let follow = |mean: &mut Tensor, now: &Tensor| {
            let _ = mean.g_mul_scalar_(decay);
            let _ = mean.g_add_(&(now * (1.0 - decay)));
        };
        let factor = match &mut self.second[i] {
            Second::Factored { row, column } => {
                follow(row, &square.mean_dim(-1, false, Kind::Float));
                follow(column, &square.mean_dim(-2, false, Kind::Float));
                let of_rows = (&*row / row.mean_dim(-1, true, Kind::Float)).rsqrt().unsqueeze(-1);
                of_rows * column.rsqrt().unsqueeze(-2)
            }
            Second::Whole(second) => {
                follow(second, &square);
                second.rsqrt()
            }
        };
        let _ = gradient.g_mul_(&factor);
        let root_mean_square = gradient.square().mean(Kind::Float).sqrt();
        let shorten = (root_mean_square / clip_threshold).clamp_min(1.0);
        let _ = gradient.g_div_(&shorten);
        let _ = gradient.g_mul_scalar_(learning_rate);
        if weight_decay > 0.0 {
            let _ = parameter.g_mul_scalar_(1.0 - weight_decay * learning_rate);
        }
        let _ = parameter.g_sub_(gradient);
    }
}
