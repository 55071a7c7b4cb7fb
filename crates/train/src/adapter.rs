//! The adapter of a run: its ranks and layers, and the LoRA that training starts from, where there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;

use tastemaker_models::adapters::{LoraFile, LoraPart};
use tastemaker_models::nn::{Ranks, is_target};
use tastemaker_models::original::text_shapes;
use tastemaker_models::pipeline::Model;
use tastemaker_models::place::Shapes;
use tastemaker_run::{Adapter, AdapterSection, LoraPlan, Plan, Problem, RunError};
use tastemaker_store::checksum::sha256_file;

use crate::TrainError;

/// Rank and alpha of each layer.
pub(crate) fn ranks(plan: &LoraPlan) -> Ranks {
    let wide = |(name, rank): (&String, &u32)| (name.clone(), i64::from(*rank));
    Ranks {
        rank: i64::from(plan.rank),
        alpha: plan.alpha,
        rank_pattern: plan.rank_pattern.iter().map(wide).collect(),
        alpha_pattern: plan.alpha_pattern.clone(),
    }
}

/// Which layers of a network are adapted, and how.
#[derive(Debug, Clone)]
pub(crate) struct AdapterShape {
    pub(crate) ranks: Ranks,
    pub(crate) target_modules: Vec<String>,
}

impl AdapterShape {
    /// That of a component by a plan.
    pub(crate) fn planned(lora: &LoraPlan, component: &str) -> Self {
        let of_text = component.starts_with("text_encoder");
        let targets = if !of_text { &lora.target_modules } else { &lora.text_encoder_target_modules };
        Self { ranks: ranks(lora), target_modules: targets.clone() }
    }
}

impl From<&LoraPart> for AdapterShape {
    fn from(part: &LoraPart) -> Self {
        Self { ranks: part.ranks.clone(), target_modules: part.target_modules.clone() }
    }
}

/// The plan in full, with the LoRA that training starts from if it names one; other plans come back as they are.
///
/// The reference is the base model with this LoRA, and the LoRA is trained further.
///
/// # Errors
/// [`TrainError`] for a file that holds no LoRA of this model, and for names of layers that the model does not have;
/// [`RunError::Invalid`] for every key that was typed with
/// another value than the file's, with both.
pub fn with_network_weights(mut plan: Plan, folder: &Model) -> Result<(Plan, Option<LoraFile>), TrainError> {
    let (path, asked) = match &plan.adapter {
        Adapter::Continued { network_weights, asked } => (network_weights.clone(), asked.clone()),
        Adapter::Lora(LoraPlan { network_weights: Some(path), .. }) => {
            (path.clone(), AdapterSection::default())
        }
        Adapter::Lora(lora) => {
            check_names(lora, folder)?;
            return Ok((plan, None));
        }
        Adapter::Full {} => return Ok((plan, None)),
    };
    let file = LoraFile::read_for(&path, folder)?;
    let of_text: BTreeSet<String> =
        file.text.values().flat_map(|part| part.target_modules.iter().cloned()).collect();
    let of_text: Vec<String> = of_text.into_iter().collect();
    let mut problems = differences(&asked, &file.unet, folder)?;
    if let Some(typed) = &asked.text_encoder_target_modules
        && other_text_layers(typed, &file, folder)?
    {
        let there = if of_text.is_empty() { "no text encoder layers".to_owned() } else { of_text.join(", ") };
        let typed = typed.join(", ");
        problems.push(problem("adapter.text_encoder_target_modules", &typed, &there));
    }
    if !problems.is_empty() {
        return Err(RunError::Invalid(problems).into());
    }
    let Ranks { rank, alpha, rank_pattern, alpha_pattern } = file.unet.ranks.clone();
    let narrow = |(name, rank): (String, i64)| (name, rank as u32);
    plan.adapter = Adapter::Lora(LoraPlan {
        rank: rank as u32,
        alpha,
        target_modules: file.unet.target_modules.clone(),
        rank_pattern: rank_pattern.into_iter().map(narrow).collect(),
        alpha_pattern,
        use_dora: file.unet.is_dora(),
        text_encoder_target_modules: of_text,
        network_weights: Some(path),
    });
    Ok((plan, Some(file)))
}

