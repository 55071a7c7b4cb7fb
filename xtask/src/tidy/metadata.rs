//! Cargo's view of the workspace, reduced to what the checks ask.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::child;

/// One package of the workspace. Packages of the workspace are named by their short names.
#[derive(Debug, Default, Clone)]
pub struct Member {
    /// Short name: `math` for `tastemaker-math`.
    pub name: String,
    /// Workspace packages it imports, build scripts included.
    pub imports: BTreeSet<String>,
    /// Workspace packages its tests import besides.
    pub test_imports: BTreeSet<String>,
    /// Every package it or its tests reach, by full name.
    pub reach: BTreeSet<String>,
    /// Its manifest, from the root.
    pub manifest: String,
    /// Its build script, from the root.
    pub build_script: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: String,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

/// Asks cargo for the packages of the workspace in `root`.
///
/// # Errors
/// Cargo fails, or answers something else than expected.
pub fn members(root: &Path) -> Result<Vec<Member>> {
    let text = child::output(child::cargo(root).args(["metadata", "--format-version", "1"]))?;
    read(&text, root)
}

fn read(text: &str, root: &Path) -> Result<Vec<Member>> {
    let metadata: Metadata = serde_json::from_str(text).context("cannot understand cargo's metadata")?;
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
    let nodes: BTreeMap<&str, &[String]> =
        metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node.dependencies.as_slice())).collect();
    let ours: BTreeSet<&str> = metadata.workspace_members.iter().map(|id| names[id.as_str()]).collect();
    let packages =
        metadata.packages.iter().filter(|package| metadata.workspace_members.contains(&package.id));
    let member = |package: &Package| {
        let imports = |for_tests: bool| {
            let kind = move |kind: &Option<String>| (kind.as_deref() == Some("dev")) == for_tests;
            let chosen = package.dependencies.iter().filter(|import| kind(&import.kind));
            chosen
                .filter(|import| ours.contains(import.name.as_str()))
                .map(|import| short(&import.name))
                .collect()
        };
        let script =
            package.targets.iter().find(|target| target.kind.iter().any(|kind| kind == "custom-build"));
        Member {
            name: short(&package.name),
            imports: imports(false),
            test_imports: imports(true),
            reach: reach(&package.id, &nodes, &names),
            manifest: from_root(&package.manifest_path, root),
            build_script: script.map(|target| from_root(&target.src_path, root)),
        }
    };
    Ok(packages.map(member).collect())
}

fn reach(start: &str, nodes: &BTreeMap<&str, &[String]>, names: &BTreeMap<&str, &str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::from([start]);
    let mut waiting = vec![start];
    while let Some(id) = waiting.pop() {
        let next = nodes.get(id).copied().unwrap_or_default();
        waiting.extend(next.iter().map(String::as_str).filter(|id| seen.insert(id)));
    }
    seen.remove(start);
    seen.into_iter().filter_map(|id| names.get(id)).map(|name| (*name).to_owned()).collect()
}

fn short(package: &str) -> String {
    package.strip_prefix("tastemaker-").unwrap_or(package).to_owned()
}

/// `path` from the root, with the steps upwards that a manifest may contain taken.
fn from_root(path: &str, root: &Path) -> String {
    let path = Path::new(path).strip_prefix(root).unwrap_or(Path::new(path));
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part.as_os_str().to_string_lossy().as_ref() {
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{from_root, read};

    #[test]
    fn members_their_imports_and_their_reach_are_read() {
        let text = r#"{
            "packages": [
                {"id": "1", "name": "tastemaker-a", "manifest_path": "/r/crates/a/Cargo.toml", "targets":
                    [{"kind": ["custom-build"], "src_path": "/r/crates/a/../torch/link.rs"}], "dependencies":
                    [{"name": "tastemaker-b", "kind": null}, {"name": "tch", "kind": null},
                     {"name": "tastemaker-c", "kind": "dev"}]},
                {"id": "2", "name": "tastemaker-b", "manifest_path": "/r/crates/b/Cargo.toml", "targets": [],
                    "dependencies": [{"name": "tch", "kind": null}]},
                {"id": "3", "name": "tastemaker-c", "manifest_path": "/r/c/Cargo.toml", "targets": [], "dependencies": []},
                {"id": "4", "name": "tch", "manifest_path": "/x/Cargo.toml", "targets": [], "dependencies": []},
                {"id": "5", "name": "torch-sys", "manifest_path": "/y/Cargo.toml", "targets": [], "dependencies": []}
            ],
            "workspace_members": ["1", "2", "3"],
            "resolve": {"nodes": [
                {"id": "1", "dependencies": ["2", "3"]}, {"id": "2", "dependencies": ["4"]}, {"id": "3", "dependencies": []},
                {"id": "4", "dependencies": ["5"]}, {"id": "5", "dependencies": []}
            ]}
        }"#;
        let members = read(text, Path::new("/r")).expect("metadata");
        assert_eq!(members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        let a = &members[0];
        assert_eq!(a.imports.iter().collect::<Vec<_>>(), ["b"]);
        assert_eq!(a.test_imports.iter().collect::<Vec<_>>(), ["c"]);
        assert!(a.reach.contains("torch-sys") && !a.reach.contains("tastemaker-a"));
        assert_eq!(a.build_script.as_deref(), Some("crates/torch/link.rs"));
        assert!(members[2].reach.is_empty());
    }

    #[test]
    fn steps_upwards_are_taken() {
        assert_eq!(from_root("/r/crates/a/../b/x.rs", Path::new("/r")), "crates/b/x.rs");
    }
}
