//! Who imports whom.

use std::collections::BTreeSet;

use super::metadata::Member;
use super::table::{self, Imports, Row};
use super::tree::{Finding, Tree};

/// Crates that never reach the bindings to libtorch, not even in their tests: they build in seconds.
const WITHOUT_LIBTORCH: [&str; 11] =
    ["math", "store", "weights", "hub", "pages", "data", "run", "web", "testkit", "assets", "xtask"];

/// The bindings to libtorch.
const BINDINGS: [&str; 2] = ["tch", "torch-sys"];

/// The crate that touches the network, and the one crate that may import it.
const NETWORK: &str = "hub";
const PROGRAM: &str = "cli";

/// The build script that tells executables where libtorch is.
const LINK_SCRIPT: &str = "crates/torch/link.rs";

/// That of the crate with the shim, which runs the other one and compiles.
const SHIM_SCRIPT: &str = "crates/torch/build.rs";

/// For tests only; tests of any crate may import them, the second only where libtorch may be reached.
const TEST_KITS: [&str; 2] = ["testkit", "testkit-torch"];

/// All findings of this module.
pub fn findings(tree: &Tree, members: &[Member]) -> Vec<Finding> {
    let rows = table::rows(tree);
    let mut found = rows_and_members(&rows, members);
    for member in members {
        if let Some(row) = rows.iter().find(|row| row.name == member.name) {
            found.extend(imports(row, member));
        }
        found.extend(libtorch(member));
        found.extend(network(member));
        found.extend(lints(tree, member));
    }
    found
}

fn rows_and_members(rows: &[Row], members: &[Member]) -> Vec<Finding> {
    let rows: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let unlisted = names.difference(&rows).map(|name| format!("the crate table has no row for `{name}`"));
    let gone =
        rows.difference(&names).map(|name| format!("the crate table lists `{name}`, which does not exist"));
    unlisted.chain(gone).map(|message| Finding::at(table::PLACE, message)).collect()
}

fn imports(row: &Row, member: &Member) -> Vec<Finding> {
    let nothing = BTreeSet::new();
    let (allowed, wanted) = match &row.imports {
        Imports::Exactly(names) => (names, names),
        Imports::Among(names) => (names, &nothing),
    };
    let name = &member.name;
    let mut messages = Vec::new();
    for import in member.imports.difference(allowed) {
        messages.push(format!("`{name}` imports `{import}`, which the crate table does not allow"));
    }
    for import in wanted.difference(&member.imports) {
        messages.push(format!("`{name}` does not import `{import}`, which the crate table says it does"));
    }
    for import in
        member.test_imports.difference(allowed).filter(|import| !is_test_kit(import) && *import != name)
    {
        messages.push(format!("tests of `{name}` import `{import}`, which the crate table does not allow"));
    }
    if let Some(kit) = member.imports.iter().find(|import| is_test_kit(import) && !is_test_kit(name)) {
        messages.push(format!("`{name}` imports `{kit}` outside its tests"));
    }
    messages.into_iter().map(|message| Finding::at(&member.manifest, message)).collect()
}

fn is_test_kit(name: &str) -> bool {
    TEST_KITS.contains(&name)
}

fn libtorch(member: &Member) -> Option<Finding> {
    let binding = BINDINGS.into_iter().find(|name| member.reach.contains(*name))?;
    if WITHOUT_LIBTORCH.contains(&member.name.as_str()) {
        let message =
            format!("`{}` must stay free of libtorch, and it or its tests reach `{binding}`", member.name);
        return Some(Finding::at(&member.manifest, message));
    }
    let wanted = if member.name == "torch" { SHIM_SCRIPT } else { LINK_SCRIPT };
    if member.build_script.as_deref() != Some(wanted) {
        let message = "it reaches libtorch, so its executables need the build script `../torch/link.rs`";
        return Some(Finding::at(&member.manifest, message));
    }
    None
}

fn network(member: &Member) -> Option<Finding> {
    let message =
        format!("`{}` imports `{NETWORK}`, and only the program may touch the network", member.name);
    let imported = member.imports.contains(NETWORK) || member.test_imports.contains(NETWORK);
    (imported && member.name != PROGRAM).then(|| Finding::at(&member.manifest, message))
}

