//! The plan as a table for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;
use tastemaker_math::number;
use tastemaker_math::objectives::AutoBeta;

use crate::idle::RULES;
use crate::plan::{Adapter, MemoryEstimate, Phase, Plan, Relief};
use crate::settings::{AdapterKind, words};

impl fmt::Display for Plan {
    /// One line per value: section, key, value in aligned columns; what follows from several values is in the
    /// section `in effect`. Settings that change nothing are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idle = idle_keys(self);
        let rows: Vec<Row> = rows(self).into_iter().filter(|row| !idle.contains(&row.key.as_str())).collect();
        let width = |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).len()).max().unwrap_or(0);
        let (sections, keys) = (width(|row| row.section), width(|row| &row.key));
        let mut last = "";
        for Row { section, key, value } in &rows {
            let shown = if *section == last { "" } else { section };
            writeln!(f, "{shown:sections$}  {key:keys$}  {value}")?;
            last = section;
        }
        Ok(())
    }
}

/// Names of settings that change nothing in this plan.
fn idle_keys(plan: &Plan) -> Vec<&'static str> {
    let Ok(objective) = plan.method.objective() else { return Vec::new() };
    let rules = RULES.iter().filter(|rule| rule.holds(plan, &objective));
    rules.flat_map(|rule| rule.keys().iter().copied()).collect()
}

struct Row {
    section: &'static str,
    key: String,
    value: String,
}

fn rows(plan: &Plan) -> Vec<Row> {
    let mut rows = Vec::new();
    table(&mut rows, "model", &plan.model);
    table(&mut rows, "data", &plan.data);
    row(&mut rows, "method", "name", &plan.method.name);
    table(&mut rows, "method", &plan.method.settings);
    match &plan.adapter {
        Adapter::Continued { network_weights, asked } => {
            row(&mut rows, "adapter", "adapter_type", AdapterKind::Lora);
            row(&mut rows, "adapter", "network_weights", network_weights);
            table(&mut rows, "adapter", asked);
        }
        adapter => table(&mut rows, "adapter", adapter),
    }
    table(&mut rows, "optimizer", &plan.optimizer);
    table(&mut rows, "train", &plan.train);
    table(&mut rows, "validation", &plan.validation);
    table(&mut rows, "checkpoint", &plan.checkpoint);
    table(&mut rows, "logging", &plan.logging);
    row(&mut rows, "output", "output_dir", &plan.output_dir);
    if plan.adapter == (Adapter::Full {}) {
        table(&mut rows, "output", &plan.output);
    }

    let mut effect = |key: &str, value: String| row(&mut rows, "in effect", key, value);
    for (key, value) in &plan.facts {
        effect(key, value.clone());
    }
    let (batch, accumulated) = (plan.train.train_batch_size, plan.train.gradient_accumulation_steps);
    let on = if plan.n_processes == 1 { String::new() } else { format!(" x {} processes", plan.n_processes) };
    effect("pairs per step", format!("{} ({batch} x {accumulated} accumulated{on})", plan.effective_batch()));
    effect("learning rate", number(plan.effective_learning_rate()));
    let betas = plan.betas();
    for (convention, beta) in betas.iter().filter(|_| betas.len() > 1) {
        let of = plan.n_elements.filter(|_| convention.is_of_sums());
        let of = of.map_or_else(String::new, |n| format!("; it has {n} numbers"));
        effect(
            &format!("beta, {}", convention.name()),
            format!("{} ({}{of})", number(*beta), convention.meaning()),
        );
    }
    if let Some(AutoBeta { range: (least, most), .. }) = plan.auto_beta() {
        effect("beta follows margins", format!("between {} and {}", number(least), number(most)));
    }
    if let Some(memory) = &plan.memory {
        for (key, value) in in_memory(memory) {
            effect(key, value);
        }
        if memory.cache > 0 {
            effect("cache on disk", format!("about {}", mebibytes(memory.cache)));
        }
        if memory.reference > 0 {
            effect("reference on disk", format!("about {}", mebibytes(memory.reference)));
        }
    }
    if let (Some(n_pairs), Some(steps)) = (plan.n_pairs, plan.steps_per_epoch()) {
        let epochs = plan.train.max_train_steps as f64 / steps;
        effect(
            "pairs to train on",
            format!("{n_pairs} at most (those whose images cannot be read are skipped)"),
        );
        effect("steps per epoch", format!("{steps:.1} ({epochs:.1} epochs in all)"));
    }
    rows
}

/// What a run needs of memory, what is free, and what to change where that is not enough.
fn in_memory(memory: &MemoryEstimate) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(Phase { doing, parts }) = memory.fullest() {
        let free = memory.free.map_or_else(String::new, |free| format!(", free {}", mebibytes(free)));
        let parts = parts.iter().map(|(part, bytes)| format!("{part} {}", mebibytes(*bytes)));
        let parts = parts.collect::<Vec<_>>().join(", ");
        rows.push(("memory", format!("needs about {}{free}", mebibytes(memory.total()))));
        rows.push(("most of it", format!("while {doing}: {parts}")));
    }
    if memory.is_too_much() {
        let one =
            |Relief { settings, bytes }: &Relief| format!("{settings} needs about {}", mebibytes(*bytes));
        let to_fit = memory.relief.iter().map(one).collect::<Vec<_>>().join("; or ");
        let smaller = "a smaller --resolution or a LoRA in place of a full fine-tune".to_owned();
        rows.push(("does not fit", if to_fit.is_empty() { smaller } else { to_fit }));
    }
    rows
}

fn row(rows: &mut Vec<Row>, section: &'static str, key: &str, value: impl Serialize) {
    let value = words(&serde_json::to_value(value).unwrap_or_default());
    if !value.is_empty() {
        rows.push(Row { section, key: key.to_owned(), value });
    }
}

/// One row per field of a flat structure that has a value.
fn table(rows: &mut Vec<Row>, section: &'static str, fields: &impl Serialize) {
    let fields = serde_json::to_value(fields).unwrap_or_default();
    for (key, value) in fields.as_object().into_iter().flatten() {
        match kinds(value) {
            Some(kinds) => row(rows, section, key, kinds),
            None => row(rows, section, key, value),
        }
    }
}

/// Names of layers, where they are too many to be read one by one: how many there are of each kind. The plan in the folder of
/// the run has them all.
fn kinds(value: &Value) -> Option<String> {
    const READ: usize = 16;
    let names: Vec<&str> = value.as_array()?.iter().map(Value::as_str).collect::<Option<_>>()?;
    if names.len() <= READ {
        return None;
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in &names {
        // Numbers say which of several layers of a kind.
        let kind = name.rsplit('.').find(|part| part.parse::<u32>().is_err()).unwrap_or(name);
        *counts.entry(kind).or_default() += 1;
    }
    let counted = counts.iter().map(|(kind, n)| format!("{n} {kind}")).collect::<Vec<_>>().join(", ");
    Some(format!("{} names: {counted} (plan.json of the run has all)", names.len()))
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn many_names_of_layers_are_counted_by_kind() {
        let names = (0..22)
            .flat_map(|block| [format!("down.{block}.attn1.to_q"), format!("down.{block}.attn1.to_out.0")]);
        let names: Vec<String> = names.collect();
        let words = kinds(&json!(names)).unwrap_or_default();
        assert_eq!(words, "44 names: 22 to_out, 22 to_q (plan.json of the run has all)");
        assert_eq!(kinds(&json!(names[..16])), None);
        assert_eq!((kinds(&json!(7)), kinds(&json!(vec![1; 20]))), (None, None));
    }
}
