//! Every setting, by its one declaration.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its recipe should stop")]

mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{SHORTEST, parse, plan_of, shortest_with};
use tastemaker_run::{AdapterKind, AdapterSection, Overrides, Shape, keys, resolve};

#[test]
fn every_key_is_in_the_plan_and_has_a_default_or_may_be_missing() {
    let lora = serde_json::to_value(plan_of(&shortest_with(""))).unwrap();
    let adapter = AdapterSection { adapter_type: Some(AdapterKind::Full), ..Default::default() };
    let full = resolve(parse(SHORTEST).unwrap(), Overrides { adapter, ..Default::default() }).unwrap();
    assert_eq!(serde_json::to_value(full).unwrap()["adapter"], json!({ "adapter_type": "full" }));
    let mut names = BTreeSet::new();
    for key in keys() {
        let value = key.typed(&lora).unwrap_or_else(|| panic!("{} is not in the plan", key.path));
        assert!(key.default().is_none() || !value.is_null(), "{}", key.path);
        assert!(names.insert(key.name()), "two keys are called {}", key.name());
        assert!(
            !key.help.trim().ends_with('.') && key.value_name.to_uppercase() == key.value_name,
            "{}",
            key.path
        );
        if let (Some(check), Some(_)) = (key.check, key.default()) {
            assert!((check.holds)(value), "the default of {} is refused", key.path);
        }
    }
}

#[test]
fn names_of_earlier_versions_are_read_and_said_once() {
    for key in keys() {
        let Some(old) = key.old_key else { continue };
        let value = match key.shape {
            Shape::Repeated | Shape::List => json!([first_of(key.read)]),
            _ => first_of(key.read),
        };
        let typed = |name: &str| toml::to_string(&json!({ key.section(): { name: value.clone() } })).unwrap();
        let (before, now) = (parse(&typed(old)).unwrap(), parse(&typed(key.name())).unwrap());
        let said: Vec<String> = before.renamed.iter().map(ToString::to_string).collect();
        assert_eq!(said, [format!("{}.{old} is now called {}", key.section(), key.path)]);
        assert_eq!(tastemaker_run::Recipe { renamed: Vec::new(), ..before }, now);
    }
}

fn first_of(read: fn(&str) -> Result<Value, String>) -> Value {
    ["lora", "adamw", "unet", "float32", "warn", "1"].into_iter().find_map(|text| read(text).ok()).unwrap()
}
