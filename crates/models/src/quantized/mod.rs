//! Weights that a file holds in few bits, as ComfyUI, musubi-tuner and bitsandbytes write them: recognized by what stands beside them.
//!
//! A frozen linear layer takes its weight as it is; whatever else reads it gets the number that it stands for.

mod keys;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use tastemaker_torch::quantized::Quantized;
use tastemaker_torch::tensors::of_view;
use tastemaker_weights::safetensors::{Dtype, TensorView};
use tch::{Kind, Tensor};

pub(crate) use keys::ABOUT_FILE;
use keys::{
    ABOUT_KEYS, ABOUT_LAYER, MARKER, OF_INPUTS, ROW_LAYOUT, ROW_MAXIMA, SCALED_FORMATS, SCALES, WEIGHT, nf4,
};

/// How a weight is held.
#[derive(Debug, Clone)]
enum Form {
    /// Codes times a scale; times one where there is none.
    Scaled(Option<String>),
    /// Codes times largest absolute values of rows, over 127.
    Rows(String),
    /// Blocks of 4 bits.
    Nf4(State),
}

/// bitsandbytes' JSON about a weight of 4 bits.
#[derive(Debug, Clone, Deserialize)]
struct State {
    quant_type: String,
    blocksize: i64,
    shape: Vec<i64>,
    nested_blocksize: Option<i64>,
    nested_offset: Option<f32>,
}

/// The weights of few bits in a file, by the names they have there.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFewBits {
    forms: BTreeMap<String, Form>,
    beside: BTreeSet<String>,
}

