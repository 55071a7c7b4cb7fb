//! Shards of captions.
//!
//! | tensor | shape | holds |
//! |---|---|---|
//! | `hidden` | `[n, tokens, d]` | hidden states |
//! | `pooled` | `[n, p]` | SDXL's pooled embedding, where there is one |
//! | `checks` | `[n, 1]` I64 | XXH3 over both |

use std::path::Path;

use tastemaker_store::dtype::DType;
use tastemaker_weights::safetensors::{Dtype, Metadata, TensorInfo, TensorView, to_bytes};

use super::shard::{ShardFile, bytes_of, checksum, stored};
use crate::DataError;

/// Captions in one shard; the last one of a set may have fewer.
pub const CAPTIONS_PER_SHARD: usize = 256;

/// The bytes of a shard: hidden states `[n, tokens, d]` and, where there are any, pooled embeddings `[n, p]`, as little-endian
/// numbers of the element type.
///
/// # Errors
/// [`StoreError`](tastemaker_store::StoreError) if bytes do not fill the shapes.
pub fn text_shard(
    dtype: DType,
    hidden: (&[usize], &[u8]),
    pooled: Option<(&[usize], &[u8])>,
) -> Result<Vec<u8>, DataError> {
    let n = hidden.0.first().copied().unwrap_or_default();
    let row = |(_, bytes): (&[usize], &[u8]), i: usize| -> std::ops::Range<usize> {
        let length = bytes.len() / n.max(1);
        i * length..(i + 1) * length
    };
    let check = |i: usize| {
        let pooled = pooled.map_or(&[][..], |pooled| &pooled.1[row(pooled, i)]);
        checksum(&[&hidden.1[row(hidden, i)], pooled])
    };
    let checks = bytes_of((0..n).map(check));
    let (dtype, shape) = (stored(dtype), [n, 1]);
    let mut views = vec![
        TensorView { name: "hidden", dtype, shape: hidden.0, bytes: hidden.1 },
        TensorView { name: "checks", dtype: Dtype::I64, shape: &shape, bytes: &checks },
    ];
    views.extend(pooled.map(|(shape, bytes)| TensorView { name: "pooled", dtype, shape, bytes }));
    Ok(to_bytes(Path::new("a shard of a cache"), &views, &Metadata::new())?)
}

/// What the captions of a shard must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextLayout {
    /// Captions in this shard.
    pub n_captions: usize,
    /// What they are stored as.
    pub dtype: DType,
    /// Width of the hidden states.
    pub width: usize,
    /// Width of the pooled embedding, where there is one.
    pub pooled: Option<usize>,
}

/// A shard that is read.
#[derive(Debug)]
pub struct TextShard {
    file: ShardFile,
    dtype: DType,
    /// `[tokens, d]`.
    shape: [usize; 2],
    pooled: Option<usize>,
}

/// An embedding as it is stored: its shape and its bytes.
pub type Embedding = (Vec<usize>, Vec<u8>);

impl TextShard {
    /// Holds a shard against what it must be like.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] with the first thing that does not fit.
    pub(super) fn of(file: ShardFile, layout: &TextLayout) -> Result<Self, DataError> {
        let TextLayout { n_captions: n, dtype, width, pooled } = *layout;
        let checks = file.table("checks", 1).map_err(|error| file.damaged(&error.to_string()))?;
        let tokens = file.tensor("hidden").and_then(|info| info.shape.get(1)).copied().unwrap_or_default();
        let fits = |name: &str, shape: &[usize]| {
            file.tensor(name).is_some_and(|info| info.dtype == stored(dtype) && info.shape == shape)
        };
        let pooled_fits = match pooled {
            Some(width) => fits("pooled", &[n, width]),
            None => file.tensor("pooled").is_none(),
        };
        if tokens == 0 || checks.len() != n || !fits("hidden", &[n, tokens, width]) || !pooled_fits {
            let what = format!("its shapes, which are not those of {n} captions of this model in {dtype}");
            return Err(file.damaged(&what));
        }
        Ok(Self { file, dtype, shape: [tokens, width], pooled })
    }

    /// Type of the numbers.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Tokens of each caption.
    pub fn n_tokens(&self) -> usize {
        self.shape[0]
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Hidden states `[tokens, d]` and pooled embedding `[p]` of a caption, checked.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] if they are not what was written.
    pub fn caption(&self, number: usize) -> Result<(Embedding, Option<Embedding>), DataError> {
        let parts = self.file.parts(&self.places(), number)?;
        let views: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        if self.file.table("checks", 1)?.get(number) != Some(&checksum(&views)) {
            return Err(self.file.damaged(&format!("caption {number}")));
        }
        let shapes = [Some(self.shape.to_vec()), self.pooled.map(|width| vec![width])];
        let mut embeddings = shapes.into_iter().flatten().zip(parts);
        let hidden = embeddings.next().ok_or_else(|| self.file.lacks("hidden"))?;
        Ok((hidden, embeddings.next()))
    }

    /// Asks the kernel to have a caption at hand soon. What is wrong shows when it is read.
    pub fn read_ahead(&self, number: usize) {
        self.file.read_ahead(&self.places(), number);
    }

    /// Where hidden states and pooled embeddings are, and the bytes of one of each.
    fn places(&self) -> Vec<(&TensorInfo, usize)> {
        let length = |n: usize| n * self.dtype.bytes();
        let hidden = self.file.tensor("hidden").map(|info| (info, length(self.shape.iter().product())));
        let pooled = self.file.tensor("pooled").zip(self.pooled.map(length));
        hidden.into_iter().chain(pooled).collect()
    }
}