/// Whether every name in the adapter of a plan is that of layers which the model has.
fn check_names(lora: &LoraPlan, folder: &Model) -> Result<(), TrainError> {
    const TARGETS: &str = "name endings of layers that the network has, such as to_q or ff.net.2";
    const PATTERNS: &str = "name endings of layers that get an adapter, as the target modules choose them";
    let mut networks =
        vec![("adapter.target_modules", folder.backbone_config()?.shapes(), &lora.target_modules)];
    let of_text = &lora.text_encoder_target_modules;
    if !of_text.is_empty() && folder.family().text_components().is_empty() {
        let (key, found) = ("adapter.text_encoder_target_modules", of_text.join(", "));
        let wanted =
            "none: text encoders are adapted in SD1.x, SD2.x, SDXL and SD3 alone, this one's stays as it is";
        return Err(RunError::Invalid(vec![Problem::Value { key, found, wanted }]).into());
    }
    for (component, _) in folder.family().text_components().iter().filter(|_| !of_text.is_empty()) {
        let shapes = text_shapes(&folder.text_config(component)?);
        networks.push(("adapter.text_encoder_target_modules", shapes, of_text));
    }
    let all = ranks(lora);
    let by_rank = Ranks { alpha_pattern: BTreeMap::new(), ..all.clone() };
    let by_alpha = Ranks { rank_pattern: BTreeMap::new(), ..all };
    let mut problems: Vec<(&'static str, String, &'static str)> = Vec::new();
    for (key, shapes, targets) in networks {
        let idle =
            targets.iter().filter(|target| targeted(&shapes, slice::from_ref(target)).next().is_none());
        problems.extend(idle.map(|name| (key, name.clone(), TARGETS)));
        let layers = names(&shapes, targets);
        for (key, ranks) in [("adapter.rank_pattern", &by_rank), ("adapter.alpha_pattern", &by_alpha)] {
            let idle = ranks.idle(layers.iter().map(String::as_str));
            problems.extend(idle.into_iter().map(|name| (key, name, PATTERNS)));
        }
    }
    problems.sort();
    problems.dedup();
    match problems.is_empty() {
        true => Ok(()),
        false => {
            let problem = |(key, found, wanted)| Problem::Value { key, found, wanted };
            Err(RunError::Invalid(problems.into_iter().map(problem).collect()).into())
        }
    }
}

/// Name and hash of the LoRA that a run starts from, for its card.
pub(crate) fn origin(plan: &Plan) -> Result<Option<String>, TrainError> {
    let Adapter::Lora(LoraPlan { network_weights: Some(path), .. }) = &plan.adapter else { return Ok(None) };
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let hash = sha256_file(path).map_err(RunError::from)?;
    Ok(Some(format!("LoRA `{name}`, sha256 `{hash}`")))
}

/// Keys that were typed and differ from the file.
fn differences(asked: &AdapterSection, file: &LoraPart, folder: &Model) -> Result<Vec<Problem>, TrainError> {
    let mut problems = Vec::new();
    let mut differ = |key, typed: String, there: String| problems.push(problem(key, &typed, &there));
    let layers = file.layers();
    let wanted = Ranks {
        rank: asked.rank.map_or(file.ranks.rank, i64::from),
        alpha: asked.alpha.unwrap_or(file.ranks.alpha),
        rank_pattern: match (&asked.rank, &asked.rank_pattern) {
            (None, None) => file.ranks.rank_pattern.clone(),
            (_, pattern) => {
                pattern.iter().flatten().map(|(name, rank)| (name.clone(), i64::from(*rank))).collect()
            }
        },
        alpha_pattern: match (&asked.alpha, &asked.alpha_pattern) {
            (None, None) => file.ranks.alpha_pattern.clone(),
            (_, pattern) => pattern.clone().unwrap_or_default(),
        },
    };
    if let Some(layer) = layers.iter().find(|layer| wanted.rank(layer) != file.ranks.rank(layer)) {
        let (typed, there) = (wanted.rank(layer), file.ranks.rank(layer));
        differ("adapter.rank", format!("{typed} for {layer}"), there.to_string());
    }
    if let Some(layer) = layers.iter().find(|layer| wanted.alpha(layer) != file.ranks.alpha(layer)) {
        let (typed, there) = (wanted.alpha(layer), file.ranks.alpha(layer));
        differ("adapter.alpha", format!("{typed} for {layer}"), there.to_string());
    }
    if let Some(use_dora) = asked.use_dora.filter(|use_dora| *use_dora != file.is_dora()) {
        differ("adapter.use_dora", use_dora.to_string(), file.is_dora().to_string());
    }
    if let Some(target_modules) = &asked.target_modules
        && names(&folder.backbone_config()?.shapes(), target_modules) != layers
    {
        differ("adapter.target_modules", target_modules.join(", "), file.target_modules.join(", "));
    }
    Ok(problems)
}

/// Whether these names mean layers of the text encoders that the file does not adapt. It may adapt more, which are trained too.
fn other_text_layers(typed: &[String], file: &LoraFile, folder: &Model) -> Result<bool, TrainError> {
    for (component, _) in folder.family().text_components() {
        let there = file.text.get(component).map(LoraPart::layers).unwrap_or_default();
        if !names(&text_shapes(&folder.text_config(component)?), typed).is_subset(&there) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn names(shapes: &Shapes, target_modules: &[String]) -> BTreeSet<String> {
    targeted(shapes, target_modules).map(|(layer, _)| layer.to_owned()).collect()
}

/// The layers of a network that would be adapted, with the shapes of their weights.
pub(crate) fn targeted<'a>(
    shapes: &'a Shapes,
    target_modules: &'a [String],
) -> impl Iterator<Item = (&'a str, &'a [usize])> {
    let weights = shapes.iter().filter(|(_, shape)| shape.len() > 1);
    let layers = weights.filter_map(|(name, shape)| Some((name.strip_suffix(".weight")?, shape.as_slice())));
    layers.filter(|(layer, _)| is_target(layer, target_modules))
}

/// A key with another value than the file's.
fn problem(key: &'static str, typed: &str, there: &str) -> Problem {
    Problem::Value {
        key,
        found: format!("{typed}, but {there} in network_weights"),
        wanted: "the same or nothing, because the file decides",
    }
}
