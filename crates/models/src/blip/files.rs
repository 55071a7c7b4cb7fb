//! Loading ImageReward, and asking it.
//!
//! Source: `zai-org/ImageReward:ImageReward/ImageReward.py`.

use std::path::PathBuf;

use tastemaker_store::dtype::DType;
use tastemaker_store::{StoreError, json};
use tch::{Device, Kind, Tensor};

use super::config::{MedConfig, VitConfig};
use super::keys::{HEAD, TEXT, VISION, is_unused};
use super::text::Med;
use super::tokenizer::BertTokenizer;
use super::vision::Vit;
use crate::ModelError;
use crate::nn::{Role, Scope};
use crate::original::{ComponentMap, OpenFile, shapes};
use crate::pipeline::{Build, Fingerprint, Stored, build};
use crate::place::Place;
use crate::reward_head::{RewardHead, widths};

/// Mean of the raw rewards in training.
const MEAN: f64 = 0.167_173_628_300_524_26;

/// Their standard deviation.
const STD: f64 = 1.033_339_496_605_407_2;

/// The files of ImageReward.
#[derive(Debug, Clone)]
pub struct ImageRewardFiles {
    /// `ImageReward.pt`.
    pub weights: PathBuf,
    /// `med_config.json`.
    pub med_config: PathBuf,
    /// `vocab.txt` of bert-base-uncased.
    pub vocabulary: PathBuf,
}

/// The networks and the tokenizer.
#[derive(Debug)]
pub struct ImageReward {
    vision: Vit,
    text: Med,
    head: RewardHead,
    tokenizer: BertTokenizer,
    image_size: i64,
    device: Device,
}

impl ImageRewardFiles {
    /// The networks, frozen, and the tokenizer. The head is always f32.
    ///
    /// # Errors
    /// [`ModelError::Store`] for files that are missing or damaged, [`ModelError::Config`] naming every tensor that is
    /// missing, has another shape or is not known, [`ModelError::Tokenizer`].
    pub fn load(&self, precision: DType, device: Device) -> Result<ImageReward, ModelError> {
        let tokenizer = BertTokenizer::open(&self.vocabulary)?;
        let parts = self.open()?;
        let Parts { vit, med, .. } = &parts;
        let (n_ids, length) = (tokenizer.n_ids() as i64, tokenizer.max_length() as i64);
        if n_ids > med.vocab_size || length > med.max_position_embeddings {
            let message = format!(
                "it makes prompts of {length} tokens with ids up to {}; the network takes {} with ids up to {}",
                n_ids - 1,
                med.max_position_embeddings,
                med.vocab_size - 1
            );
            return Err(ModelError::Tokenizer { path: self.vocabulary.clone(), message });
        }
        let how = |precision| Build { role: Role::Frozen, precision, device, lora: None, base: None };
        let vision =
            build(parts.stored(&parts.vision)?, how(precision), |scope| vision(&scope, vit, precision))?;
        let text = build(parts.stored(&parts.text)?, how(precision), |scope| text(&scope, med, vit))?;
        let head =
            build(parts.stored(&parts.head)?, how(DType::F32), |scope| head(&scope, med, &parts.widths))?;
        Ok(ImageReward {
            vision: vision.network,
            text: text.network,
            head: head.network,
            tokenizer,
            image_size: vit.image_size,
            device,
        })
    }

    /// SHA-256 over vocabulary, configuration and weights, hexadecimal.
    ///
    /// # Errors
    /// As [`ImageRewardFiles::load`].
    pub fn fingerprint(&self) -> Result<String, ModelError> {
        let mut hash = Fingerprint::default();
        hash.bytes(json::read_text(&self.vocabulary)?.as_bytes());
        let parts = self.open()?;
        hash.bytes(format!("{:?} {:?}", parts.vit, parts.med).as_bytes());
        for map in [&parts.vision, &parts.text, &parts.head] {
            hash.tensors(&parts.stored(map)?);
        }
        Ok(hash.finish())
    }

