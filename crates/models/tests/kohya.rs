//! Kohya's adapter files: names as diffusers reads them, there and back, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tastemaker_math::schedule::Prediction;
use tastemaker_models::adapters::{KohyaFacts, LoraFile, LoraPart};
use tastemaker_models::backbone::BackboneConfig;
use tastemaker_models::nn::Ranks;
use tastemaker_models::original::Layout;
use tastemaker_torch::tensors::{self, Named};
use tastemaker_weights::safetensors::Header;
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

fn config(layout: Layout) -> BackboneConfig {
    layout.published_backbone()
}

fn facts(layout: Layout) -> KohyaFacts {
    KohyaFacts {
        layout,
        prediction: Prediction::Epsilon,
        resolution: 1024,
        title: "test".into(),
        training: [("steps".to_owned(), "7".to_owned())].into(),
    }
}

/// An adapter of rank 2 on the given layers; a convolution's factors are four-dimensional.
fn adapter(layers: &[&str], config: &BackboneConfig, alpha: f64) -> LoraFile {
    let shapes = config.shapes();
    let mut tensors = Named::new();
    for (number, layer) in layers.iter().enumerate() {
        let shape: Vec<i64> = shapes[&format!("{layer}.weight")].iter().map(|&n| n as i64).collect();
        let (mut down, mut up) = (shape.clone(), shape);
        down[0] = 2;
        up[1] = 2;
        up[2..].fill(1);
        let filled = |shape: &[i64], value: f64| Tensor::full(shape, value, (Kind::Float, Device::Cpu));
        tensors.insert(format!("{layer}.lora_A.weight"), filled(&down, number as f64 + 0.5));
        tensors.insert(format!("{layer}.lora_B.weight"), filled(&up, number as f64 - 0.5));
    }
    let target_modules = layers.iter().map(|&layer| layer.to_owned()).collect();
    LoraFile::from(LoraPart { ranks: Ranks::uniform(2, alpha), target_modules, tensors })
}

const LAYERS: [&str; 3] = [
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.resnets.0.conv_shortcut",
    "up_blocks.0.upsamplers.0.conv",
];

struct Bench {
    _scratch: TempDir,
    path: PathBuf,
    config: BackboneConfig,
}

fn written(layout: Layout, alpha: f64) -> Bench {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("twin.safetensors");
    let config = config(layout);
    adapter(&LAYERS, &config, alpha).write_kohya(&path, &config, &facts(layout)).unwrap();
    Bench { _scratch: scratch, path, config }
}

#[test]
fn every_layer_has_the_name_diffusers_takes_it_for() {
    for (layout, family) in [(Layout::Sd1, "sd1"), (Layout::Sd2, "sd2"), (Layout::Sdxl, "sdxl")] {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../golden/original");
        let lines = fs::read_to_string(Path::new(golden).join(format!("{family}-kohya.tsv"))).unwrap();
        let pairs: Vec<(&str, &str)> = lines.lines().map(|line| line.split_once('\t').unwrap()).collect();
        let config = config(layout);
        // Small factors will do: shapes are the network's business.
        let one = || Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        let tensors = pairs.iter().flat_map(|(layer, _)| {
            [(format!("{layer}.lora_A.weight"), one()), (format!("{layer}.lora_B.weight"), one())]
        });
        let file = LoraFile::from(LoraPart {
            ranks: Ranks::uniform(2, 2.0),
            target_modules: vec![],
            tensors: tensors.collect(),
        });
        let scratch = TempDir::new().unwrap();
        let path = scratch.path().join("twin.safetensors");
        file.write_kohya(&path, &config, &facts(layout)).unwrap();
        let stored = Header::read(&path).unwrap();
        let found: Vec<&str> =
            stored.tensors.iter().filter_map(|tensor| tensor.name.strip_suffix(".alpha")).collect();
        let mut wanted: Vec<&str> = pairs.iter().map(|(_, kohya)| *kohya).collect();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "{family}");
        let back = LoraFile::read_kohya(&path, layout, &config).unwrap();
        assert!(back.unet.tensors.keys().eq(file.unet.tensors.keys()), "{family}");
    }
}

#[test]
fn an_adapter_comes_back_from_kohyas_layout() {
    for layout in [Layout::Sd1, Layout::Sd2, Layout::Sdxl] {
        let bench = written(layout, 3.5);
        let before = adapter(&LAYERS, &bench.config, 3.5);
        let after = LoraFile::read_kohya(&bench.path, layout, &bench.config).unwrap();
        assert_eq!((after.unet.ranks.rank, after.unet.ranks.alpha), (2, 3.5));
        assert_eq!(after.unet.target_modules, LAYERS);
        for (name, tensor) in &before.unet.tensors {
            assert!(tensor.equal(&after.unet.tensors[name]), "{layout:?} {name}");
        }
    }
}

