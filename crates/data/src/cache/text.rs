//! Shards of captions.
//!
//! | tensor | shape | holds |
//! |---|---|---|
//! | `hidden` | `[n, tokens, d]` | hidden states |
//! | `pooled` | `[n, p]` | SDXL's pooled embedding, where there is one |
//! | `checks` | `[n, 1]` I64 | XXH3 over both |

use std::path::Path;

use tastemaker_store::dtype::DType;
use tastemaker_weights::safetensors::{Bytes, Dtype, Metadata, SafeTensorsFile, TensorView, to_bytes};

use super::rows::{bytes_of, checksum, dtype_of, malformed, stored, table, tensor};
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

/// A shard that is read.
#[derive(Debug)]
pub struct TextShard {
    file: SafeTensorsFile,
    checks: Vec<i64>,
}

/// An embedding as it is stored: its shape and its bytes.
pub type Embedding<'a> = (Vec<usize>, &'a [u8]);

impl TextShard {
    /// Over the bytes of a shard; `path` is for errors.
    ///
    /// # Errors
    /// [`StoreError::Malformed`](tastemaker_store::StoreError::Malformed).
    pub fn over(path: &Path, bytes: Bytes) -> Result<Self, DataError> {
        let file = SafeTensorsFile::over(path, bytes)?;
        let checks = table(&file, "checks", 1)?;
        let n = checks.len();
        for view in [Some(tensor(&file, "hidden")?), file.get("pooled")].into_iter().flatten() {
            if view.shape.first() != Some(&n) || n == 0 || dtype_of(view.dtype).is_none() {
                let found = format!("`{}` of type {} and shape {:?}", view.name, view.dtype, view.shape);
                return Err(malformed(path, found, &format!("numbers for {n} captions")).into());
            }
        }
        Ok(Self { file, checks })
    }

    /// How many captions there are.
    pub fn len(&self) -> usize {
        self.checks.len()
    }

    /// Whether there are none; never.
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }

    /// Type of the numbers.
    pub fn dtype(&self) -> DType {
        self.file.get("hidden").and_then(|view| dtype_of(view.dtype)).unwrap_or_default()
    }

    /// Hidden states `[tokens, d]` and pooled embedding `[p]` of a caption, checked.
    ///
    /// # Errors
    /// [`DataError::DamagedCache`] if they are not what was written.
    pub fn caption(&self, number: usize) -> Result<(Embedding<'_>, Option<Embedding<'_>>), DataError> {
        let damaged = || DataError::DamagedCache {
            path: self.file.path().to_owned(),
            what: format!("caption {number}"),
        };
        let row = |name: &str| {
            let view = self.file.get(name)?;
            let length = view.bytes.len() / self.checks.len();
            let bytes = view.bytes.get(number * length..(number + 1) * length)?;
            Some((view.shape[1..].to_vec(), bytes))
        };
        let hidden = row("hidden").ok_or_else(damaged)?;
        let pooled = row("pooled");
        let found = checksum(&[hidden.1, pooled.as_ref().map_or(&[][..], |pooled| pooled.1)]);
        if self.checks.get(number) != Some(&found) {
            return Err(damaged());
        }
        Ok((hidden, pooled))
    }
}
