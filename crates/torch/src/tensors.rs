//! Tensors from and to safetensors files.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use tastemaker_store::atomic::Staged;
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::tree::{Blob, LocalFile};
use tastemaker_weights::safetensors::{
    self as files, Dtype, Header, Outline, SafeTensorsFile, TensorInfo, TensorView,
};
use tastemaker_weights::{WeightFile, check_finite};
use tch::{Device, Kind, Tensor};

use crate::TorchError;

/// Named tensors, sorted by name.
pub type Named = BTreeMap<String, Tensor>;

/// Reads every tensor of one safetensors file to the host, in the file's own element types.
///
/// # Errors
/// The store's errors for a file that is missing or malformed; [`TorchError::ElementType`].
pub fn read(path: &Path) -> Result<Named, TorchError> {
    let file = SafeTensorsFile::open(path)?;
    owned(path, file.tensors())
}

/// Reads every tensor of a file of weights, in either format: each element is a finite number, of a type that is computed with; float8
/// becomes f32.
///
/// # Errors
/// As [`read`], and the store's error naming a tensor that holds anything else.
pub fn read_weights(path: &Path) -> Result<Named, TorchError> {
    let file = WeightFile::open(path)?;
    file.tensors().try_for_each(|view| check_finite(path, &view))?;
    let found = owned(path, file.tensors())?;
    Ok(found.into_iter().map(|(name, tensor)| (name, computed_with(tensor))).collect())
}

/// A tensor in a type that is computed with.
fn computed_with(tensor: Tensor) -> Tensor {
    match tensor.kind() {
        Kind::Float8e4m3fn | Kind::Float8e5m2 => tensor.to_kind(Kind::Float),
        _ => tensor,
    }
}

/// [`read`], and the strings of the file's header.
///
/// # Errors
/// As [`read`].
pub fn read_with_metadata(path: &Path) -> Result<(Named, BTreeMap<String, String>), TorchError> {
    let file = SafeTensorsFile::open(path)?;
    let metadata = file.metadata().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok((owned(path, file.tensors())?, metadata))
}

/// A tensor of the host on a device; the same one where that is the host. The copy is made from memory that the kernel keeps in its place,
/// and nobody waits for it.
pub fn upload(tensor: &Tensor, device: Device) -> Tensor {
    match device {
        Device::Cuda(_) => tensor.pin_memory(device).to_device_(device, tensor.kind(), true, false),
        _ => tensor.to_device(device),
    }
}

/// Images on a device, -1 for black and 1 for full intensity, from the bytes of their pixels: these are what is brought there.
///
/// # Shapes
/// Each image `height * width * 3` bytes, row-major; result `[images, 3, height, width]` f32.
///
/// # Panics
/// If an image has another number of bytes.
pub fn pixels<'a>(
    images: impl Iterator<Item = &'a [u8]>,
    (width, height): (u32, u32),
    device: Device,
) -> Tensor {
    let bytes: Vec<u8> = images.flatten().copied().collect();
    let bytes = Tensor::from_slice(&bytes).reshape([-1, i64::from(height), i64::from(width), 3]);
    let there = upload(&bytes, device).permute([0, 3, 1, 2]).contiguous().to_kind(Kind::Float);
    // Divided by a tensor: by a number, CUDA multiplies with its reciprocal.
    there / Tensor::full([1], 127.5, (Kind::Float, device)) - 1.0
}

/// Whether every element of a tensor is a finite number.
pub fn is_finite(tensor: &Tensor) -> bool {
    if tensor.numel() == 0 || !tensor.is_floating_point() {
        return true;
    }
    let tensor = computed_with(tensor.detach());
    // NaN is both the least and the largest of any numbers.
    let (least, largest) = tensor.aminmax(None, false);
    least.double_value(&[]).is_finite() && largest.double_value(&[]).is_finite()
}

/// A safetensors file whose tensors are read one at a time, so that it is never in memory as a whole. It is read and not mapped: one
/// that is cut short meanwhile has no tensor, and does not end the process.
#[derive(Debug)]
pub struct OneByOne {
    header: Header,
    file: LocalFile,
}

