//! Shards of captions.
//!
//! | tensor | shape | holds |
//! |---|---|---|
//! | `hidden` | `[n, tokens, d]` | hidden states; `[all tokens, d]`, caption after caption, where captions have lengths of their own |
//! | `lengths` | `[n, 1]` I64 | tokens of each caption, where they do |
//! | `pooled` | `[n, p]` | SDXL's pooled embedding, where there is one |
//! | `checks` | `[n, 1]` I64 | XXH3 over both |

use std::ops::Range;
use std::path::Path;

use tastemaker_store::dtype::DType;
use tastemaker_weights::safetensors::{Dtype, Metadata, TensorView, to_bytes};

use super::shard::{FilePart, ShardFile, bytes_of, checksum, row, stored};
use crate::DataError;

/// Captions in one shard; the last one of a set may have fewer.
pub const CAPTIONS_PER_SHARD: usize = 256;

const LENGTHS: &str = "lengths";

/// Captions, encoded: hidden states `[n, tokens, d]` and, where there are any, pooled embeddings `[n, p]`, as little-endian numbers of
/// one element type.
#[derive(Debug, Clone, Copy)]
pub struct EncodedText<'a> {
    /// The element type.
    pub dtype: DType,
    /// Hidden states: shape and bytes. With `lengths` they are `[all tokens, d]`, caption after caption.
    pub hidden: (&'a [usize], &'a [u8]),
    /// Tokens of each caption, where captions have lengths of their own.
    pub lengths: Option<&'a [i64]>,
    /// Pooled embeddings: shape and bytes.
    pub pooled: Option<(&'a [usize], &'a [u8])>,
}

/// The bytes of a shard.
///
/// # Errors
/// [`StoreError`](tastemaker_store::StoreError) if bytes do not fill the shapes.
pub fn text_shard(text: &EncodedText<'_>) -> Result<Vec<u8>, DataError> {
    let EncodedText { dtype, hidden, lengths, pooled } = *text;
    let n = lengths.map_or_else(|| hidden.0.first().copied().unwrap_or_default(), <[i64]>::len);
    let of_token = dtype.bytes() * hidden.0.last().copied().unwrap_or_default();
    let starts = lengths.map(starts);
    let own = |i: usize| match &starts {
        Some(starts) => {
            let at = |i: usize| starts[i].saturating_mul(of_token).min(hidden.1.len());
            &hidden.1[at(i)..at(i + 1)]
        }
        None => part(hidden.1, i, n),
    };
    let check = |i: usize| checksum(&[own(i), pooled.map_or(&[][..], |(_, bytes)| part(bytes, i, n))]);
    let checks = bytes_of((0..n).map(check));
    let lengths = lengths.map(|lengths| bytes_of(lengths.iter().copied()));
    let (dtype, shape) = (stored(dtype), [n, 1]);
    let table = |name, bytes| TensorView { name, dtype: Dtype::I64, shape: &shape, bytes };
    let mut views = vec![
        TensorView { name: "hidden", dtype, shape: hidden.0, bytes: hidden.1 },
        table("checks", &checks),
    ];
    views.extend(lengths.as_deref().map(|bytes| table(LENGTHS, bytes)));
    views.extend(pooled.map(|(shape, bytes)| TensorView { name: "pooled", dtype, shape, bytes }));
    Ok(to_bytes(Path::new("a shard of a cache"), &views, &Metadata::new())?)
}

/// Part `i` of `n` that are as long.
fn part(bytes: &[u8], i: usize, n: usize) -> &[u8] {
    let length = bytes.len() / n.max(1);
    &bytes[i * length..(i + 1) * length]
}

/// Where each caption starts, in tokens, and where the last ends; negative lengths are none.
fn starts(lengths: &[i64]) -> Vec<usize> {
    let mut end = 0usize;
    let after = lengths.iter().map(|&length| {
        end = end.saturating_add(usize::try_from(length).unwrap_or_default());
        end
    });
    let after: Vec<usize> = after.collect();
    [vec![0], after].concat()
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
    /// Whether captions have lengths of their own.
    pub has_lengths: bool,
    /// Width of the pooled embedding, where there is one.
    pub pooled: Option<usize>,
}