#[test]
fn the_header_says_what_other_tools_look_for() {
    let metadata = Header::read(&written(Layout::Sdxl, 3.5).path).unwrap().metadata;
    for (key, value) in [
        ("ss_base_model_version", "sdxl_base_v1-0"),
        ("ss_network_module", "networks.lora"),
        ("ss_network_dim", "2"),
        ("ss_network_alpha", "3.5"),
        ("ss_v2", "False"),
        ("ss_steps", "7"),
        ("modelspec.sai_model_spec", "1.0.1"),
        ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora"),
        ("modelspec.resolution", "1024x1024"),
        ("modelspec.prediction_type", "epsilon"),
    ] {
        assert_eq!(metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(metadata["sshs_model_hash"].len(), 64);
    assert_eq!(metadata["sshs_legacy_hash"].len(), 8);
}

#[test]
fn a_file_without_alphas_means_alpha_equals_rank_and_names_may_be_diffusers_own() {
    let bench = written(Layout::Sdxl, 3.5);
    let plain = adapter(&LAYERS, &bench.config, 3.5);
    // As SDXL adapters of other trainers are spelled: diffusers' block names under kohya's prefix.
    let sd = bench.path.with_file_name("plain.safetensors");
    plain.write_kohya(&sd, &bench.config, &facts(Layout::Sd1)).unwrap();
    let mut stored = tensors::read(&sd).unwrap();
    stored.retain(|name, _| !name.ends_with(".alpha"));
    tensors::write(&sd, &stored, &BTreeMap::new()).unwrap();
    let back = LoraFile::read_kohya(&sd, Layout::Sdxl, &bench.config).unwrap();
    assert_eq!((back.unet.ranks.rank, back.unet.ranks.alpha), (2, 2.0));
    assert!(back.unet.tensors.keys().eq(plain.unet.tensors.keys()));
}

#[test]
fn ranks_and_alphas_of_single_layers_go_there_and_back() {
    for layout in [Layout::Sd1, Layout::Sdxl] {
        let bench = written(layout, 3.5);
        let mut file = adapter(&LAYERS, &bench.config, 3.5);
        // As LoCon has it: convolutions of their own rank and alpha.
        let wide = Tensor::ones(
            [1, file.unet.tensors[&format!("{}.lora_A.weight", LAYERS[2])].size()[1], 3, 3],
            (Kind::Float, Device::Cpu),
        );
        let tall = Tensor::ones([wide.size()[1], 1, 1, 1], (Kind::Float, Device::Cpu));
        file.unet.tensors.insert(format!("{}.lora_A.weight", LAYERS[2]), wide);
        file.unet.tensors.insert(format!("{}.lora_B.weight", LAYERS[2]), tall);
        file.unet.ranks.rank_pattern.insert("upsamplers.0.conv".into(), 1);
        file.unet.ranks.alpha_pattern.insert("upsamplers.0.conv".into(), 0.5);
        file.write_kohya(&bench.path, &bench.config, &facts(layout)).unwrap();
        let header = Header::read(&bench.path).unwrap();
        assert_eq!(
            (&*header.metadata["ss_network_dim"], &*header.metadata["ss_network_alpha"]),
            ("Dynamic", "Dynamic")
        );
        let there = LoraFile::read_kohya(&bench.path, layout, &bench.config).unwrap();

        let diffusers = bench.path.with_file_name("diffusers.safetensors");
        there.write(&diffusers).unwrap();
        let (back, again) =
            (LoraFile::read(&diffusers).unwrap(), bench.path.with_file_name("again.safetensors"));
        back.write_kohya(&again, &bench.config, &facts(layout)).unwrap();
        assert!(fs::read(&again).unwrap() == fs::read(&bench.path).unwrap(), "{layout:?}");
        for found in [there, back] {
            let each = LAYERS.map(|layer| (found.unet.ranks.rank(layer), found.unet.ranks.alpha(layer)));
            assert_eq!(each, [(2, 3.5), (2, 3.5), (1, 0.5)], "{layout:?}");
            assert!(file.unet.tensors.iter().all(|(name, tensor)| tensor.equal(&found.unet.tensors[name])));
        }
    }
}

#[test]
fn magnitudes_of_dora_go_there_and_back_in_the_shape_lycoris_gives_them() {
    for layout in [Layout::Sd1, Layout::Sdxl] {
        let bench = written(layout, 3.5);
        let mut file = adapter(&LAYERS, &bench.config, 3.5);
        for layer in LAYERS {
            let up = file.unet.tensors[&format!("{layer}.lora_B.weight")].size();
            let shape = if up.len() == 4 { vec![1, up[0], 1, 1] } else { vec![up[0]] };
            let numbers = Tensor::arange(up[0], (Kind::Float, Device::Cpu)).reshape(shape);
            file.unet.tensors.insert(format!("{layer}.lora_magnitude_vector"), numbers);
        }
        file.write_kohya(&bench.path, &bench.config, &facts(layout)).unwrap();
        let header = Header::read(&bench.path).unwrap();
        assert_eq!(header.metadata["ss_network_module"], "lycoris.kohya");
        let scales = header.tensors.iter().filter(|tensor| tensor.name.ends_with(".dora_scale"));
        let shapes: Vec<_> = scales.map(|tensor| tensor.shape.clone()).collect();
        assert_eq!(shapes.len(), 3);
        assert!(shapes.iter().all(|shape| shape[0] > 1 && shape[1..].iter().all(|n| *n == 1)), "{shapes:?}");

        let there = LoraFile::read_kohya(&bench.path, layout, &bench.config).unwrap();
        let diffusers = bench.path.with_file_name("diffusers.safetensors");
        there.write(&diffusers).unwrap();
        let metadata = &Header::read(&diffusers).unwrap().metadata["lora_adapter_metadata"];
        assert!(metadata.contains("\"unet.use_dora\": true"), "{metadata}");
        let back = LoraFile::read(&diffusers).unwrap();
        for found in [there, back] {
            assert!(found.unet.is_dora());
            assert!(found.unet.tensors.keys().eq(file.unet.tensors.keys()));
            let same = |(name, tensor): (&String, &Tensor)| tensor.equal(&found.unet.tensors[name]);
            assert!(file.unet.tensors.iter().all(same));
        }

        // One magnitude for each column, as LyCORIS has it with `wd_on_out` off, is another adapter.
        let mut stored = tensors::read(&bench.path).unwrap();
        let scale = stored.keys().find(|name| name.ends_with(".dora_scale")).unwrap().clone();
        let down = stored[&scale.replace(".dora_scale", ".lora_down.weight")].size();
        stored.insert(scale, Tensor::ones([1, down[1]], (Kind::Float, Device::Cpu)));
        tensors::write(&bench.path, &stored, &BTreeMap::new()).unwrap();
        let refused = LoraFile::read_kohya(&bench.path, layout, &bench.config).unwrap_err().to_string();
        assert!(refused.contains("with magnitudes [1, "), "{refused}");
    }
}

#[test]
fn adapters_of_text_encoders_go_there_and_back() {
    for (layout, components) in
        [(Layout::Sd1, &["text_encoder"][..]), (Layout::Sdxl, &["text_encoder", "text_encoder_2"])]
    {
        let bench = written(layout, 2.0);
        let mut file = adapter(&LAYERS, &bench.config, 2.0);
        for component in components {
            let layer = "text_model.encoder.layers.3.mlp.fc1";
            let tensor = |shape: [i64; 2]| Tensor::ones(shape, (Kind::Float, Device::Cpu)) * shape[0];
            let tensors = [
                (format!("{layer}.lora_A.weight"), tensor([4, 8])),
                (format!("{layer}.lora_B.weight"), tensor([16, 4])),
            ];
            let part = LoraPart {
                ranks: Ranks::uniform(4, 1.0),
                target_modules: vec![layer.to_owned()],
                tensors: tensors.into(),
            };
            file.text.insert(component, part);
        }
        file.write_kohya(&bench.path, &bench.config, &facts(layout)).unwrap();
        let there = LoraFile::read_kohya(&bench.path, layout, &bench.config).unwrap();
        let diffusers = bench.path.with_file_name("diffusers.safetensors");
        there.write(&diffusers).unwrap();
        let back = LoraFile::read(&diffusers).unwrap();
        for found in [&there, &back] {
            assert!(
                found
                    .parts()
                    .map(|(component, _)| component)
                    .eq(file.parts().map(|(component, _)| component))
            );
            for ((_, found), (component, wanted)) in found.parts().zip(file.parts()) {
                assert_eq!(found.ranks, wanted.ranks, "{layout:?} {component}");
                assert!(wanted.tensors.iter().all(|(name, tensor)| tensor.equal(&found.tensors[name])));
            }
        }
        // The file alone tells its family.
        assert_eq!(LoraFile::open(&bench.path).unwrap().2, Some(layout));
    }
}

#[test]
fn factors_have_the_dimensions_of_their_layer_whatever_those_of_the_file() {
    const PROJECTION: &str = "down_blocks.0.attentions.0.proj_in";
    const TELLS_FAMILY: &str = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k";
    // SD1.x has a 1x1 convolution there, SD2.x a linear layer; kohya's scripts make kernels for both.
    for (layout, in_file) in [(Layout::Sd1, 2), (Layout::Sd2, 4)] {
        let bench = written(layout, 2.0);
        let right = adapter(&[PROJECTION, TELLS_FAMILY], &bench.config, 2.0);
        let mut other = adapter(&[PROJECTION, TELLS_FAMILY], &bench.config, 2.0);
        for end in [".lora_A.weight", ".lora_B.weight"] {
            let factor = other.unet.tensors.get_mut(&format!("{PROJECTION}{end}")).unwrap();
            let size = factor.size();
            let shape = if in_file == 4 { vec![size[0], size[1], 1, 1] } else { size[..2].to_vec() };
            *factor = factor.reshape(shape);
        }
        let diffusers = bench.path.with_file_name("diffusers.safetensors");
        other.write(&diffusers).unwrap();
        other.write_kohya(&bench.path, &bench.config, &facts(layout)).unwrap();
        for path in [&diffusers, &bench.path] {
            let (found, _, family) = LoraFile::open(path).unwrap();
            assert_eq!(family, Some(layout));
            for (name, tensor) in &right.unet.tensors {
                assert_eq!(found.unet.tensors[name].size(), tensor.size(), "{layout:?} {name}");
            }
        }
    }
}

#[test]
fn what_does_not_belong_to_the_unet_is_refused() {
    let bench = written(Layout::Sd1, 2.0);
    let whole = tensors::read(&bench.path).unwrap();
    let refusal = |edit: &dyn Fn(&mut Named)| {
        let mut stored: Named = whole.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        edit(&mut stored);
        tensors::write(&bench.path, &stored, &BTreeMap::new()).unwrap();
        LoraFile::read_kohya(&bench.path, Layout::Sd1, &bench.config).unwrap_err().to_string()
    };
    let one = || Tensor::ones([1], (Kind::Float, Device::Cpu));
    let alpha = whole.keys().find(|name| name.ends_with(".alpha")).unwrap();
    let of_text = alpha.replace("unet", "te2");
    let strange = refusal(&|t| drop(t.insert(of_text.clone(), one())));
    assert!(strange.contains(&of_text), "{strange}");
    let scale = alpha.replace(".alpha", ".dora_scale");
    let some =
        refusal(&|t| drop(t.insert(scale.clone(), Tensor::ones([1280, 1], (Kind::Float, Device::Cpu)))));
    assert!(some.contains("magnitudes"), "{some}");
    let up = whole.keys().find(|name| name.ends_with(".lora_up.weight")).unwrap();
    let half = refusal(&|t| drop(t.remove(up)));
    assert!(half.contains("one factor of two"), "{half}");
}

#[test]
fn an_adapter_of_another_family_or_kind_is_called_what_it_is() {
    let scratch = TempDir::new().unwrap();
    let path = scratch.path().join("strange.safetensors");
    let factor = |name: String, shape: &[i64]| (name, Tensor::ones(shape, (Kind::Float, Device::Cpu)));
    let kohya = ["lora", "unet", ""].join("_");
    let header = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    for (name, shape, metadata, wanted) in [
        ("{KOHYA}double_blocks_0_img_attn_qkv.lora_down.weight", [4, 3072], None, "a LoRA for Flux"),
        (
            "transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight",
            [4, 3072],
            None,
            "a LoRA for Flux",
        ),
        (
            "{KOHYA}x.lora_down.weight",
            [4, 8],
            Some(header("ss_base_model_version", "lumina2")),
            "a LoRA for Lumina",
        ),
        (
            "{KOHYA}x.lora_down.weight",
            [4, 8],
            Some(header("modelspec.architecture", "Flux-1-dev/lora")),
            "a LoRA for Flux",
        ),
        ("{KOHYA}mid_block_attentions_0_proj_in.hada_w1_a", [8, 4], None, "LyCORIS LoHa"),
        ("{KOHYA}mid_block_attentions_0_proj_in.lokr_w2", [8, 4], None, "LyCORIS LoKr"),
    ] {
        let name = name.replace("{KOHYA}", &kohya);
        tensors::write(&path, &Named::from([factor(name.clone(), &shape)]), &metadata.unwrap_or_default())
            .unwrap();
        let said = LoraFile::open(&path).unwrap_err().to_string();
        assert!(
            said.contains(wanted) && said.contains("wanted a LoRA of SD1.x, SD2.x, SDXL, SD3 or Z-Image"),
            "{name}: {said}"
        );
    }
}
