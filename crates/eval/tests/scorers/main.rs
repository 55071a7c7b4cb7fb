//! Published scorers on fifty images of many sizes, with tiny random networks (`golden/scorers`).

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod images;

use std::path::{Path, PathBuf};

use image::RgbImage;
use images::{images, prompt};
use tastemaker_eval::EvalError;
use tastemaker_eval::scorers::pixels::{Fit, Transform};
use tastemaker_eval::scorers::{
    Aesthetic, CLIP_SCORE, ClipScorer, HPS_V2_1, ImageReward, Item, PICK_SCORE, Panel, Scorer, Tower,
};
use tastemaker_models::ModelError;
use tastemaker_models::blip::{BertTokenizer, ImageRewardFiles};
use tastemaker_models::clip::ClipFiles;
use tastemaker_models::reward_head::RewardHead;
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{Golden, assert_close, golden_dir};
use tch::{Device, Kind, Tensor};

const SIDE: u32 = 16;

fn seen(fit: Fit, side: u32, images: &[RgbImage]) -> Tensor {
    Transform { fit, side }.pixels(&images.iter().collect::<Vec<_>>()).unwrap()
}

/// Normalized numbers as the bytes they were.
fn bytes(pixels: &Tensor) -> Tensor {
    let channel = |values: [f32; 3]| Tensor::from_slice(&values).view([3, 1, 1]);
    let plain = pixels * channel([0.268_629_54, 0.261_302_6, 0.275_777_1])
        + channel([0.481_454_66, 0.457_827_5, 0.408_210_73]);
    (plain * 255.0).round()
}

#[test]
fn bytes_are_resized_and_cut_exactly_as_published() {
    let golden = Golden::load("scorers", "pixels");
    for (name, fit) in [("cut", Fit::Cut), ("cut_to_even", Fit::CutToEven)] {
        let ours = bytes(&seen(fit, SIDE, &images())).to_kind(Kind::Uint8);
        let theirs = golden.tensor(name);
        let differ: Vec<i64> = (0..50).filter(|&i| !ours.select(0, i).equal(&theirs.select(0, i))).collect();
        assert!(differ.is_empty(), "{name}: images {differ:?}");
    }
    let ours = bytes(&seen(Fit::Cut, 224, &images()[..24])).to_kind(Kind::Double);
    let weights = Tensor::arange(224, (Kind::Double, Device::Cpu)) + 1.0;
    let sums = (ours * weights).sum_dim_intlist([3i64].as_slice(), false, Kind::Double);
    assert!(sums.equal(&golden.tensor("cut224")));
}

#[test]
fn numbers_are_resized_and_padded_as_published() {
    let golden = Golden::load("scorers", "pixels");
    let difference = (seen(Fit::Pad, SIDE, &images()) - golden.tensor("pad")).abs().max().double_value(&[]);
    assert!(difference < 1e-5, "{difference:e}");
}

fn tower(case: &str, file: &str) -> std::rc::Rc<Tower> {
    let files = ClipFiles::open(golden_dir("scorers", case).join(file)).unwrap();
    Tower::load(files, DType::F32, Device::Cpu).unwrap()
}

fn head() -> (RewardHead, String) {
    RewardHead::open(golden_dir("scorers", "clip").join("head.pth"), 24).unwrap()
}

fn check(panel: &Panel, cases: &[&str]) {
    let images = images();
    let items: Vec<Item<'_>> =
        images.iter().enumerate().map(|(i, image)| Item { image, prompt: prompt(i) }).collect();
    let scores = panel.score(&items).unwrap();
    for ((name, scores), case) in panel.names().iter().zip(scores).zip(cases) {
        let golden = Golden::load("scorers", case);
        let worst = (Tensor::from_slice(&scores) - golden.tensor(name)).abs().max().double_value(&[]);
        assert!(worst < 1e-4, "{name}: {worst:e}");
        assert_close(&Tensor::from_slice(&scores), &golden.tensor(name), golden.tolerance("output"), name);
    }
}

#[test]
fn scorers_of_one_clip_equal_transformers() {
    let tower = tower("clip", "");
    let panel = Panel::new(vec![
        Box::new(ClipScorer::new(PICK_SCORE, tower.clone())),
        Box::new(ClipScorer::new(CLIP_SCORE, tower.clone())),
        Box::new(Aesthetic::new(tower, head())),
    ]);
    check(&panel, &["clip", "clip", "clip"]);
    let alone = panel.with_batch_size(1);
    check(&alone, &["clip", "clip", "clip"]);
}

