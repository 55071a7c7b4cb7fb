//! Weights that files hold in few bits, in each spelling of other tools.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tastemaker_models::ModelError;
use tastemaker_models::nn::{Role, is_large};
use tastemaker_models::pipeline::{Model, save};
use tastemaker_store::dtype::{BasePrecision, DType};
use tastemaker_testkit_torch::Golden;
use tastemaker_torch::quantized::Quantized;
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind, Tensor};

use crate::folders::{WEIGHTS, open, predict, sd1};

/// What a file holds of one weight, by what comes after the layer's name.
type Held = Vec<(&'static str, Tensor)>;

/// A spelling, and what it makes of a weight.
type Spelling<'a> = (&'a str, &'a dyn Fn(&Tensor) -> Held);

fn text(json: &Value) -> Tensor {
    Tensor::from_slice(json.to_string().as_bytes())
}

fn plain_float8(weight: &Tensor) -> Held {
    vec![(".weight", weight.clamp(-448.0, 448.0).to_kind(Kind::Float8e4m3fn))]
}

/// Codes in float8, and a scale under this name.
fn scaled(weight: &Tensor, name: &'static str) -> Held {
    let scale = weight.abs().max() / 448.0;
    vec![(".weight", (weight / &scale).clamp(-448.0, 448.0).to_kind(Kind::Float8e4m3fn)), (name, scale)]
}

fn comfy_before(weight: &Tensor) -> Held {
    let mut held = scaled(weight, ".scale_weight");
    held.push((".scale_input", Tensor::from(2.0f32)));
    held
}

fn comfy_today(weight: &Tensor) -> Held {
    let mut held = scaled(weight, ".weight_scale");
    held.push((
        ".comfy_quant",
        text(&json!({"format": "float8_e4m3fn", "full_precision_matrix_mult": true})),
    ));
    held
}

/// musubi-tuner's blocks along the input.
fn blocks(weight: &Tensor) -> Held {
    let (rows, columns) = weight.size2().unwrap();
    let blocks = weight.reshape([rows, 2, columns / 2]);
    let scales = blocks.abs().amax([2i64], true) / 448.0;
    let codes = (blocks / &scales).clamp(-448.0, 448.0).to_kind(Kind::Float8e4m3fn);
    vec![(".weight", codes.reshape([rows, columns])), (".scale_weight", scales)]
}

fn int8_rows(weight: &Tensor) -> Held {
    let packed = Quantized::pack(weight, BasePrecision::Int8);
    let [codes, scales] = packed.state() else { panic!("codes and scales") };
    let maxima = scales.flatten(0, -1) * 127.0;
    vec![
        (".weight", codes.shallow_clone()),
        (".SCB", maxima),
        (".weight_format", Tensor::zeros([], (Kind::Uint8, Device::Cpu))),
    ]
}

fn nf4(weight: &Tensor, is_nested: bool) -> Held {
    let mut state =
        json!({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": weight.size()});
    let one_column = |codes: &Tensor| codes.reshape([-1, 1]);
    let map = Tensor::zeros([16], (Kind::Float, Device::Cpu));
    let packed = match is_nested {
        true => Quantized::pack(weight, BasePrecision::Nf4),
        false => Quantized::nf4_with_f32_scales(weight),
    };
    let mut held = vec![
        (".weight", one_column(&packed.state()[0])),
        (".weight.absmax", packed.state()[1].shallow_clone()),
        (".weight.quant_map", map),
    ];
    if let [_, _, absmax, code, offset] = packed.state() {
        state["nested_blocksize"] = json!(256);
        state["nested_dtype"] = json!("float32");
        state["nested_offset"] = json!(offset.double_value(&[]) as f32);
        held.push((".weight.nested_absmax", absmax.shallow_clone()));
        held.push((".weight.nested_quant_map", code.shallow_clone()));
    }
    held.push((".weight.quant_state.bitsandbytes__nf4", text(&state)));
    held
}

/// The numbers that a held weight stands for, by arithmetic of its own.
fn stands_for(weight: &Tensor, held: &Held) -> Tensor {
    let at = |name: &str| held.iter().find(|(end, _)| *end == name).map(|(_, tensor)| tensor);
    let codes = &held[0].1;
    if at(".weight.absmax").is_some() {
        let precision = BasePrecision::Nf4;
        return match at(".weight.nested_absmax") {
            Some(_) => Quantized::pack(weight, precision).value(Kind::Float),
            None => Quantized::nf4_with_f32_scales(weight).value(Kind::Float),
        };
    }
    let wide = codes.to_kind(Kind::Float);
    if let Some(maxima) = at(".SCB") {
        return wide * (maxima / 127.0).reshape([-1, 1]);
    }
    match at(".scale_weight").or(at(".weight_scale")) {
        Some(scale) if scale.dim() == 3 => {
            (wide.reshape([scale.size()[0], scale.size()[1], -1]) * scale).reshape(weight.size())
        }
        Some(scale) => wide * scale,
        None => wide,
    }
}

/// Replaces the large matrices of the UNet in a model folder, and gives all its numbers as they then are.
fn replace(model: &Path, hold: &dyn Fn(&Tensor) -> Held, header: &BTreeMap<String, String>) -> Named {
    let path = model.join("unet").join(WEIGHTS);
    let (mut written, mut meant) = (Named::new(), Named::new());
    for (name, tensor) in tensors::read(&path).unwrap() {
        let layer = name.strip_suffix(".weight").filter(|layer| is_large(layer) && tensor.dim() == 2);
        let Some(layer) = layer else {
            written.insert(name.clone(), tensor.shallow_clone());
            meant.insert(name, tensor);
            continue;
        };
        let held = hold(&tensor);
        meant.insert(name.clone(), stands_for(&tensor, &held));
        written.extend(held.into_iter().map(|(end, tensor)| (format!("{layer}{end}"), tensor)));
    }
    tensors::write(&path, &written, header).unwrap();
    meant
}

#[test]
fn a_file_in_few_bits_is_the_model_of_the_numbers_it_stands_for() {
    let golden = Golden::load("models", "unet-sd1");
    let marker =
        Named::from([("scaled_fp8".to_owned(), Tensor::zeros([0], (Kind::Float8e4m3fn, Device::Cpu)))]);
    let about_all = json!({"layers": {"mid_block": {"format": "float8_e4m3fn"}}}).to_string();
    let header = BTreeMap::from([("_quantization_metadata".to_owned(), about_all)]);
    let spellings: [Spelling<'_>; 7] = [
        ("plain float8", &plain_float8),
        ("ComfyUI before", &comfy_before),
        ("ComfyUI today", &comfy_today),
        ("musubi's blocks", &blocks),
        ("bitsandbytes int8", &int8_rows),
        ("bitsandbytes nf4", &|weight| nf4(weight, false)),
        ("bitsandbytes nf4, double", &|weight| nf4(weight, true)),
    ];
    for (what, hold) in spellings {
        let (held, whole) = (sd1(), sd1());
        let meant = replace(held.path(), hold, &header);
        if what == "ComfyUI before" {
            let path = held.path().join("unet").join(WEIGHTS);
            let mut all = tensors::read(&path).unwrap();
            all.extend(marker.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())));
            tensors::write(&path, &all, &BTreeMap::new()).unwrap();
        }
        tensors::write(&whole.path().join("unet").join(WEIGHTS), &meant, &BTreeMap::new()).unwrap();
        let predictions = |role, precision| {
            let of = |model: Model| {
                let unet = model.unet(role, precision, Device::Cpu, None).unwrap();
                predict(&golden, &unet.network)
            };
            (of(open(&held)), of(open(&whole)))
        };
        for (role, precision) in
            [(Role::Frozen, DType::F32), (Role::Frozen, DType::Bf16), (Role::Trained, DType::F32)]
        {
            let (found, wanted) = predictions(role, precision);
            assert!(found.equal(&wanted), "{what}, {role:?}, {precision}");
        }

        // A folder is copied as it is; whoever wants numbers that stand for themselves gets them in bfloat16.
        let copy = held.path().join("copy");
        save(&open(&held), &[], &copy).unwrap();
        let [copied, original] =
            [&copy, held.path()].map(|root| std::fs::read(root.join("unet").join(WEIGHTS)).unwrap());
        assert!(copied == original, "{what}");
        let stored = open(&held).stored("unet").unwrap();
        for tensor in stored.tensors() {
            let wanted = &meant[&tensor.name];
            let is_packed = tensor.name.strip_suffix(".weight").is_some_and(is_large) && wanted.dim() == 2;
            let wanted = if is_packed { wanted.to_kind(Kind::BFloat16) } else { wanted.shallow_clone() };
            let found = tensors::of_view(&tensor.view()).unwrap();
            assert!(found.kind() == wanted.kind() && found.equal(&wanted), "{what}: {}", tensor.name);
        }
        assert_eq!(stored.tensors().count(), meant.len(), "{what}");
    }
}

#[test]
fn float8_kernels_of_convolutions_are_read_too() {
    let (held, whole) = (sd1(), sd1());
    let golden = Golden::load("models", "unet-sd1");
    let path = |folder: &Path| folder.join("unet").join(WEIGHTS);
    let all = tensors::read(&path(held.path())).unwrap();
    let narrow = |wide: bool| -> Named {
        let cast = |tensor: &Tensor| {
            let narrow = tensor.to_kind(Kind::Float8e4m3fn);
            if wide { narrow.to_kind(Kind::Float) } else { narrow }
        };
        all.iter().map(|(name, tensor)| (name.clone(), cast(tensor))).collect()
    };
    tensors::write(&path(held.path()), &narrow(false), &BTreeMap::new()).unwrap();
    tensors::write(&path(whole.path()), &narrow(true), &BTreeMap::new()).unwrap();
    let of = |model: Model| {
        predict(&golden, &model.unet(Role::Frozen, DType::F32, Device::Cpu, None).unwrap().network)
    };
    assert!(of(open(&held)).equal(&of(open(&whole))));
}

#[test]
fn formats_that_are_not_known_and_parts_that_do_not_fit_are_refused() {
    let about = |json: Value| {
        move |weight: &Tensor| {
            let mut held = scaled(weight, ".weight_scale");
            held.push((".comfy_quant", text(&json)));
            held
        }
    };
    let without = |end: &'static str| {
        move |weight: &Tensor| {
            let mut held = nf4(weight, true);
            held.retain(|(name, _)| *name != end);
            held
        }
    };
    let state = |json: Value| {
        move |weight: &Tensor| {
            let mut held = nf4(weight, false);
            held.last_mut().unwrap().1 = text(&json);
            held
        }
    };
    let fp4 = |weight: &Tensor| {
        let mut held = nf4(weight, false);
        held.last_mut().unwrap().0 = ".weight.quant_state.bitsandbytes__fp4";
        held
    };
    let not_a_number = |weight: &Tensor| {
        let mut held = plain_float8(weight);
        held[0].1 =
            Tensor::full(weight.size(), f64::NAN, (Kind::Float, Device::Cpu)).to_kind(Kind::Float8e4m3fn);
        held
    };
    let infinite = |weight: &Tensor| {
        let mut held = scaled(weight, ".scale_weight");
        held[1].1 = Tensor::from(f32::INFINITY);
        held
    };
    let cases: [Spelling<'_>; 12] = [
        ("nvfp4", &about(json!({"format": "nvfp4"}))),
        ("convrot", &about(json!({"format": "int8_tensorwise", "convrot": true}))),
        ("[]", &about(json!([]))),
        ("fp4", &fp4),
        ("blocks of 128", &state(json!({"quant_type": "nf4", "blocksize": 128, "shape": [8, 8]}))),
        ("JSON", &state(json!("nf4"))),
        ("shape", &state(json!({"quant_type": "nf4", "blocksize": 64, "shape": [3, 7]}))),
        ("wanted nf4", &state(json!({"quant_type": "nf4", "blocksize": 64, "shape": [i64::MAX, 7]}))),
        ("absmax", &without(".weight.absmax")),
        ("absmax", &without(".weight.nested_absmax")),
        ("NaN", &not_a_number),
        ("NaN or infinite", &infinite),
    ];
    for (number, (what, hold)) in cases.into_iter().enumerate() {
        let folder = sd1();
        replace_as(folder.path(), hold);
        let built = open(&folder).unet(Role::Frozen, DType::F32, Device::Cpu, None);
        let Err(error) = built else { panic!("{number}: {what} is refused") };
        assert!(matches!(error, ModelError::Config { .. } | ModelError::Weights { .. }), "{number}: {error}");
        assert!(error.to_string().contains(what), "{number}: {what} in {error}");
    }
}

/// As [`replace`], of what stands for nothing.
fn replace_as(model: &Path, hold: &dyn Fn(&Tensor) -> Held) {
    let path = model.join("unet").join(WEIGHTS);
    let mut written = Named::new();
    for (name, tensor) in tensors::read(&path).unwrap() {
        match name.strip_suffix(".weight").filter(|layer| is_large(layer) && tensor.dim() == 2) {
            Some(layer) => {
                let held = hold(&tensor).into_iter();
                written.extend(held.map(|(end, tensor)| (format!("{layer}{end}"), tensor)));
            }
            None => drop(written.insert(name, tensor)),
        }
    }
    tensors::write(&path, &written, &BTreeMap::new()).unwrap();
}
