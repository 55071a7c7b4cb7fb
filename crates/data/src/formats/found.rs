//! What is almost a layout, and the one change that makes it one.

use tastemaker_store::tree::{Entry, FileKind, Location, unread};

/// Names that others give the folders of winners and losers.
const SIDES: [(&str, &str); 9] = [
    ("winners", "losers"),
    ("winner", "loser"),
    ("win", "lose"),
    ("chosen", "rejected"),
    ("preferred", "rejected"),
    ("good", "bad"),
    ("positive", "negative"),
    ("liked", "disliked"),
    ("W", "L"),
];

/// Endings of lists and tables.
const LISTS: [&str; 3] = [".jsonl", ".json", ".csv"];

/// What files without a layout are, and what to do; `None` if nobody knows.
pub fn found(location: &Location, entries: &[Entry]) -> Option<String> {
    if entries.is_empty() {
        return Some("there is no file in it".into());
    }
    let place = |below: &str| location.typed().join(below).display().to_string();
    if let Some((winners, losers)) = sides(entries) {
        return Some(format!("it has {winners}/ and {losers}/; rename them to w/ and l/"));
    }
    if entries.iter().any(|entry| entry.path.ends_with(".arrow")) {
        return Some(format!(
            "it has arrow files of save_to_disk; write them as parquet with \
             datasets.load_from_disk({:?}).to_parquet(\"pairs.parquet\"), for each split of several",
            location.typed()
        ));
    }
    let is_list = |path: &str| LISTS.iter().any(|ending| path.ends_with(ending)) && !is_about(path);
    let at_top: Vec<&str> = paths(entries).filter(|path| !path.contains('/') && is_list(path)).collect();
    match at_top.as_slice() {
        [] => {}
        [list] => return Some(format!("it has {list}; name the file itself, {}", place(list))),
        lists => {
            let some = lists.iter().take(3).copied().collect::<Vec<_>>().join(", ");
            return Some(format!(
                "it has {} lists ({some}); name one of them, {}",
                lists.len(),
                place(lists[0])
            ));
        }
    }
    let is_table =
        |path: &str| is_list(path) || [".parquet", ".tar"].iter().any(|ending| path.ends_with(ending));
    if let Some(table) = paths(entries).find(|path| is_table(path))
        && let Some((folder, _)) = table.rsplit_once('/')
    {
        return Some(format!("it has {table}; name that folder, {}", place(folder)));
    }
    let n_images = paths(entries).filter(|path| FileKind::of_path(path) == FileKind::Image).count();
    match (n_images, unread(entries)) {
        (0, Some(unread)) => Some(format!("it has images of formats that are not read ({unread})")),
        (0, None) => None,
        (1, _) => Some("it has one image and nothing that says what it is a pair with".into()),
        (n, _) => Some(format!(
            "it has {n} images and no list of pairs; write one, or put winners in w/ and losers in l/"
        )),
    }
}

/// Whether there are folders of winners and losers that others call so.
pub fn has_sides(entries: &[Entry]) -> bool {
    sides(entries).is_some()
}

fn sides(entries: &[Entry]) -> Option<(&'static str, &'static str)> {
    let has = |folder: &str| entries.iter().any(|entry| in_folder(&entry.path) == Some(folder));
    SIDES.into_iter().find(|(winners, losers)| has(winners) && has(losers))
}

fn paths(entries: &[Entry]) -> impl Iterator<Item = &str> {
    entries.iter().map(|entry| entry.path.as_str())
}

/// The folder at the top that a file is in.
fn in_folder(path: &str) -> Option<&str> {
    Some(path.split_once('/')?.0)
}

/// Whether a file says something about a dataset and holds no rows.
fn is_about(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    [
        "dataset_info.json",
        "dataset_infos.json",
        "dataset_dict.json",
        "state.json",
        "check.jsonl",
        "excluded.jsonl",
    ]
    .contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_almost_a_layout_is_named_with_the_one_change() {
        let location = Location::new(
            std::sync::Arc::new(tastemaker_store::tree::LocalTree::new("set")),
            Vec::new(),
            "set",
        );
        for (paths, wanted) in [
            (&["winners/1.png", "losers/1.png"][..], "it has winners/ and losers/; rename them to w/ and l/"),
            (&["chosen/1.png", "rejected/1.png"], "it has chosen/ and rejected/; rename them to w/ and l/"),
            (&["pairs.jsonl", "1.png"], "it has pairs.jsonl; name the file itself, set/pairs.jsonl"),
            (&["a.csv", "b.csv"], "it has 2 lists (a.csv, b.csv); name one of them, set/a.csv"),
            (
                &["train/metadata.jsonl", "train/1.png"],
                "it has train/metadata.jsonl; name that folder, set/train",
            ),
            (&["train/0.parquet", "test/0.parquet"], "it has train/0.parquet; name that folder, set/train"),
            (
                &["data-00000-of-00001.arrow", "dataset_info.json", "state.json"],
                "it has arrow files of save_to_disk; write them as parquet with \
                 datasets.load_from_disk(\"set\").to_parquet(\"pairs.parquet\"), for each split of several",
            ),
            (&["1.avif", "2.avif"], "it has images of formats that are not read (2 .avif)"),
            (
                &["1.png", "2.png"],
                "it has 2 images and no list of pairs; write one, or put winners in w/ and losers in l/",
            ),
            (&[], "there is no file in it"),
        ] {
            let entries: Vec<Entry> =
                paths.iter().map(|path| Entry { path: (*path).into(), bytes: 0 }).collect();
            assert_eq!(found(&location, &entries).as_deref(), Some(wanted), "{paths:?}");
        }
        let other = Entry { path: "notes.md".into(), bytes: 0 };
        assert_eq!(found(&location, &[other]), None);
    }
}
