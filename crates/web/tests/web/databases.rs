//! Databases that somebody else wrote to, and names that people would take for one.

use std::path::Path;

use rusqlite::Connection;
use tastemaker_web::results::Results;
use tastemaker_web::vote::{Booth, Database, Record, voter_names};

use crate::support::{names, settings, study};

/// What opening the database of a study of three pairs says, `None` if all is well.
fn opened(db: &Path) -> Option<String> {
    let opened = Database::open(db, &study(3), &settings(1, 1));
    let booth = opened.and_then(|database| Booth::open(database, study(3), settings(1, 1), &names(&["me"])));
    booth.err().map(|error| error.to_string())
}

fn change(db: &Path, sql: &str) {
    let sql = format!("PRAGMA foreign_keys = OFF; {sql}");
    Connection::open(db).unwrap().execute_batch(&sql).unwrap();
}

#[test]
fn a_database_of_another_program_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("places.sqlite");
    change(&db, "CREATE TABLE places (url TEXT)");
    let before = std::fs::read(&db).unwrap();
    assert!(opened(&db).unwrap().contains("it is a database of another program"));
    assert_eq!(std::fs::read(&db).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn a_database_has_one_writer_by_whatever_name() {
    let folder = tempfile::tempdir().unwrap();
    let (db, link) = (folder.path().join("votes.sqlite"), folder.path().join("link.sqlite"));
    let first = Database::open(&db, &study(3), &settings(1, 1)).unwrap();
    std::os::unix::fs::symlink(&db, &link).unwrap();
    assert!(opened(&link).unwrap().contains("another process is collecting votes in it"));
    drop(first);
    assert_eq!(opened(&link), None);
}

#[test]
fn links_are_not_made_with_a_key_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    for (number, sql) in
        ["DELETE FROM meta WHERE key = 'key'", "UPDATE meta SET value = '' WHERE key = 'key'"]
            .into_iter()
            .enumerate()
    {
        let db = folder.path().join(format!("{number}.sqlite"));
        assert_eq!(opened(&db), None);
        change(&db, sql);
        assert!(opened(&db).unwrap().contains("its key is gone"), "{sql}");
    }
}

#[test]
fn rows_that_name_nothing_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let vote = |values: &str| {
        format!(
            "INSERT INTO vote (voter, item, question, round, answer, a_is_left, position, seconds, at) VALUES ({values})"
        )
    };
    let cases = [
        (vote("1, 99, 'general', 0, 'a', 1, 0, 1, 1"), true),
        (vote("99, 1, 'general', 0, 'a', 1, 0, 1, 1"), true),
        (vote("0, 1, 'general', 0, 'a', 1, 0, 1, 1"), true),
        (vote("1, 1, 'general', 7, 'a', 1, 0, 1, 1"), true),
        ("UPDATE item SET prompt = 99".to_owned(), false),
        ("UPDATE item SET model_b = 9".to_owned(), false),
    ];
    for (number, (sql, of_vote)) in cases.iter().enumerate() {
        let db = folder.path().join(format!("{number}.sqlite"));
        assert_eq!(opened(&db), None);
        assert!(Results::of(&Record::read(&db).unwrap(), None, &[]).is_ok());
        change(&db, sql);
        let error = Record::read(&db).unwrap_err().to_string();
        assert!(
            error.contains("it is damaged") && error.contains("not there")
                || error.contains("nothing that is there"),
            "{sql}: {error}"
        );
        if *of_vote {
            assert!(opened(&db).unwrap().contains("it is damaged"), "{sql}");
        }
    }
}

#[test]
fn voters_are_told_apart() {
    let typed = |list: &[&str]| voter_names(&names(list)).map_err(|error| error.to_string());
    assert_eq!(typed(&["ann", " bo"]).unwrap(), names(&["ann", "bo"]));
    let long = "\u{4e2d}".repeat(80);
    assert_eq!(typed(&[&long]).unwrap(), names(&[&long]));
    for alike in [["ann", "ann"], ["ann", "Ann "], ["ann lee", "Ann  Lee"]] {
        assert!(typed(&alike).unwrap_err().starts_with("two voters are named"), "{alike:?}");
    }
    for odd in ["", " ", "a\tb", "a\u{202e}b", &"a".repeat(81)] {
        assert!(typed(&[odd]).unwrap_err().contains("wanted 1 to 80 letters"), "{odd:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let open = |voter: &str| {
        let database = Database::open(&db, &study(3), &settings(1, 1)).unwrap();
        let booth = Booth::open(database, study(3), settings(1, 1), &names(&[voter]));
        booth.map(|booth| booth.voters().len()).map_err(|error| error.to_string())
    };
    assert_eq!((open("Ann"), open("Ann"), open("bo")), (Ok(1), Ok(1), Ok(2)));
    assert!(open("ann").unwrap_err().contains("is \"Ann\" in the database"));
}