#[test]
fn hps_equals_open_clip_under_its_own_names() {
    let tower = tower("hps", "HPS_v2.1_compressed.pt");
    check(&Panel::new(vec![Box::new(ClipScorer::new(HPS_V2_1, tower))]), &["hps"]);
}

fn image_reward_in(folder: &Path) -> ImageRewardFiles {
    ImageRewardFiles {
        weights: folder.join("ImageReward.pt"),
        med_config: folder.join("med_config.json"),
        vocabulary: folder.join("vocab.txt"),
    }
}

#[test]
fn image_reward_equals_blip() {
    let golden = Golden::load("scorers", "image-reward");
    let files = image_reward_in(&golden_dir("scorers", "image-reward"));
    let prompts: Vec<String> = serde_json::from_value(golden.json("prompts.json")).unwrap();
    let images = images();
    let prompted = images.iter().zip(prompts.iter().cycle());
    let items: Vec<Item<'_>> = prompted.map(|(image, prompt)| Item { image, prompt }).collect();
    for batch_size in [1, 7] {
        let scorer = ImageReward::load(files.clone(), DType::F32, Device::Cpu).unwrap();
        let panel = Panel::new(vec![Box::new(scorer)]).with_batch_size(batch_size);
        let scores = Tensor::from_slice(&panel.score(&items).unwrap()[0]);
        let worst = (&scores - golden.tensor("image-reward")).abs().max().double_value(&[]);
        assert!(worst < 1e-4, "{worst:e}");
        assert_close(&scores, &golden.tensor("image-reward"), golden.tolerance("output"), "image-reward");
    }
}

#[test]
fn bert_tokens_equal_transformers() {
    let golden = Golden::load("scorers", "image-reward");
    let tokenizer = BertTokenizer::open(golden.path("vocab.txt")).unwrap();
    let prompts: Vec<String> = serde_json::from_value(golden.json("prompts.json")).unwrap();
    for (row, prompt) in (0..).zip(&prompts) {
        let mut ids = tokenizer.encode(prompt);
        ids.resize(tokenizer.max_length(), tokenizer.filler());
        let theirs = golden.tensor("input_ids").get(row).to_kind(Kind::Int64);
        assert_eq!(ids, Vec::<i64>::try_from(theirs).unwrap(), "{prompt:?}");
    }
}

