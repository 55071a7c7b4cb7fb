//! What a denoiser is conditioned on besides the timestep.

use tch::{Device, Kind, Tensor};

/// Text conditioning of a batch, and SDXL's additions where the network has them.
///
/// # Shapes
/// `hidden` `[b, n, d]`; `lengths` b numbers of at most n; `pooled` `[b, p]`; `time_ids` `[b, 6]`
/// (original height and width, crop top and left, target height and width, in pixels).
#[derive(Debug)]
pub struct Conditioning {
    /// Hidden states of the text encoder or encoders.
    pub hidden: Tensor,
    /// Tokens of each sample, where captions have as many as they need: what follows them in `hidden` is nobody's.
    pub lengths: Option<Vec<i64>>,
    /// Pooled embedding of SDXL's second text encoder.
    pub pooled: Option<Tensor>,
    /// SDXL's micro-conditioning.
    pub time_ids: Option<Tensor>,
}

impl Conditioning {
    /// Conditioning that consists of hidden states alone (SD1.x, SD2.x).
    pub fn text(hidden: Tensor) -> Self {
        Self { hidden, lengths: None, pooled: None, time_ids: None }
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

    /// Captions that have as many tokens as they need, `[n, d]` each.
    ///
    /// # Panics
    /// If there is none.
    pub fn of_lengths(captions: &[Tensor]) -> Self {
        let lengths: Vec<i64> = captions.iter().map(|caption| caption.size()[0]).collect();
        let longest = lengths.iter().copied().max().expect("at least one caption");
        let filled: Vec<Tensor> = captions.iter().map(|caption| filled_up(caption, 0, longest)).collect();
        Self { lengths: Some(lengths), ..Self::text(Tensor::stack(&filled, 0)) }
    }

    /// Hidden states of each sample's own tokens, `[n, d]` each.
    pub fn captions(&self) -> Vec<Tensor> {
        let rows = self.hidden.unbind(0);
        match &self.lengths {
            Some(lengths) => rows.iter().zip(lengths).map(|(row, &n)| row.narrow(0, 0, n)).collect(),
            None => rows,
        }
    }

    /// Applies `f` to every tensor, and `lengths` to the others.
    fn map(&self, f: impl Fn(&Tensor) -> Tensor, lengths: impl Fn(&[i64]) -> Vec<i64>) -> Self {
        Self {
            hidden: f(&self.hidden),
            lengths: self.lengths.as_deref().map(lengths),
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
        self.map(Tensor::shallow_clone, <[i64]>::to_vec)
    }

    /// The samples at `index` (`[k]`, int64), in that order.
    pub fn select(&self, index: &Tensor) -> Self {
        let chosen = |lengths: &[i64]| {
            let rows = index.to_device(Device::Cpu).to_kind(Kind::Int64).contiguous();
            let rows = Vec::<i64>::try_from(rows).expect("an index is a vector");
            rows.into_iter().map(|row| lengths[row as usize]).collect()
        };
        self.map(|part| part.index_select(0, index), chosen)
    }

    /// The samples `start..start + length`.
    pub fn narrow(&self, start: i64, length: i64) -> Self {
        let (first, end) = (start as usize, (start + length) as usize);
        self.map(|part| part.narrow(0, start, length), |lengths| lengths[first..end].to_vec())
    }

    /// This batch followed by itself: conditioning for winners, then losers, of the same pairs.
    pub fn twice(&self) -> Self {
        self.map(|part| Tensor::cat(&[part, part], 0), |lengths| lengths.repeat(2))
    }

    /// This batch followed by `other`; both must have the same parts.
    pub fn followed_by(&self, other: &Self) -> Self {
        let join = |a: &Option<Tensor>, b: &Option<Tensor>| match (a, b) {
            (Some(a), Some(b)) => Some(Tensor::cat(&[a, b], 0)),
            _ => None,
        };
        let lengths = match (&self.lengths, &other.lengths) {
            (Some(a), Some(b)) => Some([a.as_slice(), b].concat()),
            _ => None,
        };
        let longest = self.hidden.size()[1].max(other.hidden.size()[1]);
        let hidden = [&self.hidden, &other.hidden].map(|hidden| match lengths {
            Some(_) => filled_up(hidden, 1, longest),
            None => hidden.shallow_clone(),
        });
        Self {
            hidden: Tensor::cat(&hidden, 0),
            lengths,
            pooled: join(&self.pooled, &other.pooled),
            time_ids: join(&self.time_ids, &other.time_ids),
        }
    }
}

/// With zeros at the end of an axis, to so many places; the last axis is another.
fn filled_up(x: &Tensor, axis: usize, n: i64) -> Tensor {
    match n - x.size()[axis] {
        0 => x.shallow_clone(),
        missing => x.constant_pad_nd([0, 0, 0, missing]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caption(n: i64, start: f64) -> Tensor {
        (Tensor::arange(n * 2, (Kind::Float, Device::Cpu)) + start).view([n, 2])
    }

    fn assert_holds(found: &Conditioning, wanted: &[&Tensor]) {
        let captions = found.captions();
        assert_eq!((captions.len(), found.len()), (wanted.len(), wanted.len()));
        assert!(captions.iter().zip(wanted).all(|(found, wanted)| found.equal(wanted)), "{captions:?}");
    }

    #[test]
    fn captions_keep_their_own_lengths_however_batches_are_put_together() {
        let (short, long, longer) = (caption(1, 1.0), caption(3, 10.0), caption(4, 100.0));
        let both = Conditioning::of_lengths(&[short.shallow_clone(), long.shallow_clone()]);
        let one = Conditioning::of_lengths(&[longer.shallow_clone()]);
        assert_holds(&both, &[&short, &long]);
        assert_holds(&both.followed_by(&one), &[&short, &long, &longer]);
        assert_holds(&one.followed_by(&both), &[&longer, &short, &long]);
        assert_holds(&both.twice(), &[&short, &long, &short, &long]);
        assert_holds(&both.narrow(1, 1), &[&long]);
        assert_holds(
            &both.followed_by(&one).select(&Tensor::from_slice(&[2i64, 0, 0])),
            &[&longer, &short, &short],
        );
        assert_holds(&both.shallow_clone().of_size(8, 8), &[&short, &long]);
    }
}
