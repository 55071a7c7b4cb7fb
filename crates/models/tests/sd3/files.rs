//! Single files and adapters: there and back, and what is missing in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use tastemaker_math::Prediction;
use tastemaker_models::adapters::{FILE_NAME, KohyaFacts, LoraFile, LoraNames};
use tastemaker_models::backbone::BackboneConfig;
use tastemaker_models::original::{ComponentMap, Layout};
use tastemaker_models::pipeline::{Model, ModelSources, SingleFile, pack, save};
use tastemaker_models::place::Change;
use tastemaker_testkit_torch::{Golden, golden_dir};
use tastemaker_torch::tensors::{self, Named};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use crate::bench::folder;
use crate::stored::{assert_same, weights};

/// What a file holds without the parts whose names begin so.
fn without(file: &Named, prefixes: &[&str]) -> Named {
    let kept = file.iter().filter(|(name, _)| !prefixes.iter().any(|prefix| name.starts_with(prefix)));
    kept.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

#[test]
fn a_model_comes_back_from_a_single_file_bit_for_bit() {
    let golden = Golden::load("sd3", "pipeline");
    let (folder, scratch) = (folder(&golden, true), TempDir::new().unwrap());
    let file = scratch.path().join("single.safetensors");
    let model = Model::open(folder.path()).unwrap();
    assert_eq!(pack(&model, &[], &file, &BTreeMap::new()).unwrap(), Layout::Sd3);

    let config = Some(folder.path().to_owned());
    let sources = ModelSources { config, ..ModelSources::of(&file) };
    let held = Model::from_sources(&sources).unwrap();
    let back = scratch.path().join("back");
    save(&held, &[], &back).unwrap();
    let back = Model::open(&back).unwrap();
    for component in ["transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"] {
        assert_same(&held, &model, component);
        assert_same(&back, &model, component);
    }
    assert_eq!(back.schedule().unwrap().schedule, model.schedule().unwrap().schedule);
}

#[test]
fn every_tensor_of_the_published_transformer_lies_where_diffusers_finds_it() {
    let map = ComponentMap::backbone(&Layout::Sd3.published_backbone()).unwrap();
    let mut found = String::new();
    for (ours, _, place) in map.entries() {
        let change = match place.change {
            Change::None => "same".to_owned(),
            Change::Swapped => "swapped".to_owned(),
            Change::Rows { part, .. } => format!("rows {part}"),
            other => panic!("{other:?}"),
        };
        found += &format!("transformer\t{ours}\t{}\t{change}\n", place.name);
    }
    let wanted = fs::read_to_string(golden_dir("original", "sd3.tsv")).unwrap();
    let differs = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
    assert_eq!(differs, None);
    assert_eq!(found.lines().count(), wanted.lines().count());
}

#[test]
fn text_encoders_and_vae_that_a_file_skips_come_from_the_folder_that_describes_it() {
    let golden = Golden::load("sd3", "pipeline");
    let (folder, scratch) = (folder(&golden, true), TempDir::new().unwrap());
    let model = Model::open(folder.path()).unwrap();
    let whole = scratch.path().join("whole.safetensors");
    pack(&model, &[], &whole, &BTreeMap::new()).unwrap();
    let whole = tensors::read(&whole).unwrap();
    let published = without(&whole, &["text_encoders."]);
    let prefix = published.keys().find_map(|name| name.split_once("joint_blocks.")).unwrap().0.to_owned();
    let own = published.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor)));
    let alone: Named = own.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
    for (what, tensors) in [("published", &published), ("alone", &alone)] {
        let file = scratch.path().join(format!("{what}.safetensors"));
        tensors::write(&file, tensors, &BTreeMap::new()).unwrap();
        let config = Some(folder.path().to_owned());
        let held = Model::from_sources(&ModelSources { config, ..ModelSources::of(&file) }).unwrap();
        for component in ["transformer", "vae", "text_encoder", "text_encoder_3"] {
            assert_same(&held, &model, component);
        }
    }
}