/// A shard that is read.
#[derive(Debug)]
pub struct TextShard {
    file: ShardFile,
    dtype: DType,
    /// Where each caption starts, in tokens, and where the last ends.
    starts: Vec<usize>,
    width: usize,
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
        let TextLayout { n_captions: n, dtype, width, has_lengths, pooled } = *layout;
        let checks = file.table("checks", 1).map_err(|error| file.damaged(&error.to_string()))?;
        let shape = file.tensor("hidden").map_or(&[][..], |info| info.shape.as_slice());
        let fits = |name: &str, shape: &[usize]| {
            file.tensor(name).is_some_and(|info| info.dtype == stored(dtype) && info.shape == shape)
        };
        let starts = match has_lengths {
            true => {
                let lengths = file.table(LENGTHS, 1).map_err(|error| file.damaged(&error.to_string()))?;
                let all_there = lengths.len() == n && lengths.iter().all(|&length| length > 0);
                Some(starts(lengths)).filter(|starts| all_there && starts.last() == shape.first())
            }
            false => {
                let tokens = shape.get(1).copied().unwrap_or_default();
                let even = || (0..=n).map(|i| i * tokens).collect();
                (tokens > 0 && file.tensor(LENGTHS).is_none() && shape.first() == Some(&n)).then(even)
            }
        };
        let pooled_fits = match pooled {
            Some(width) => fits("pooled", &[n, width]),
            None => file.tensor("pooled").is_none(),
        };
        let n_axes = if has_lengths { 2 } else { 3 };
        let hidden_fits = shape.len() == n_axes && shape.last() == Some(&width) && fits("hidden", shape);
        match starts.filter(|_| checks.len() == n && hidden_fits && pooled_fits) {
            Some(starts) => Ok(Self { file, dtype, starts, width, pooled }),
            None => {
                let what =
                    format!("its shapes, which are not those of {n} captions of this model in {dtype}");
                Err(file.damaged(&what))
            }
        }
    }

    /// Type of the numbers.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Tokens of the first caption, and of each where they have no lengths of their own.
    pub fn n_tokens(&self) -> usize {
        self.tokens(0).len()
    }

    /// The tokens of a caption among all of the shard.
    fn tokens(&self, number: usize) -> Range<usize> {
        let at = |i: usize| self.starts.get(i).or(self.starts.last()).copied().unwrap_or_default();
        at(number)..at(number + 1)
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
        let parts = self.file.parts(&self.places(number))?;
        let views: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        if self.file.table("checks", 1)?.get(number) != Some(&checksum(&views)) {
            return Err(self.file.damaged(&format!("caption {number}")));
        }
        let hidden = vec![self.tokens(number).len(), self.width];
        let shapes = [Some(hidden), self.pooled.map(|width| vec![width])];
        let mut embeddings = shapes.into_iter().flatten().zip(parts);
        let hidden = embeddings.next().ok_or_else(|| self.file.lacks("hidden"))?;
        Ok((hidden, embeddings.next()))
    }

    /// Asks the kernel to have a caption at hand soon. What is wrong shows when it is read.
    pub fn read_ahead(&self, number: usize) {
        self.file.read_ahead(&self.places(number));
    }

    /// Where hidden states and pooled embedding of a caption are.
    fn places(&self, number: usize) -> Vec<FilePart<'_>> {
        let length = |n: usize| n * self.dtype.bytes();
        let Range { start, end } = self.tokens(number);
        let own = length(start * self.width)..length(end * self.width);
        let hidden = self.file.tensor("hidden").map(|info| (info, own));
        let pooled = self.file.tensor("pooled").zip(self.pooled);
        let pooled = pooled.map(|(info, width)| row(info, length(width), number));
        hidden.into_iter().chain(pooled).collect()
    }
}