impl OneByOne {
    /// Opens a file.
    ///
    /// # Errors
    /// The store's errors for a file that is missing or malformed.
    pub fn open(path: &Path) -> Result<Self, TorchError> {
        Ok(Self { header: Header::read(path)?, file: LocalFile::open(path)? })
    }

    /// A string of the file's header.
    pub fn metadata(&self, key: &str) -> Option<String> {
        self.header.metadata.get(key).cloned()
    }

    /// The tensor of this name on the host; `None` if there is none, or none of an element type that is used here.
    pub fn read(&self, name: &str) -> Option<Tensor> {
        let TensorInfo { name, dtype, shape, range } = self.header.get(name)?;
        let start = (self.header.data_start + range.start) as u64;
        let bytes = self.file.read_at(start, range.len()).ok()?;
        to_tensor(self.file.place(), &TensorView { name, dtype: *dtype, shape, bytes: &bytes }).ok()
    }

    /// Whether its tensors are those that [`write_sealed`] wrote; of a file without a checksum nobody knows, and it does.
    pub fn holds(&self) -> bool {
        let Some(wanted) = self.header.metadata.get(SEAL) else { return true };
        let lines = self.header.tensors.iter().map(|TensorInfo { name, dtype, shape, range }| {
            let start = (self.header.data_start + range.start) as u64;
            let bytes = self.file.read_at(start, range.len()).unwrap_or_default();
            line(&TensorView { name, dtype: *dtype, shape, bytes: &bytes })
        });
        seal(lines) == *wanted
    }

    /// Elements of an f32 tensor of one dimension, little-endian; `None` if it is another one, or has fewer.
    pub fn read_f32(&self, name: &str, part: Range<usize>) -> Option<Vec<u8>> {
        let TensorInfo { dtype, shape, range, .. } = self.header.get(name)?;
        let fits = *dtype == Dtype::F32 && shape.len() == 1 && part.start <= part.end && part.end <= shape[0];
        let start = (self.header.data_start + range.start + 4 * part.start) as u64;
        fits.then(|| self.file.read_at(start, 4 * part.len()).ok())?
    }
}

fn owned<'a>(path: &Path, views: impl Iterator<Item = TensorView<'a>>) -> Result<Named, TorchError> {
    views.map(|view| Ok((view.name.to_owned(), to_tensor(path, &view)?))).collect()
}

/// The tensor of a view on the host; `None` for an element type that libtorch lacks.
pub fn of_view(view: &TensorView<'_>) -> Option<Tensor> {
    let shape: Vec<i64> = view.shape.iter().map(|&n| n as i64).collect();
    Tensor::f_from_data_size(view.bytes, &shape, kind_of(view.dtype)?).ok()
}

fn to_tensor(path: &Path, view: &TensorView<'_>) -> Result<Tensor, TorchError> {
    let kind = kind_of(view.dtype).ok_or_else(|| TorchError::ElementType {
        path: path.to_owned(),
        name: view.name.to_owned(),
        dtype: format!("{:?}", view.dtype),
    })?;
    let shape: Vec<i64> = view.shape.iter().map(|&n| n as i64).collect();
    Ok(Tensor::f_from_data_size(view.bytes, &shape, kind)?)
}

/// The entry of a header that holds the checksum of a sealed file's tensors.
const SEAL: &str = "checksum";

/// [`write()`] with a checksum of names, types, shapes and values in the header, which [`OneByOne::holds`] compares.
///
/// # Errors
/// As [`write()`].
pub fn write_sealed(
    path: &Path,
    tensors: &Named,
    metadata: &BTreeMap<String, String>,
) -> Result<(), TorchError> {
    let mut metadata = metadata.clone();
    let line = |outline: &Outline| {
        let tensor = on_host(&tensors[&outline.name]);
        let Outline { name, dtype, shape } = outline;
        line(&TensorView { name, dtype: *dtype, shape, bytes: bytes_of(&tensor) })
    };
    metadata.insert(SEAL.to_owned(), seal(outlines(path, tensors)?.iter().map(line)));
    write(path, tensors, &metadata)
}