#[test]
fn damaged_files_of_image_reward_are_refused_by_name() {
    let (_kept, folder) = copied("image-reward");
    let files = image_reward_in(&folder);
    let refusal = || files.load(DType::F32, Device::Cpu).map(drop).unwrap_err().to_string();
    let config = std::fs::read_to_string(&files.med_config).unwrap();
    let with = |from: &str, to: &str| std::fs::write(&files.med_config, config.replace(from, to)).unwrap();
    with("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
    assert!(refusal().contains("`blip.text_encoder.encoder.layer.2."), "{}", refusal());
    with("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"relu\"");
    assert!(refusal().contains("`hidden_act` is \"relu\""), "{}", refusal());
    std::fs::write(&files.med_config, &config).unwrap();
    std::fs::write(&files.vocabulary, "a\nb\n").unwrap();
    assert!(refusal().contains("no token `[UNK]`"), "{}", refusal());
    std::fs::copy(golden_dir("scorers", "image-reward").join("vocab.txt"), &files.vocabulary).unwrap();
    std::fs::copy(golden_dir("scorers", "clip").join("head.pth"), &files.weights).unwrap();
    assert!(refusal().contains("weights of something else"), "{}", refusal());
}

#[test]
fn half_precision_stays_near() {
    let files = ClipFiles::open(golden_dir("scorers", "clip")).unwrap();
    let images = &images()[..4];
    let items: Vec<Item<'_>> = images.iter().map(|image| Item { image, prompt: "a fox" }).collect();
    let theirs = scorer_of("clip").score(&items).unwrap();
    for (precision, near) in [(DType::Bf16, 5.0), (DType::F16, 1.0)] {
        let tower = Tower::load(files.clone(), precision, Device::Cpu).unwrap();
        assert!((tower.scale() - 3.25f64.exp()).abs() < 1e-4);
        let scorer = ClipScorer::new(CLIP_SCORE, tower);
        for (ours, theirs) in scorer.score(&items).unwrap().iter().zip(&theirs) {
            assert!((ours - theirs).abs() < near, "{precision}: {ours} for {theirs}");
        }
    }
}

fn scorer_of(case: &str) -> ClipScorer {
    ClipScorer::new(CLIP_SCORE, tower(case, ""))
}

#[test]
fn fingerprints_tell_weights_and_scorers_apart() {
    let (clip, hps) = (tower("clip", ""), tower("hps", "HPS_v2.1_compressed.pt"));
    let panel = Panel::new(vec![
        Box::new(ClipScorer::new(PICK_SCORE, clip.clone())),
        Box::new(ClipScorer::new(CLIP_SCORE, clip.clone())),
        Box::new(ClipScorer::new(CLIP_SCORE, hps)),
        Box::new(Aesthetic::new(clip, head())),
    ]);
    let found = panel.fingerprints().unwrap();
    let distinct: std::collections::BTreeSet<&String> = found.iter().collect();
    assert_eq!(distinct.len(), 4, "{found:?}");
    assert_eq!(found, panel.fingerprints().unwrap());
}

/// A copy of a case whose files may be damaged.
fn copied(case: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden_dir("scorers", case)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = folder.path().to_owned();
    (folder, path)
}

fn refusal(path: &Path) -> String {
    let loaded = ClipFiles::open(path).and_then(|files| files.load(DType::F32, Device::Cpu).map(drop));
    loaded.unwrap_err().to_string()
}

#[test]
fn damaged_weights_are_refused_by_name() {
    let (_kept, folder) = copied("hps");
    let file = folder.join("HPS_v2.1_compressed.pt");
    let config = std::fs::read_to_string(folder.join("open_clip_config.json")).unwrap();
    std::fs::write(folder.join("open_clip_config.json"), config.replace("\"layers\": 2", "\"layers\": 3"))
        .unwrap();
    assert!(refusal(&file).contains("`transformer.resblocks.2."), "{}", refusal(&file));
    std::fs::write(folder.join("open_clip_config.json"), config.replace("\"width\": 40", "\"width\": 80"))
        .unwrap();
    assert!(refusal(&file).contains("has shape"), "{}", refusal(&file));
    std::fs::remove_file(folder.join("open_clip_config.json")).unwrap();
    assert!(refusal(&file).contains("HPS_v2.1_compressed.pt"), "{}", refusal(&file));
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refusal(&file).contains("HPS_v2.1_compressed.pt"), "{}", refusal(&file));

    let (_kept, folder) = copied("clip");
    let weights = folder.join("model.safetensors");
    assert!(refusal(&weights).contains("give the folder"), "{}", refusal(&weights));
    std::fs::remove_file(&weights).unwrap();
    assert!(refusal(&folder).contains("model.safetensors"), "{}", refusal(&folder));
}

#[test]
fn a_head_of_another_width_is_refused() {
    let head = golden_dir("scorers", "clip").join("head.pth");
    let error = RewardHead::open(&head, 768).map(drop).unwrap_err();
    assert!(matches!(error, ModelError::Config { .. }), "{error}");
    assert!(error.to_string().contains("`layers.0.weight` has shape [20, 24]"), "{error}");
    let clip = golden_dir("scorers", "clip").join("model.safetensors");
    assert!(RewardHead::open(clip, 24).map(drop).unwrap_err().to_string().contains("no five linear layers"));
}

#[test]
fn a_score_that_is_no_number_names_its_image() {
    let (_kept, folder) = copied("clip");
    let weights = folder.join("model.safetensors");
    let mut tensors = tastemaker_torch::tensors::read(&weights).unwrap();
    let projection = tensors.get_mut("visual_projection.weight").unwrap();
    // Finite, and beyond f32 once multiplied.
    *projection = projection.full_like(3e38);
    tastemaker_torch::tensors::write(&weights, &tensors, &[("format".into(), "pt".into())].into()).unwrap();
    let tower = Tower::load(ClipFiles::open(&folder).unwrap(), DType::F32, Device::Cpu).unwrap();
    let panel = Panel::new(vec![Box::new(ClipScorer::new(PICK_SCORE, tower))]).with_batch_size(2);
    let good = RgbImage::new(8, 8);
    let items = [Item { image: &good, prompt: "a fox" }; 3];
    let error = panel.score(&items).unwrap_err();
    assert!(matches!(error, EvalError::ImageScore { item: 0, .. }), "{error}");
    assert!(error.to_string().contains("NaN for image 0, whose prompt is \"a fox\""), "{error}");
    let thin = RgbImage::new(1000, 1);
    let items = [items[0], items[0], Item { image: &thin, prompt: "a fox" }];
    assert_eq!(scorer_panel().score(&items).unwrap_err().item(), Some(2));
}

fn scorer_panel() -> Panel {
    Panel::new(vec![Box::new(scorer_of("clip"))]).with_batch_size(2)
}
