//! Beta in other programs' conventions.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its recipe should stop")]

mod support;

use support::{SHORTEST, parse, plan_of, shortest_with};
use tastemaker_math::objectives::{BetaConvention, OBJECTIVES};
use tastemaker_run::{Plan, Warning, resolve};

/// Numbers in a latent of 512 x 512 in SD3 and Z-Image.
const N: u64 = 65_536;

/// The shortest recipe with these lines over it.
fn laid_over(text: &str) -> Result<Plan, String> {
    resolve(parse(SHORTEST).unwrap(), parse(text).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn a_beta_of_another_convention_is_ours_in_the_plan_once_the_model_is_known() {
    for (name, typed, convention, ours) in [
        ("diffusion-dpo", 100.0, "mean", 100.0),
        ("diffusion-dpo", 50.0, "no-half", 100.0),
        ("diffusion-dpo", 0.001_525_878_906_25, "sum", 100.0),
        ("diffusion-dpo", 0.000_762_939_453_125, "sum-no-half", 100.0),
        ("ddim-inpo", 1250.0, "no-half", 2500.0),
        ("ipo", 2500.0, "no-half", 5000.0),
        ("linear-dpo", 0.015_625, "sum", 1024.0),
        ("kto", 0.015_625, "sum", 1024.0),
    ] {
        let text = format!(
            "[method]\nname = \"{name}\"\nbeta = {typed}\n[train]\nauto_beta_min = {typed}\nbeta_convention = \"{convention}\""
        );
        let plan = laid_over(&text).unwrap().with_latents(N).unwrap();
        assert_eq!(plan.method.settings["beta"], ours, "{name} {convention}");
        assert_eq!(plan.method.objective().unwrap().beta(), Some(ours), "{name} {convention}");
        assert_eq!(plan.train.auto_beta_min, Some(ours), "bounds are counted alike");
        assert_eq!(plan.train.beta_convention, BetaConvention::Mean);
        assert_eq!(plan.clone().with_latents(N).unwrap(), plan, "what is converted stays");
        assert!(
            !plan.warnings.iter().any(|warning| matches!(warning, Warning::Method(_))),
            "{name}: {:?}",
            plan.warnings
        );
    }
}

#[test]
fn a_plan_of_our_convention_learns_nothing_but_the_size_of_latents() {
    let plan = plan_of(&shortest_with(""));
    let known = plan.clone().with_latents(N).unwrap();
    assert_eq!(known, Plan { n_elements: Some(N), ..plan.clone() });
    assert_eq!(
        serde_json::to_value(&known).unwrap(),
        serde_json::to_value(&plan).unwrap(),
        "files keep their form"
    );
}

#[test]
fn an_odd_beta_is_said_when_it_is_converted_and_not_before() {
    let said =
        |plan: &Plan| plan.warnings.iter().filter(|warning| matches!(warning, Warning::Method(_))).count();
    let plan =
        laid_over("[method]\nname = \"diffusion-dpo\"\nbeta = 5000\n[train]\nbeta_convention = \"sum\"")
            .unwrap();
    assert_eq!(said(&plan), 0);
    assert_eq!(said(&plan.with_latents(N).unwrap()), 1);
}

#[test]
fn a_convention_that_a_method_has_not_is_refused_in_words() {
    for (text, part) in [
        (
            "[method]\nname = \"sft\"\n[train]\nbeta_convention = \"sum\"",
            "multiplies no difference of errors",
        ),
        (
            "[method]\nname = \"mapo\"\nbeta = 0.1\n[train]\nbeta_convention = \"no-half\"",
            "multiplies no difference of errors",
        ),
        (
            "[method]\nname = \"linear-dpo\"\nbeta = 5\n[train]\nbeta_convention = \"no-half\"",
            "no half to leave out",
        ),
        (
            "[method]\nname = \"kto\"\nbeta = 5\n[train]\nbeta_convention = \"sum-no-half\"",
            "no half to leave out",
        ),
        (
            "[method]\nname = \"diffusion-dpo\"\n[train]\nbeta_convention = \"sum\"",
            "the default of the method counts as mean",
        ),
        ("[method]\nname = \"mapo\"\n[train]\nauto_beta = true", "not in this method"),
        ("[method]\nname = \"kto\"\n[train]\nauto_beta = true", "not in this method"),
        ("[train]\nauto_beta = true\nauto_beta_min = 20.0\nauto_beta_max = 10.0", "at most auto_beta_max"),
        ("[train]\nauto_beta = true\nauto_beta_target_gf = 0.5", "above 0 and below 0.5"),
    ] {
        let refused = laid_over(text).unwrap_err();
        assert!(refused.contains(part), "{text}: {refused}");
    }
    let plan = laid_over("[train]\nauto_beta = true\nauto_beta_min = 1e6").unwrap();
    assert!(plan.with_latents(N).unwrap_err().to_string().contains("at most auto_beta_max"));
}

#[test]
fn a_plan_prints_its_beta_in_every_convention_of_its_method() {
    let shown = |name: &str, latents: Option<u64>| {
        let plan = laid_over(&format!("[method]\nname = \"{name}\"\nbeta = 100")).unwrap();
        let plan = latents.map_or(plan.clone(), |n| plan.with_latents(n).unwrap());
        let text = plan.to_string();
        text.lines()
            .filter(|line| line.contains("beta, "))
            .map(|line| line.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let lines = shown("diffusion-dpo", Some(N));
    for (line, (name, value)) in lines.iter().zip([
        ("mean", "100 "),
        ("no-half", "50 "),
        ("sum", "0.00152587890625 "),
        ("sum-no-half", "7.62939453125e-4 "),
    ]) {
        assert!(line.contains(&format!("beta, {name} ")) && line.contains(value), "{line}");
    }
    assert_eq!(lines.len(), 4);
    assert!(lines[2].contains("SimpleTuner") && lines[2].contains("65536 numbers"), "{lines:?}");
    assert_eq!(shown("diffusion-dpo", None).len(), 2, "sums depend on the model");
    assert_eq!(shown("linear-dpo", Some(N)).len(), 2);
    for entry in OBJECTIVES.iter().filter(|entry| entry.beta_conventions.is_empty()) {
        let plan = laid_over(&format!("[method]\nname = \"{}\"", entry.name)).unwrap();
        assert_eq!(plan.with_latents(N).unwrap().betas().len(), 0, "{}", entry.name);
    }
}

#[test]
fn an_adapted_beta_has_simple_tuners_bounds_where_nothing_is_said() {
    let plan = laid_over("[train]\nauto_beta = true").unwrap();
    assert!(plan.auto_beta().is_none(), "the size of latents is not known");
    let rule = plan.with_latents(N).unwrap().auto_beta().unwrap();
    assert!((rule.range.0 - 65.536).abs() < 1e-9 && rule.range.1 == 65_536.0);
    assert!((rule.target_logit - 4.0_f64.ln()).abs() < 1e-12 && rule.decay == 0.99);
    assert_eq!(rule.start, 5000.0, "the method's own");
}