/// One tensor of a sealed file, in a line.
fn line(TensorView { name, dtype, shape, bytes }: &TensorView<'_>) -> String {
    format!("{name} {dtype} {shape:?} {}\n", sha256_bytes(bytes))
}

fn seal(lines: impl Iterator<Item = String>) -> String {
    sha256_bytes(lines.collect::<String>().as_bytes())
}

/// Writes tensors to one safetensors file, sorted by name, atomically.
///
/// Tensors are brought to the host and stored in their own element types; `metadata` goes into the header.
///
/// # Errors
/// The store's errors for a place that cannot be written; [`TorchError::ElementType`].
pub fn write(path: &Path, tensors: &Named, metadata: &BTreeMap<String, String>) -> Result<(), TorchError> {
    Ok(stage(path, tensors, metadata)?.finish()?)
}

/// [`write()`], up to where the file would be synced and put into its place. It is hashed while it is written. Tensors come to the host
/// one after the other: what is written takes no more memory than the largest of them, and none where it is on the host already.
///
/// # Errors
/// As [`write()`].
pub fn stage(
    path: &Path,
    tensors: &Named,
    metadata: &BTreeMap<String, String>,
) -> Result<Staged, TorchError> {
    let bytes =
        |outline: &Outline, out: &mut dyn Write| out.write_all(bytes_of(&on_host(&tensors[&outline.name])));
    Ok(files::stage(path, outlines(path, tensors)?, metadata, bytes)?)
}

/// [`write()`] in another element type, to which each tensor is brought as it is written.
///
/// # Errors
/// As [`write()`].
pub fn write_as(
    path: &Path,
    tensors: &Named,
    kind: Kind,
    metadata: &BTreeMap<String, String>,
) -> Result<(), TorchError> {
    let dtype = dtype_of(kind).ok_or_else(|| TorchError::ElementType {
        path: path.to_owned(),
        name: "all tensors".to_owned(),
        dtype: format!("{kind:?}"),
    })?;
    let outline =
        |(name, tensor): (&String, &Tensor)| Outline { name: name.clone(), dtype, shape: shape_of(tensor) };
    let bytes = |outline: &Outline, out: &mut dyn Write| {
        out.write_all(bytes_of(&on_host(&tensors[&outline.name].detach().to_kind(kind))))
    };
    Ok(files::stage(path, tensors.iter().map(outline).collect(), metadata, bytes)?.finish()?)
}

fn outlines(path: &Path, tensors: &Named) -> Result<Vec<Outline>, TorchError> {
    let outline = |(name, tensor): (&String, &Tensor)| {
        Ok(Outline { name: name.clone(), dtype: stored_as(path, name, tensor)?, shape: shape_of(tensor) })
    };
    tensors.iter().map(outline).collect()
}

fn shape_of(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&n| n as usize).collect()
}

/// A tensor on the host and without gaps; the same one where it is.
fn on_host(tensor: &Tensor) -> Tensor {
    tensor.detach().to_device(Device::Cpu).contiguous()
}

/// The elements of a tensor on the host, where they are: state of gigabytes is written without a second copy of it.
///
/// # Panics
/// If the tensor is elsewhere or has gaps.
fn bytes_of(tensor: &Tensor) -> &[u8] {
    assert!(tensor.device() == Device::Cpu && tensor.is_contiguous(), "a tensor on the host without gaps");
    let n_bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
    if n_bytes == 0 {
        return &[];
    }
    #[expect(unsafe_code, reason = "libtorch owns the memory behind a tensor")]
    // SAFETY: the tensor is contiguous on the host, so that many bytes lie behind its pointer; it outlives the slice, and every
    // value of a byte is valid. Whoever writes tensors to a file does not change them meanwhile.
    unsafe {
        std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), n_bytes)
    }
}

fn stored_as(path: &Path, name: &str, tensor: &Tensor) -> Result<Dtype, TorchError> {
    dtype_of(tensor.kind()).ok_or_else(|| TorchError::ElementType {
        path: path.to_owned(),
        name: name.to_owned(),
        dtype: format!("{:?}", tensor.kind()),
    })
}

