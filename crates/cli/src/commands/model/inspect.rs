//! `tastemaker model inspect`: what a folder or a file holds.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use clap::Args;
use tastemaker_models::ModelError;
use tastemaker_models::adapters::{LoraFile, LoraNames};
use tastemaker_models::original::{Layout, spelled};
use tastemaker_models::pipeline::{Family, Model, SingleFile, Stored};
use tastemaker_store::dtype::DType;
use tastemaker_weights::safetensors::{Dtype, Header, TensorView};

use super::opened::Opened;

/// Prints family, precision, size and metadata of a model or adapter, and which tools can load it.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A diffusers folder, a single-file checkpoint, a LoRA file, or the name of a fetched model.
    path: String,
}

/// Runs the command.
pub fn inspect(args: &InspectArgs) -> Result<()> {
    let opened = Opened::open(&args.path)?;
    print_line("holds", opened.kind());
    match &opened {
        Opened::Folder(folder) => of_folder(folder)?,
        Opened::SingleFile(file) => {
            print_line("family", file.layout.title());
            print_line("predicts", &predicts(file));
            print_line("tensors", &sizes(file.tensors().map(of_view)));
            if file.path().extension().is_some_and(|extension| extension == "safetensors") {
                metadata(&Header::read(file.path()).map_err(ModelError::from)?);
            }
            let tools = match file.layout {
                Layout::Sd3 | Layout::ZImage => "ComfyUI, and diffusers by from_single_file",
                _ => "A1111, Forge, ComfyUI, InvokeAI, and diffusers by from_single_file",
            };
            print_line("loads in", tools);
        }
        Opened::Lora { path, file, names, layout } => of_lora(path, file, *names, *layout)?,
    }
    Ok(())
}

fn print_line(what: &str, value: &str) {
    println!("{what:<12} {value}");
}

fn of_folder(folder: &Model) -> Result<()> {
    let family = Layout::of_folder(folder).map_or("Stable Diffusion", Layout::title);
    print_line("family", family);
    let schedule = folder.schedule()?.schedule;
    // A flow's levels always do.
    let is_zero = schedule.ends_in_noise() && schedule.as_flow().is_none();
    let levels = if is_zero { ", zero terminal SNR" } else { "" };
    print_line("predicts", &format!("{}{levels}", spelled(schedule.prediction())));
    for component in ["unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"] {
        if folder.has(component) {
            print_line(component, &stored_sizes(&folder.stored(component)?));
        }
    }
    print_line("loads in", "diffusers; every other tool after `tastemaker model convert` to a single file");
    Ok(())
}

/// What a single file says, and where.
fn predicts(file: &SingleFile) -> String {
    let stated = match file.noise.prediction(file.path(), None) {
        Err(error) => error.to_string(),
        Ok(Some(prediction)) => {
            let place = file.noise.predictions.first().map_or("", |witness| witness.place.as_str());
            format!("{} ({place})", spelled(prediction))
        }
        Ok(None) => match file.layout.prediction(None) {
            Ok(prediction) => format!("{} (nothing says otherwise)", spelled(prediction)),
            Err(_) => "epsilon or v_prediction: nothing says which".to_owned(),
        },
    };
    let levels = file.noise.zero_terminal_snr.as_ref();
    stated + &levels.map_or_else(String::new, |place| format!(", zero terminal SNR ({place})"))
}

fn stored_sizes(stored: &Stored) -> String {
    let tensors: Vec<_> = stored.tensors().collect();
    sizes(tensors.iter().map(|tensor| of_view(tensor.view())))
}

fn of_lora(path: &Path, file: &LoraFile, names: LoraNames, layout: Option<Layout>) -> Result<()> {
    print_line("family", layout.map_or("unknown (custom UNet)", Layout::title));
    let is_dora = file.parts().any(|(_, part)| part.is_dora());
    if is_dora {
        print_line("kind", "DoRA (weight-decomposed LoRA)");
    }
    for (component, part) in file.parts() {
        let layers = part.layers();
        print_line("rank", &counted(layers.iter().map(|layer| part.ranks.rank(layer) as f64)));
        print_line("alpha", &counted(layers.iter().map(|layer| part.ranks.alpha(layer))));
        print_line("adapts", &format!("{} layers of {component}", layers.len()));
    }
    let header = Header::read(path).map_err(ModelError::from)?;
    let infos = header.tensors.iter();
    print_line("tensors", &sizes(infos.map(|info| (info.dtype, info.shape.as_slice(), info.range.len()))));
    metadata(&header);
    let of_transformer = file.component == Family::StableDiffusion3.backbone();
    let tools = match names {
        LoraNames::Kohya if layout == Some(Layout::ZImage) => "ComfyUI and diffusers",
        LoraNames::Diffusers if of_transformer => {
            "diffusers and peft; ComfyUI where alpha is the rank, else after `tastemaker model convert`"
        }
        LoraNames::Diffusers => {
            "diffusers and peft; ComfyUI, A1111 and Forge after `tastemaker model convert`"
        }
        LoraNames::Kohya if of_transformer => "ComfyUI",
        LoraNames::Kohya if is_dora => "LyCORIS, A1111, Forge and ComfyUI; diffusers ignores `dora_scale`",
        LoraNames::Kohya => "A1111, Forge, ComfyUI, InvokeAI and diffusers",
    };
    print_line("loads in", tools);
    Ok(())
}

/// One number for all layers, or how many layers have which, the most frequent first.
fn counted(values: impl Iterator<Item = f64>) -> String {
    let mut counts: Vec<(f64, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(seen, _)| *seen == value) {
            Some((_, n)) => *n += 1,
            None => counts.push((value, 1)),
        }
    }
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    match counts[..] {
        [(value, _)] => value.to_string(),
        _ => counts.iter().map(|(value, n)| format!("{value} in {n} layers")).collect::<Vec<_>>().join(", "),
    }
}

fn of_view(view: TensorView<'_>) -> (Dtype, &[usize], usize) {
    (view.dtype, view.shape, view.bytes.len())
}

/// Numbers of tensors and of values, and bytes by element type.
fn sizes<'a>(tensors: impl Iterator<Item = (Dtype, &'a [usize], usize)>) -> String {
    let (mut n_tensors, mut n_values) = (0, 0);
    let mut bytes: BTreeMap<String, usize> = BTreeMap::new();
    for (dtype, shape, n_bytes) in tensors {
        n_tensors += 1;
        n_values += shape.iter().product::<usize>();
        *bytes.entry(spelled_type(dtype)).or_default() += n_bytes;
    }
    let types: Vec<String> =
        bytes.iter().map(|(dtype, bytes)| format!("{dtype} {:.1} MB", *bytes as f64 / 1e6)).collect();
    let tensors = crate::progress::counted(n_tensors, "tensor");
    format!("{tensors}, {:.2} M parameters, {}", n_values as f64 / 1e6, types.join(", "))
}

/// A type of tensors as flags spell it, others as safetensors does.
fn spelled_type(dtype: Dtype) -> String {
    let name = dtype.to_string();
    name.parse::<DType>().map_or(name, |dtype| dtype.to_string())
}

/// The header's text, long entries cut short and control characters replaced.
fn metadata(header: &Header) {
    const LONGEST: usize = 100;
    for (key, value) in &header.metadata {
        let clean =
            |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
        let value: String = clean(value).split_whitespace().collect::<Vec<_>>().join(" ");
        let cut: String = value.chars().take(LONGEST).collect();
        let more = if cut.len() < value.len() { "..." } else { "" };
        print_line("metadata", &format!("{} = {cut}{more}", clean(key)));
    }
}