fn lints(tree: &Tree, member: &Member) -> Option<Finding> {
    let manifest = tree.texts.iter().find(|file| file.path == member.manifest)?;
    let inherited = manifest.text.parse::<toml::Table>().is_ok_and(|table| {
        table.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool)
            == Some(true)
    });
    (!inherited).then(|| Finding::at(&member.manifest, "add `[lints] workspace = true`"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::metadata::Member;
    use super::super::table::PLACE;
    use super::super::tree::Tree;
    use super::{LINK_SCRIPT, SHIM_SCRIPT, findings};

    const TABLE: &str = "| crate | purpose | may import |\n|---|---|---|\n| `math` | x | - |\n| `store` | x | - |\n\
                         | `torch` | x | store |\n| `train` | x | all above |\n| `testkit` | x | - |\n\
                         | `testkit-torch` | x | testkit, torch |\n";

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn member(name: &str, imports: &[&str]) -> Member {
        let libtorch = !["math", "store", "testkit"].contains(&name);
        Member {
            name: name.to_owned(),
            imports: names(imports),
            reach: if libtorch { names(&["tch", "torch-sys"]) } else { BTreeSet::new() },
            manifest: format!("crates/{name}/Cargo.toml"),
            build_script: libtorch
                .then(|| if name == "torch" { SHIM_SCRIPT } else { LINK_SCRIPT }.to_owned()),
            ..Member::default()
        }
    }

    fn sound() -> Vec<Member> {
        vec![
            member("math", &[]),
            member("store", &[]),
            member("torch", &["store"]),
            member("train", &["torch", "math"]),
            member("testkit", &[]),
            member("testkit-torch", &["testkit", "torch"]),
        ]
    }

    /// What is found when `change` is done to a sound workspace.
    fn messages(change: impl FnOnce(&mut Vec<Member>)) -> Vec<String> {
        let mut members = sound();
        change(&mut members);
        let found = findings(&Tree::made_of(&[(PLACE, TABLE)]), &members);
        found.into_iter().map(|finding| finding.message).collect()
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_workspace_like_its_table_is_sound() {
        assert_eq!(messages(|_| {}), NOTHING);
    }

    #[test]
    fn crates_and_rows_are_the_same() {
        assert_eq!(
            messages(|members| members.push(member("web", &[])))[0],
            "the crate table has no row for `web`"
        );
        let gone = messages(|members| drop(members.remove(3)));
        assert_eq!(gone, ["the crate table lists `train`, which does not exist"]);
    }

    #[test]
    fn an_edge_beside_the_table_is_found() {
        let found = messages(|members| members[0].imports = names(&["store"]));
        assert_eq!(found, ["`math` imports `store`, which the crate table does not allow"]);
    }

    #[test]
    fn an_edge_the_table_promises_is_there() {
        let found = messages(|members| members[2].imports.clear());
        assert_eq!(found, ["`torch` does not import `store`, which the crate table says it does"]);
    }

    #[test]
    fn tests_may_use_the_test_kit_and_nothing_else_may() {
        assert_eq!(messages(|members| members[3].test_imports = names(&["testkit-torch"])), NOTHING);
        assert_eq!(messages(|members| members[1].test_imports = names(&["testkit"])), NOTHING);
        let found = messages(|members| members[2].test_imports = names(&["train"]));
        assert_eq!(found, ["tests of `torch` import `train`, which the crate table does not allow"]);
        let found = messages(|members| members[3].imports.extend(names(&["testkit"])));
        assert!(found.iter().any(|message| message.ends_with("outside its tests")), "{found:?}");
    }

    #[test]
    fn crates_without_libtorch_do_not_reach_it() {
        let found = messages(|members| members[0].reach = names(&["safetensors", "torch-sys"]));
        assert_eq!(found, ["`math` must stay free of libtorch, and it or its tests reach `torch-sys`"]);
    }

    #[test]
    fn only_the_program_imports_the_network() {
        let found = messages(|members| members[1].test_imports = names(&["hub"]));
        assert!(found.contains(&"`store` imports `hub`, and only the program may touch the network".into()));
    }

    #[test]
    fn crates_with_libtorch_tell_executables_where_it_is() {
        let found = messages(|members| members[3].build_script = None);
        assert!(found[0].contains("need the build script"), "{found:?}");
    }

    #[test]
    fn every_manifest_inherits_the_lints() {
        let found = |manifest: &str| {
            let tree = Tree::made_of(&[(PLACE, TABLE), ("crates/math/Cargo.toml", manifest)]);
            findings(&tree, &sound()).len()
        };
        assert_eq!(found("[package]\nname = \"x\"\n"), 1);
        assert_eq!(found("[package]\nname = \"x\"\n[lints]\nworkspace = true\n"), 0);
    }
}