#[test]
fn the_sizes_of_a_transformer_are_read_off_its_tensors() {
    let golden = Golden::load("sd3", "pipeline");
    let (folder, scratch) = (folder(&golden, true), TempDir::new().unwrap());
    let model = Model::open(folder.path()).unwrap();
    let file = scratch.path().join("single.safetensors");
    pack(&model, &[], &file, &BTreeMap::new()).unwrap();
    let preset = SingleFile::open(&file).unwrap().preset().unwrap();
    let mut wanted = golden.json("transformer.json");
    let mut found = preset.configs["transformer"].clone();
    // The side that a model was made for stands in no tensor.
    for config in [&mut wanted, &mut found] {
        let entries = config.as_object_mut().unwrap();
        ["sample_size", "_diffusers_version", "dtype"].iter().for_each(|key| drop(entries.remove(*key)));
    }
    assert_eq!(found, wanted);
    let refused = Model::open(&file).unwrap_err().to_string();
    assert!(
        refused.contains("`text_encoders.t5xxl.transformer....`")
            && refused.contains("--model_config FOLDER"),
        "{refused}"
    );
}

#[test]
fn embeddings_under_either_name_or_both_are_read() {
    let golden = Golden::load("sd3", "pipeline");
    let (folder, name) = (folder(&golden, true), "text_encoder_3/model.safetensors");
    let wanted = weights(&Model::open(folder.path()).unwrap(), "text_encoder_3");
    for twin_alone in [false, true] {
        let path = folder.path().join(name);
        let mut stored = tensors::read(&path).unwrap();
        let embeddings = stored["shared.weight"].shallow_clone();
        stored.insert("encoder.embed_tokens.weight".to_owned(), embeddings);
        if twin_alone {
            stored.remove("shared.weight");
        }
        fs::remove_file(&path).unwrap();
        tensors::write(&path, &stored, &BTreeMap::new()).unwrap();
        let found = weights(&Model::open(folder.path()).unwrap(), "text_encoder_3");
        assert!(found.keys().eq(wanted.keys()), "{twin_alone}");
        assert!(found["shared.weight"].equal(&wanted["shared.weight"]), "{twin_alone}");
    }
}

