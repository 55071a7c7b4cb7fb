//! What a denoiser is conditioned on besides the timestep.

use tch::Tensor;

/// Text conditioning of a batch, and SDXL's additions where the network has them.
///
/// # Shapes
/// `hidden` `[b, n, d]`; `pooled` `[b, p]`; `time_ids` `[b, 6]`
/// (original height and width, crop top and left, target height and width, in pixels).
#[derive(Debug)]
pub struct Conditioning {
    /// Hidden states of the text encoder or encoders.
    pub hidden: Tensor,
    /// Pooled embedding of SDXL's second text encoder.
    pub pooled: Option<Tensor>,
    /// SDXL's micro-conditioning.
    pub time_ids: Option<Tensor>,
}

impl Conditioning {
    /// Conditioning that consists of hidden states alone (SD1.x, SD2.x).
    pub fn text(hidden: Tensor) -> Self {
        Self { hidden, pooled: None, time_ids: None }
    }

    /// The same for uncropped images of this height and width, in pixels, where the network has micro-conditioning.
    pub fn of_size(self, height: i64, width: i64) -> Self {
        let time_ids = self.time_ids.map(|ids| {
            let sizes = [height, width, 0, 0, height, width];
            let row = Tensor::from_slice(&sizes).to_kind(ids.kind()).to_device(ids.device());
            row.view([1, 6]).repeat([ids.size()[0], 1])
        });
        Self { time_ids, ..self }
    }

    /// Applies `f` to every part.
    fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Self {
        Self {
            hidden: f(&self.hidden),
            pooled: self.pooled.as_ref().map(&f),
            time_ids: self.time_ids.as_ref().map(&f),
        }
    }

    /// Number of samples described.
    pub fn len(&self) -> usize {
        self.hidden.size()[0] as usize
    }

    /// Whether no sample is described.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A second handle on the same tensors.
    pub fn shallow_clone(&self) -> Self {
        self.map(Tensor::shallow_clone)
    }

    /// The samples at `index` (`[k]`, int64), in that order.
    pub fn select(&self, index: &Tensor) -> Self {
        self.map(|part| part.index_select(0, index))
    }

    /// The samples `start..start + length`.
    pub fn narrow(&self, start: i64, length: i64) -> Self {
        self.map(|part| part.narrow(0, start, length))
    }

    /// This batch followed by itself: conditioning for winners, then losers, of the same pairs.
    pub fn twice(&self) -> Self {
        self.map(|part| Tensor::cat(&[part, part], 0))
    }

    /// This batch followed by `other`; both must have the same parts.
    pub fn followed_by(&self, other: &Self) -> Self {
        let join = |a: &Option<Tensor>, b: &Option<Tensor>| match (a, b) {
            (Some(a), Some(b)) => Some(Tensor::cat(&[a, b], 0)),
            _ => None,
        };
        Self {
            hidden: Tensor::cat(&[&self.hidden, &other.hidden], 0),
            pooled: join(&self.pooled, &other.pooled),
            time_ids: join(&self.time_ids, &other.time_ids),
        }
    }
}