impl InFewBits {
    /// Looks through the names of a file, or of a component's shards. `about` is the header's entry [`ABOUT_FILE`].
    ///
    /// # Errors
    /// A format that is not known, in words.
    pub fn of<'a>(
        names: impl Iterator<Item = &'a str>,
        get: impl Fn(&str) -> Option<TensorView<'a>>,
        about: Option<&str>,
    ) -> Result<Self, String> {
        let mut found = Self::default();
        if let Some(about) = about {
            let about: Value =
                serde_json::from_str(about).map_err(|error| format!("its {ABOUT_FILE} is {error}"))?;
            let layers = about.get("layers").and_then(Value::as_object);
            for (layer, about) in layers.into_iter().flatten() {
                scaled_format(layer, about)?;
            }
        }
        for name in names {
            let view = get(name);
            let dtype = view.as_ref().map(|view| view.dtype);
            let is_there = |name: &str| get(name).is_some();
            if name.rsplit('.').next() == Some(MARKER) {
                found.beside.insert(name.to_owned());
            } else if let Some(layer) = SCALES.iter().find_map(|end| name.strip_suffix(end)) {
                let weight = format!("{layer}{WEIGHT}");
                if is_there(&weight) {
                    found.forms.insert(weight, Form::Scaled(Some(name.to_owned())));
                    found.beside.insert(name.to_owned());
                }
            } else if let Some(layer) = OF_INPUTS.iter().find_map(|end| name.strip_suffix(end)) {
                if is_there(&format!("{layer}{WEIGHT}")) {
                    found.beside.insert(name.to_owned());
                }
            } else if let Some(layer) = name.strip_suffix(ABOUT_LAYER) {
                let json = view.map(|view| serde_json::from_slice::<Value>(view.bytes));
                scaled_format(layer, &json.and_then(Result::ok).unwrap_or_default())?;
                found.beside.insert(name.to_owned());
            } else if let Some(layer) = name.strip_suffix(ROW_MAXIMA) {
                found.forms.insert(format!("{layer}{WEIGHT}"), Form::Rows(name.to_owned()));
                found.beside.insert(name.to_owned());
            } else if let Some(layer) = name.strip_suffix(ROW_LAYOUT) {
                if view.is_some_and(|view| view.bytes.iter().any(|&byte| byte != 0)) {
                    return Err(format!("`{layer}` is in int8 of a layout other than rows"));
                }
                found.beside.insert(name.to_owned());
            } else if let Some(weight) = name.strip_suffix(nf4::STATE_OF_FP4) {
                return Err(format!("`{weight}` is in bitsandbytes' fp4; wanted nf4"));
            } else if let Some(weight) = name.strip_suffix(nf4::STATE) {
                let state = view.and_then(|view| serde_json::from_slice::<State>(view.bytes).ok());
                let state = state.ok_or_else(|| format!("`{name}` is not the JSON of a weight of 4 bits"))?;
                found.forms.insert(weight.to_owned(), Form::Nf4(state.checked(weight)?));
                let ends = [nf4::STATE, nf4::MAP, nf4::ABSMAX, nf4::NESTED_ABSMAX, nf4::NESTED_MAP];
                found.beside.extend(ends.map(|end| format!("{weight}{end}")));
            } else if dtype.is_some_and(is_float8) {
                // What stands beside it may come first.
                found.forms.entry(name.to_owned()).or_insert(Form::Scaled(None));
            }
        }
        Ok(found)
    }

    /// Whether a name is of something that stands beside a weight.
    pub fn stands_beside(&self, name: &str) -> bool {
        self.beside.contains(name)
    }

    /// Whether the tensor of this name is in few bits.
    pub fn holds(&self, name: &str) -> bool {
        self.forms.contains_key(name)
    }

    /// The shape of the weight that the tensor stands for.
    pub fn shape(&self, view: &TensorView<'_>) -> Vec<usize> {
        match self.forms.get(view.name) {
            Some(Form::Nf4(state)) => state.shape.iter().map(|&n| n as usize).collect(),
            _ => view.shape.to_vec(),
        }
    }

    /// The matrix of this name as it is held, or of several that are stored upon each other the `part`-th `of` them.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn matrix<'a>(
        &self,
        view: &TensorView<'a>,
        get: impl Fn(&str) -> Option<TensorView<'a>>,
        (part, of): (i64, i64),
    ) -> Result<Quantized, String> {
        let found = self.whole(view, &get)?;
        let [rows, _] = found.size();
        if of == 1 {
            return Ok(found);
        }
        let n = rows / of;
        let cut = |tensor: &Tensor| match tensor.size().first() {
            Some(&first) if first == rows => tensor.narrow(0, part * n, n),
            _ => tensor.shallow_clone(),
        };
        let [codes, scales] = found.state() else { return Err("blocks go over the end of rows".to_owned()) };
        Quantized::scaled(cut(codes).contiguous(), cut(scales))
    }

    fn whole<'a>(
        &self,
        view: &TensorView<'a>,
        get: &impl Fn(&str) -> Option<TensorView<'a>>,
    ) -> Result<Quantized, String> {
        let form = self.forms.get(view.name).ok_or("not in few bits")?;
        let read = |name: &str| {
            let view = get(name).ok_or_else(|| format!("`{name}` is missing"))?;
            of_view(&view).ok_or_else(|| format!("`{name}` is of type {}", view.dtype))
        };
        let codes = of_view(view).ok_or_else(|| format!("codes of type {}", view.dtype))?;
        let rows = codes.size().first().copied().unwrap_or(1);
        // Kernels of convolutions, too, are codes times scales.
        let flat = |codes: Tensor| codes.reshape([rows, -1]);
        match form {
            Form::Scaled(None) => Quantized::scaled(flat(codes), Tensor::from(1.0f32)),
            Form::Scaled(Some(scale)) => {
                let scale = read(scale)?;
                let by_rows = scale.numel() as i64 == rows && rows > 1 && scale.dim() != 3;
                Quantized::scaled(flat(codes), if by_rows { scale.reshape([rows, 1]) } else { scale })
            }
            Form::Rows(maxima) => {
                let scales = read(maxima)?.to_kind(Kind::Float) / 127.0;
                let scales = scales.f_reshape([rows, 1]).map_err(|_| "a maximum for each row is wanted")?;
                Quantized::scaled(flat(codes), scales)
            }
            Form::Nf4(state) => {
                let at = |end: &str| read(&format!("{}{end}", view.name));
                let nested = match state.nested_offset {
                    None => None,
                    Some(offset) => {
                        Some([at(nf4::NESTED_ABSMAX)?, at(nf4::NESTED_MAP)?, Tensor::from(offset)])
                    }
                };
                let rows = state.shape[0];
                let columns = state.shape[1..].iter().product();
                Quantized::nf4((rows, columns), &codes, at(nf4::ABSMAX)?, nested)
            }
        }
    }
}

impl State {
    fn checked(self, weight: &str) -> Result<Self, String> {
        let wanted = "wanted nf4 in blocks of 64, its scales in blocks of 256";
        let blocks = self.blocksize == 64 && self.nested_blocksize.is_none_or(|n| n == 256);
        let n = self.shape.iter().try_fold(1i64, |n, &side| n.checked_mul(side)).filter(|&n| n > 0);
        let sides = self.shape.iter().all(|&side| side > 0) && self.shape.len() >= 2;
        match self.quant_type == "nf4" && blocks && sides && n.is_some() {
            true => Ok(self),
            false => Err(format!(
                "`{weight}` is {} of shape {:?} in blocks of {}, its scales in blocks of {}; {wanted}",
                self.quant_type,
                self.shape,
                self.blocksize,
                self.nested_blocksize.unwrap_or(256)
            )),
        }
    }
}

/// ComfyUI's JSON about a layer must say a format in which a weight is codes times a scale, and nothing that is not known.
fn scaled_format(layer: &str, about: &Value) -> Result<(), String> {
    let format = about.get("format").and_then(Value::as_str).unwrap_or("an unknown format");
    let mut keys = about.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    if SCALED_FORMATS.contains(&format) && keys.all(|key| ABOUT_KEYS.contains(&key)) {
        return Ok(());
    }
    Err(format!("`{layer}` is in {about}; wanted format {} and nothing else", SCALED_FORMATS.join(", ")))
}

/// Whether numbers of this type are never computed with.
pub(crate) fn is_float8(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2)
}
