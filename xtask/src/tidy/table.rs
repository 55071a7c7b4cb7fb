//! The crate table of `docs/architecture.md`: what a crate may import is said there and nowhere else.

use std::collections::BTreeSet;

use super::tree::Tree;

/// The file that holds the table.
pub const PLACE: &str = "docs/architecture.md";

/// What a row says of a crate's imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imports {
    /// Named one by one: the crate imports these and no others.
    Exactly(BTreeSet<String>),
    /// Said with a word for many (`all above`): the crate imports some of these.
    Among(BTreeSet<String>),
}

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The crate's short name: its folder.
    pub name: String,
    /// What it may import, by short names.
    pub imports: Imports,
}

/// The rows, in order; empty when the file or its table is missing.
pub fn rows(tree: &Tree) -> Vec<Row> {
    let text = tree.texts.iter().find(|file| file.path == PLACE).map_or("", |file| file.text.as_str());
    let lines = text.lines().skip_while(|line| !line.starts_with("| crate |")).skip(2);
    let cells: Vec<(String, String)> = lines.map_while(cells).collect();
    let names: Vec<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
    let row = |(index, (name, imports)): (usize, &(String, String))| Row {
        name: name.clone(),
        imports: meaning(imports, &names, index),
    };
    cells.iter().enumerate().map(row).collect()
}

/// The first and the last cell of a row.
fn cells(line: &str) -> Option<(String, String)> {
    let cells: Vec<&str> =
        line.strip_prefix('|')?.trim_end().strip_suffix('|')?.split('|').map(str::trim).collect();
    Some((cells.first()?.trim_matches('`').to_owned(), (*cells.last()?).to_owned()))
}

fn meaning(imports: &str, names: &[&str], index: usize) -> Imports {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let (words, exception) = imports.split_once(" but ").unwrap_or((imports, ""));
    let mut among = match words {
        "any" | "all" => owned(names),
        "all above" => owned(&names[..index]),
        "-" => return Imports::Exactly(BTreeSet::new()),
        list => return Imports::Exactly(list.split(',').map(|name| name.trim().to_owned()).collect()),
    };
    among.remove(exception.trim());
    among.remove(names[index]);
    Imports::Among(among)
}

#[cfg(test)]
mod tests {
    use super::{Imports, PLACE, rows};
    use crate::tidy::tree::Tree;

    #[test]
    fn rows_say_exactly_or_among() {
        let text = "# A\n\n| crate | purpose | may import |\n|---|---|---|\n| `a` | x | - |\n| `b` | y | a |\n\
                    | `c` | z | all above but a |\n| `d` | z | any |\n\nAfter | the | table\n";
        let rows = rows(&Tree::made_of(&[(PLACE, text)]));
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let found: Vec<_> = rows.into_iter().map(|row| (row.name, row.imports)).collect();
        assert_eq!(
            found,
            [
                ("a".to_owned(), Imports::Exactly(names(&[]))),
                ("b".to_owned(), Imports::Exactly(names(&["a"]))),
                ("c".to_owned(), Imports::Among(names(&["b"]))),
                ("d".to_owned(), Imports::Among(names(&["a", "b", "c"]))),
            ]
        );
    }

    #[test]
    fn no_table_means_no_rows() {
        assert!(rows(&Tree::made_of(&[(PLACE, "# A\n")])).is_empty());
        assert!(rows(&Tree::default()).is_empty());
    }
}