    fn open(&self) -> Result<Parts, ModelError> {
        let problems = |problems| ModelError::Config { path: self.med_config.clone(), problems };
        let med = MedConfig::from_json(&json::read(&self.med_config)?).map_err(problems)?;
        let file = OpenFile::open(&self.weights)?;
        let found = VitConfig::of(&file).zip(widths(&file, &format!("{HEAD}.layers.")));
        let (vit, widths) = found.ok_or_else(|| {
            let wanted = format!(
                "an image tower below `{VISION}` and a head below `{HEAD}`, as ImageReward.pt has them"
            );
            StoreError::malformed(file.path(), "weights of something else", wanted)
        })?;
        let map = |construct: &dyn Fn(Scope<'_>)| {
            let map = ComponentMap::new(shapes(construct), |name| Some(Place::same(name)));
            let map = map.map_err(|problems| file.refuse(&problems))?;
            file.check(&map).map(|()| map)
        };
        let vision = map(&|scope| drop(vision(&scope, &vit, DType::F32)))?;
        let text = map(&|scope| drop(text(&scope, &med, &vit)))?;
        let head = map(&|scope| drop(head(&scope, &med, &widths)))?;
        let wanted = |name: &str| [&vision, &text, &head].iter().any(|map| map.get(name).is_some());
        file.check_names(|name| wanted(name) || is_unused(name))?;
        Ok(Parts { vit, med, widths, vision, text, head, file })
    }
}

/// An open file and where the three networks lie in it.
struct Parts {
    vit: VitConfig,
    med: MedConfig,
    widths: [i64; 5],
    vision: ComponentMap,
    text: ComponentMap,
    head: ComponentMap,
    file: OpenFile,
}

impl Parts {
    fn stored(&self, map: &ComponentMap) -> Result<Stored, ModelError> {
        Stored::held(&self.file, map)
    }
}

fn vision(scope: &Scope<'_>, config: &VitConfig, precision: DType) -> Vit {
    Vit::new(scope.sub(VISION), config, precision)
}

fn text(scope: &Scope<'_>, config: &MedConfig, vit: &VitConfig) -> Med {
    Med::new(scope.sub(TEXT), config, vit.width)
}

fn head(scope: &Scope<'_>, config: &MedConfig, widths: &[i64; 5]) -> RewardHead {
    RewardHead::new(scope.sub(HEAD), config.width, widths)
}

impl ImageReward {
    /// Side of the square images it takes, in pixels.
    pub fn image_size(&self) -> i64 {
        self.image_size
    }

    /// Rewards of images for their prompts, with mean 0 and standard deviation 1 over the training data.
    ///
    /// # Shapes
    /// `images` `[b, 3, image_size, image_size]` to `[b]` in f32, on the host.
    pub fn score(&self, images: &Tensor, prompts: &[&str]) -> Tensor {
        let ids: Vec<Vec<i64>> = prompts.iter().map(|prompt| self.tokenizer.encode(prompt)).collect();
        let n = ids.iter().map(Vec::len).max().unwrap_or_default();
        let filled: Vec<i64> = ids
            .iter()
            .flat_map(|ids| ids.iter().copied().chain(std::iter::repeat(self.tokenizer.filler())).take(n))
            .collect();
        let hidden: Vec<bool> = ids.iter().flat_map(|ids| (0..n).map(|at| at >= ids.len())).collect();
        let shape = [ids.len() as i64, n as i64];
        let table = |tensor: Tensor| tensor.view(shape).to_device(self.device);
        let (filled, hidden) = (table(Tensor::from_slice(&filled)), table(Tensor::from_slice(&hidden)));
        let seen = self.vision.forward(&images.to_device(self.device));
        let encoded = self.text.forward(&filled, &hidden, &seen).to_kind(Kind::Float);
        (self.head.forward(&encoded).to_device(Device::Cpu) - MEAN) / STD
    }
}
