//! Reading the `config.json` of a network: every key is used, checked to be neutral, or refused.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// Keys that carry no meaning for the result.
const ANNOTATIONS: [&str; 4] = ["_class_name", "_diffusers_version", "_name_or_path", "_commit_hash"];

/// The largest width, table or image a configuration may ask for: beyond every published network, and small enough that
/// products of a few sizes fit any integer.
pub const LARGEST: i64 = 1 << 24;

/// The most levels a network may have.
const MOST_LEVELS: i64 = 16;

/// The most layers a network may have in one level, or a stack of transformer layers in all.
pub const MOST_LAYERS: i64 = 128;

/// A configuration being read; problems are collected and reported together.
#[derive(Debug)]
pub struct ConfigReader {
    keys: Map<String, Value>,
    problems: Vec<String>,
}

impl ConfigReader {
    /// Starts on a JSON object. Anything else is a problem.
    pub fn new(config: &Value) -> Self {
        match config.as_object() {
            Some(keys) => {
                let keys = keys.iter().filter(|(k, _)| !ANNOTATIONS.contains(&k.as_str()));
                Self { keys: keys.map(|(k, v)| (k.clone(), v.clone())).collect(), problems: Vec::new() }
            }
            None => {
                Self { keys: Map::new(), problems: vec!["the configuration is not a JSON object".into()] }
            }
        }
    }

    /// Removes and returns a key; JSON `null` counts as absent.
    pub fn raw(&mut self, key: &str) -> Option<Value> {
        self.keys.shift_remove(key).filter(|value| !value.is_null())
    }

    /// A key of any deserializable type, or its default.
    pub fn or<T: serde::de::DeserializeOwned>(&mut self, key: &str, default: T) -> T {
        match self.raw(key) {
            None => default,
            Some(value) => serde_json::from_value(value.clone()).unwrap_or_else(|error| {
                self.problems.push(format!("`{key}` is {value}: {error}"));
                default
            }),
        }
    }

    /// A number within `range`, or its default.
    pub fn within(&mut self, key: &str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let value = self.or(key, default);
        if !range.contains(&value) {
            let (least, most) = range.into_inner();
            self.problem(format!("`{key}` is {value:e}; wanted a number from {least} to {most}"));
        }
        value
    }

    /// The term that keeps a normalization from dividing by 0.
    pub fn epsilon(&mut self, key: &str, default: f64) -> f64 {
        self.within(key, default, 0.0..=1.0)
    }

    /// A key that may be absent.
    pub fn optional<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        self.or(key, None)
    }

    /// One value for all levels, or a list with one value per level.
    pub fn per_level<T: serde::de::DeserializeOwned + Clone>(
        &mut self,
        key: &str,
        default: T,
        n: usize,
    ) -> Vec<T> {
        match self.raw(key) {
            None => vec![default; n],
            Some(Value::Array(values)) => {
                let list: Vec<T> = serde_json::from_value(Value::Array(values.clone())).unwrap_or_default();
                if list.len() != n {
                    self.problems.push(format!("`{key}` is {}; wanted {n} values", Value::Array(values)));
                    return vec![default; n];
                }
                list
            }
            Some(value) => match serde_json::from_value(value.clone()) {
                Ok(single) => vec![single; n],
                Err(error) => {
                    self.problems.push(format!("`{key}` is {value}: {error}"));
                    vec![default; n]
                }
            },
        }
    }

    /// Keys, with spaces between, that must be absent or have one of the values under which they change nothing.
    pub fn neutral(&mut self, keys: &str, allowed: &[Value]) {
        for key in keys.split_whitespace() {
            self.check_neutral(key, allowed);
        }
    }

    fn check_neutral(&mut self, key: &str, allowed: &[Value]) {
        if let Some(value) = self.raw(key).filter(|value| !allowed.contains(value)) {
            let allowed: Vec<_> = allowed.iter().map(Value::to_string).collect();
            let wanted = if allowed.is_empty() { "null".to_owned() } else { allowed.join(" or ") };
            self.problems.push(format!("`{key}` is {value}, which is not supported; wanted {wanted}"));
        }
    }

    /// Keys, with spaces between, that do not affect the result and may hold anything.
    pub fn ignored(&mut self, keys: &str) {
        for key in keys.split_whitespace() {
            self.keys.shift_remove(key);
        }
    }

    /// Checks that every value of a key is a size: at least 1 and at most `most`.
    pub fn sizes(&mut self, key: &str, values: &[i64], most: i64) {
        if let Some(n) = values.iter().find(|&&n| n < 1) {
            self.problems.push(format!("`{key}` has {n}; wanted at least 1"));
        }
        if let Some(n) = values.iter().find(|&&n| n > most) {
            self.problems.push(format!("`{key}` has {n}; wanted at most {most}"));
        }
    }

    /// Checks the levels of a UNet or a VAE: there are some, not too many, and each one's channels make groups.
    pub fn levels(&mut self, block_out_channels: &[i64], norm_num_groups: i64) {
        let n_levels = block_out_channels.len() as i64;
        if n_levels == 0 {
            self.problem("`block_out_channels` is empty; wanted at least one level".into());
        } else if n_levels > MOST_LEVELS {
            self.problem(format!("`block_out_channels` has {n_levels} levels; wanted at most {MOST_LEVELS}"));
        }
        self.sizes("block_out_channels", block_out_channels, LARGEST);
        for (level, channels) in block_out_channels.iter().enumerate() {
            if norm_num_groups < 1 || channels % norm_num_groups != 0 {
                let groups = norm_num_groups;
                self.problem(format!(
                    "level {level} has {channels} channels, which {groups} groups do not divide"
                ));
            }
        }
    }

    /// Records a problem found by the caller.
    pub fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    /// Ends reading.
    ///
    /// # Errors
    /// All problems, among them every key nobody asked for.
    pub fn finish(mut self) -> Result<(), String> {
        for (key, value) in &self.keys {
            if !value.is_null() {
                self.problems.push(format!("unknown key `{key}` with value {value}"));
            }
        }
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems.join("; ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_problem_is_reported_at_once() {
        let mut reader = ConfigReader::new(&json!({"a": "x", "b": 2, "c": 3, "_class_name": "N", "n": null}));
        let _: i64 = reader.or("a", 0);
        reader.neutral("b", &[json!(1)]);
        let text = reader.finish().expect_err("three problems");
        assert!(
            text.contains("`a`") && text.contains("`b` is 2") && text.contains("unknown key `c`"),
            "{text}"
        );
    }

    #[test]
    fn a_single_value_serves_every_level() {
        let mut reader = ConfigReader::new(&json!({"heads": 8, "depth": [1, 2]}));
        assert_eq!(reader.per_level("heads", 1i64, 3), [8, 8, 8]);
        assert_eq!(reader.per_level("depth", 1i64, 2), [1, 2]);
        assert!(reader.finish().is_ok());
    }
}
