//! Where one tensor lies in a checkpoint of another layout, and how its bytes get from one to the other.
//!
//! Every change is a rearrangement of whole elements, so any element type goes through and nothing is lost.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tastemaker_weights::safetensors::{Dtype, TensorView};

/// How the stored tensor differs from ours, apart from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Not at all.
    None,
    /// Stored as the kernel of a 1x1 convolution, `[n, m, 1, 1]` for `[n, m]`.
    Pixels,
    /// Stored transposed, `[m, n]` for `[n, m]`.
    Transposed,
    /// Stored with the second half of its rows before the first.
    Swapped,
    /// One of several equal parts that are stored under one name, rows upon rows.
    Rows {
        /// Which part.
        part: usize,
        /// How many there are.
        of: usize,
    },
}

/// A tensor's name and form in a checkpoint of another layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The stored name.
    pub name: String,
    /// The stored form.
    pub change: Change,
}

impl Place {
    /// Another name and nothing else.
    pub fn same(name: &str) -> Self {
        Self { name: name.to_owned(), change: Change::None }
    }

    /// The same place below a prefix.
    pub fn under(self, prefix: &str) -> Self {
        Self { name: format!("{prefix}{}", self.name), ..self }
    }
}

/// Names and shapes of a network's parameters.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// A tensor on its way from one layout to the other; its bytes are borrowed unless they had to be rearranged.
#[derive(Debug, Clone, PartialEq)]
pub struct Moved<'a> {
    /// Its new name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its new shape.
    pub shape: Vec<usize>,
    /// Its elements in row-major order, little-endian.
    pub bytes: Cow<'a, [u8]>,
}

impl Moved<'_> {
    /// To be written.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { name: &self.name, dtype: self.dtype, shape: &self.shape, bytes: &self.bytes }
    }
}

/// The shape under which a tensor of this shape is stored.
fn stored_shape(shape: &[usize], change: Change) -> Vec<usize> {
    match (change, shape) {
        (Change::None | Change::Swapped, _) => shape.to_vec(),
        (Change::Pixels, _) => [shape, &[1, 1]].concat(),
        (Change::Transposed, _) => shape.iter().rev().copied().collect(),
        (Change::Rows { of, .. }, [rows, rest @ ..]) => [&[rows * of], rest].concat(),
        (Change::Rows { .. }, []) => Vec::new(),
    }
}

/// Our tensor of this name and shape out of the stored one.
///
/// # Errors
/// The stored shape if it is another than the change makes of ours.
pub fn restore<'a>(
    name: &str,
    shape: &[usize],
    change: Change,
    stored: &TensorView<'a>,
) -> Result<Moved<'a>, Vec<usize>> {
    if stored.shape != stored_shape(shape, change) {
        return Err(stored.shape.to_vec());
    }
    let bytes = match change {
        Change::None | Change::Pixels => Cow::Borrowed(stored.bytes),
        Change::Transposed => Cow::Owned(transposed(stored)),
        Change::Swapped => Cow::Owned(swapped(stored)),
        Change::Rows { part, of } => {
            let n = stored.bytes.len() / of;
            Cow::Borrowed(&stored.bytes[part * n..(part + 1) * n])
        }
    };
    Ok(Moved { name: name.to_owned(), dtype: stored.dtype, shape: shape.to_vec(), bytes })
}

/// The stored tensor out of ours; parts that share a name come together, in their order.
///
/// # Errors
/// What does not fit together, in words.
pub fn store<'a>(parts: &[(Place, TensorView<'a>)]) -> Result<Moved<'a>, String> {
    let [(place, first), ..] = parts else { return Err("no tensor".to_owned()) };
    let shape = stored_shape(first.shape, place.change);
    let bytes = match place.change {
        Change::None | Change::Pixels if parts.len() == 1 => Cow::Borrowed(first.bytes),
        Change::Transposed if parts.len() == 1 => Cow::Owned(transposed(first)),
        Change::Swapped if parts.len() == 1 => Cow::Owned(swapped(first)),
        Change::Rows { of, .. } => {
            let in_order = (0..of).map(|wanted| {
                parts
                    .iter()
                    .find(|(place, _)| matches!(place.change, Change::Rows { part, .. } if part == wanted))
            });
            let in_order: Option<Vec<_>> = in_order.collect();
            let in_order =
                in_order.ok_or_else(|| format!("{} of {of} parts of `{}`", parts.len(), place.name))?;
            if in_order.iter().any(|(_, view)| view.shape != first.shape || view.dtype != first.dtype) {
                return Err(format!("parts of `{}` with different shapes or types", place.name));
            }
            Cow::Owned(in_order.iter().flat_map(|(_, view)| view.bytes).copied().collect())
        }
        _ => return Err(format!("{} tensors for `{}`", parts.len(), place.name)),
    };
    Ok(Moved { name: place.name.clone(), dtype: first.dtype, shape, bytes })
}

fn swapped(view: &TensorView<'_>) -> Vec<u8> {
    let (first, second) = view.bytes.split_at(view.bytes.len() / 2);
    [second, first].concat()
}

fn transposed(view: &TensorView<'_>) -> Vec<u8> {
    let &[rows, columns] = view.shape else { return view.bytes.to_vec() };
    let size = view.bytes.len() / (rows * columns).max(1);
    let element = |row: usize, column: usize| &view.bytes[(row * columns + column) * size..][..size];
    (0..columns).flat_map(|column| (0..rows).flat_map(move |row| element(row, column))).copied().collect()
}