#[test]
fn kohyas_adapters_of_joined_layers_come_apart_as_the_weights_do() {
    let config = Layout::Sd3.published_backbone();
    let BackboneConfig::Mmdit(sizes) = &config else { panic!("SD3 has a transformer") };
    let (width, rank) = (sizes.width(), 2);
    let drawn = |shape: &[i64], start: f64| {
        let n: i64 = shape.iter().product();
        (Tensor::arange(n, (Kind::Float, Device::Cpu)) + start).sin().reshape(shape)
    };
    let last = sizes.num_layers - 1;
    let kohya = ["lora", "unet", "joint", "blocks", ""].join("_");
    let mut stored = Named::new();
    let layers = [
        (format!("{kohya}0_x_block_attn_qkv"), 3 * width),
        (format!("{kohya}1_context_block_attn_qkv"), 3 * width),
        (format!("{kohya}{last}_context_block_adaLN_modulation_1"), 2 * width),
        (format!("{kohya}0_x_block_attn2_proj"), width),
    ];
    for (number, (layer, rows)) in layers.iter().enumerate() {
        stored.insert(format!("{layer}.lora_down.weight"), drawn(&[rank, width], number as f64));
        stored.insert(format!("{layer}.lora_up.weight"), drawn(&[*rows, rank], number as f64 + 0.5));
        stored.insert(format!("{layer}.alpha"), Tensor::from(1.0f32));
    }
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("kohya.safetensors");
    tensors::write(&path, &stored, &BTreeMap::new()).unwrap();
    let (file, names, layout) = LoraFile::open(&path).unwrap();
    assert_eq!((file.component, names, layout), ("transformer", LoraNames::Kohya, Some(Layout::Sd3)));
    let up = |layer: &str| file.unet.tensors[&format!("{layer}.lora_B.weight")].shallow_clone();
    let joined = |parts: [&str; 3]| Tensor::cat(&parts.map(up), 0);
    let of = |number: usize| &stored[&format!("{}.lora_up.weight", layers[number].0)];
    let block = |number: i64, name: &str| format!("transformer_blocks.{number}.{name}");
    let [q, k, v] = ["to_q", "to_k", "to_v"].map(|name| block(0, &format!("attn.{name}")));
    assert!(joined([&q, &k, &v]).equal(of(0)));
    let [q, k, v] = ["q", "k", "v"].map(|name| block(1, &format!("attn.add_{name}_proj")));
    assert!(joined([&q, &k, &v]).equal(of(1)));
    let swapped = up(&block(last, "norm1_context.linear"));
    assert!(Tensor::cat(&[swapped.narrow(0, width, width), swapped.narrow(0, 0, width)], 0).equal(of(2)));
    assert!(up(&block(0, "attn2.to_out.0")).equal(of(3)));
    assert_eq!((file.unet.ranks.alpha, file.unet.layers().len()), (1.0, 8));

    // What is written for ComfyUI has a name for each layer and comes back as it was.
    let twin = scratch.path().join("twin.safetensors");
    let facts = KohyaFacts {
        layout: Layout::Sd3,
        prediction: Prediction::Flow,
        resolution: 1024,
        title: "test".to_owned(),
        training: BTreeMap::new(),
    };
    file.write_kohya(&twin, &config, &facts).unwrap();
    let named = tensors::read(&twin).unwrap();
    let prefix = ["lora", "transformer", "transformer", "blocks", ""].join("_");
    assert!(named.keys().all(|name| name.starts_with(&prefix)), "{:?}", named.keys());
    let again = LoraFile::open(&twin).unwrap().0;
    assert!(file.unet.tensors.iter().all(|(name, tensor)| again.unet.tensors[name].equal(tensor)));
    assert_eq!(again.unet.ranks.alpha, 1.0);
}

/// The layers of the published transformer that an adapter may be on, by their original names: what stands there, and how.
fn original_layers() -> BTreeMap<String, Vec<(String, String)>> {
    let recorded = fs::read_to_string(golden_dir("original", "sd3.tsv")).unwrap();
    let mut layers: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let shapes = Layout::Sd3.published_backbone().shapes();
    for line in recorded.lines() {
        let [_, ours, theirs, change] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (Some(ours), Some(theirs)) = (ours.strip_suffix(".weight"), theirs.strip_suffix(".weight"))
        else {
            continue;
        };
        if shapes[&format!("{ours}.weight")].len() == 2 {
            layers.entry(theirs.to_owned()).or_default().push((ours.to_owned(), change.to_owned()));
        }
    }
    layers
}