/// The bytes that [`write()`] would write; `path` is for errors.
///
/// # Errors
/// [`TorchError::ElementType`], and the store's error for names that cannot be stored.
pub fn to_bytes(
    path: &Path,
    tensors: &Named,
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, TorchError> {
    let stored = raw(path, tensors)?;
    Ok(files::to_bytes(path, &views(&stored), metadata)?)
}

/// A tensor as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its elements in row-major order, little-endian.
    pub bytes: Vec<u8>,
}

impl Raw {
    /// To be written.
    pub fn view(&self) -> TensorView<'_> {
        TensorView { name: &self.name, dtype: self.dtype, shape: &self.shape, bytes: &self.bytes }
    }
}

fn views(stored: &[Raw]) -> Vec<TensorView<'_>> {
    stored.iter().map(Raw::view).collect()
}

/// The bytes of tensors, sorted by name; `path`, where they are to go, is for errors.
///
/// # Errors
/// [`TorchError::ElementType`].
pub fn raw(path: &Path, tensors: &Named) -> Result<Vec<Raw>, TorchError> {
    tensors
        .iter()
        .map(|(name, tensor)| {
            let tensor = on_host(tensor);
            let (dtype, shape) = (stored_as(path, name, &tensor)?, shape_of(&tensor));
            let n_elements = tensor.numel();
            let mut bytes = vec![0u8; n_elements * tensor.kind().elt_size_in_bytes()];
            tensor.f_copy_data_u8(&mut bytes, n_elements)?;
            Ok(Raw { name: name.clone(), dtype, shape, bytes })
        })
        .collect()
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        Dtype::F8_E4M3 => Kind::Float8e4m3fn,
        Dtype::F8_E5M2 => Kind::Float8e5m2,
        _ => return None,
    })
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Double => Dtype::F64,
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Int => Dtype::I32,
        Kind::Int16 => Dtype::I16,
        Kind::Int8 => Dtype::I8,
        Kind::Uint8 => Dtype::U8,
        Kind::Bool => Dtype::BOOL,
        Kind::Float8e4m3fn => Dtype::F8_E4M3,
        Kind::Float8e5m2 => Dtype::F8_E5M2,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn black_is_minus_one_white_is_one_and_channels_come_before_rows_and_columns() {
        let bytes: Vec<u8> = (0..=255).flat_map(|byte| [byte, 255 - byte, 51]).collect();
        let found = pixels([bytes.as_slice(), &bytes].into_iter(), (128, 2), Device::Cpu);
        assert_eq!(found.size(), [2, 3, 2, 128]);
        let found = Vec::<f32>::try_from(found.get(1).reshape([-1])).unwrap();
        for (at, byte) in (0..=255).enumerate() {
            let wanted = |byte: u8| f32::from(byte) / 127.5 - 1.0;
            assert_eq!([0, 256, 512].map(|channel| found[channel + at]), [byte, 255 - byte, 51].map(wanted));
        }
        assert_eq!((found[0], found[256]), (-1.0, 1.0));
    }

    #[test]
    fn a_flipped_bit_in_a_sealed_file_is_found_or_changes_no_number() {
        let folder = std::env::temp_dir().join(format!("tastemaker-sealed-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("weights.safetensors");
        let tensors = Named::from([
            ("a".to_owned(), Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0]).reshape([2, 2])),
            ("b".to_owned(), Tensor::from_slice(&[7i64])),
        ]);
        write_sealed(&path, &tensors, &[("step".to_owned(), "3".to_owned())].into()).unwrap();
        assert!(OneByOne::open(&path).unwrap().holds());
        let whole = fs::read(&path).unwrap();
        for bit in 0..8 * whole.len() {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bytes).unwrap();
            let Ok(file) = OneByOne::open(&path) else { continue };
            let same = |(name, tensor): (&String, &Tensor)| {
                file.read(name).is_some_and(|found| found.kind() == tensor.kind() && found.equal(tensor))
            };
            assert!(!file.holds() || tensors.iter().all(same), "bit {bit}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