#[test]
fn adapters_under_comfyuis_own_names_come_apart_on_every_layer_of_the_published_transformer() {
    let config = Layout::Sd3.published_backbone();
    let shapes = config.shapes();
    let layers = original_layers();
    // 24 blocks: queries, keys and values of two streams and of 13 second attentions in one, and 23 outputs of the text.
    assert_eq!(layers.keys().filter(|name| name.ends_with(".qkv")).count(), 24 + 24 + 13);
    let scratch = TempDir::new().unwrap();
    // (Ends of factors, whether alphas are there); without alphas a factor counts once.
    for (down, up, has_alpha) in
        [(".lora_A.weight", ".lora_B.weight", false), (".lora_down.weight", ".lora_up.weight", true)]
    {
        let mut stored = Named::new();
        for (theirs, ours) in &layers {
            let shape = &shapes[&format!("{}.weight", ours[0].0)];
            // A row's number in the file is what it holds.
            let rows = (shape[0] * ours.len()) as i64;
            let stem = theirs.strip_prefix("model.").unwrap();
            let column = Tensor::arange(rows, (Kind::Float, Device::Cpu)).unsqueeze(1);
            stored.insert(format!("{stem}{up}"), column);
            stored.insert(
                format!("{stem}{down}"),
                Tensor::ones([1, shape[1] as i64], (Kind::Float, Device::Cpu)),
            );
            if has_alpha {
                stored.insert(format!("{stem}.alpha"), Tensor::from(0.5f32));
            }
        }
        let path = scratch.path().join("comfyui.safetensors");
        tensors::write(&path, &stored, &BTreeMap::new()).unwrap();
        let (file, names, layout) = LoraFile::open(&path).unwrap();
        assert_eq!((file.component, names, layout), ("transformer", LoraNames::Kohya, Some(Layout::Sd3)));
        assert_eq!(file.unet.ranks.alpha, if has_alpha { 0.5 } else { 1.0 });
        let mut n = 0;
        for (ours, change) in layers.values().flatten() {
            let found = &file.unet.tensors[&format!("{ours}.lora_B.weight")];
            let rows = found.size()[0];
            let start = match change.as_str() {
                "same" => 0,
                "swapped" => rows / 2,
                rows_of => rows * rows_of.strip_prefix("rows ").unwrap().parse::<i64>().unwrap(),
            };
            assert_eq!(found.double_value(&[0, 0]), start as f64, "{ours}");
            n += 1;
        }
        assert_eq!(file.unet.layers().len(), n);
    }
    // A name that no such transformer has is refused by name.
    let mut stray = Named::new();
    for end in [".lora_A.weight", ".lora_B.weight"] {
        stray.insert(
            format!("diffusion_model.joint_blocks.0.x_block.attn.kqv{end}"),
            Tensor::ones([2, 2], (Kind::Float, Device::Cpu)),
        );
    }
    let path = scratch.path().join("stray.safetensors");
    tensors::write(&path, &stray, &BTreeMap::new()).unwrap();
    let refused = LoraFile::open(&path).unwrap_err().to_string();
    assert!(refused.contains("x_block.attn.kqv"), "{refused}");
}

#[test]
fn adapters_come_back_from_files_for_diffusers_and_for_comfyui() {
    for case in ["transformer-sd35-lora", "transformer-sd35-dora"] {
        let golden = Golden::load("sd3", case);
        let file = LoraFile::read(golden.path(FILE_NAME)).unwrap();
        assert_eq!(file.component, "transformer");
        assert_eq!(file.unet.ranks.alpha.to_string(), golden.note("alpha").unwrap());
        let scratch = TempDir::new().unwrap();
        let path = scratch.path().join("again.safetensors");
        file.write(&path).unwrap();
        let again = LoraFile::read(&path).unwrap();
        let names = |named: &Named| named.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&again.unet.tensors), names(&file.unet.tensors), "{case}");
        assert_eq!(again.unet.ranks.alpha, file.unet.ranks.alpha, "{case}");

        // As ComfyUI and the trainers for it write diffusers' names.
        for prefix in ["diffusion_model.", "base_model.model."] {
            let stored = tensors::read(&golden.path(FILE_NAME)).unwrap();
            let moved =
                stored.into_iter().map(|(name, tensor)| (name.replacen("transformer.", prefix, 1), tensor));
            let path = scratch.path().join(format!("{prefix}safetensors"));
            tensors::write(&path, &moved.collect(), &BTreeMap::new()).unwrap();
            let found = LoraFile::read(&path).unwrap();
            assert_eq!(found.component, "transformer");
            assert_eq!(names(&found.unet.tensors), names(&file.unet.tensors), "{case} {prefix}");
        }
        assert_eq!(
            LoraNames::of(&tastemaker_weights::safetensors::Header::read(&path).unwrap()),
            Some(LoraNames::Diffusers)
        );
    }
}
