//! Dealing: everybody gets what they should, and nobody anything twice.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::support::{Running, names, settings, study, task};
use serde_json::{Value, json};
use tastemaker_web::study::{Item, Study, StudySettings};
use tastemaker_web::vote::{Access, Answer, Booth, Database, Record, Task};

/// Votes until nothing is left; the tasks in order.
fn votes(server: &Running, voter: usize, answer: impl Fn(&Value) -> &'static str) -> Vec<Task> {
    let client = server.voter(voter);
    let mut shown = client.state().unwrap();
    let mut done = Vec::new();
    while let Some(task) = task(&shown) {
        let (status, next) = client.vote(&task, answer(&shown["tasks"][0])).unwrap();
        if status == 200 {
            done.push(task.parse().unwrap());
        }
        shown = next;
    }
    done
}

#[test]
fn every_pair_gets_its_votes_and_nobody_sees_one_twice() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let voters = ["ann", "bo", "cy", "di"];
    let server = Running::start(&db, study(30), settings(2, 3), &voters, Access::Invited);
    std::thread::scope(|scope| {
        for voter in 0..voters.len() {
            let server = &server;
            scope.spawn(move || votes(server, voter, |_| ["left", "right", "tie", "bad"][voter]));
        }
    });
    let record = Record::read(&db).unwrap();
    let (mut counts, mut seen) = (HashMap::<(u32, u32), u32>::new(), HashSet::new());
    for ballot in &record.ballots {
        *counts.entry((ballot.task.item, ballot.task.question)).or_default() += 1;
        assert!(seen.insert((ballot.voter, ballot.task)), "{:?} twice", ballot.task);
    }
    assert_eq!(counts.len(), 60);
    assert!(counts.values().all(|count| *count == 3), "{counts:?}");
    // Sides are shuffled: about half of all first images are on the left.
    let left = record.ballots.iter().filter(|ballot| ballot.a_is_left).count();
    assert!((50..130).contains(&left), "{left} of 180");
}

#[test]
fn questions_about_a_pair_come_one_after_the_other_on_the_same_sides() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let server = Running::start(&db, study(10), settings(3, 1), &["me"], Access::Open);
    let done = votes(&server, 0, |_| "left");
    for about in done.chunks(3) {
        assert!(about.iter().all(|task| task.item == about[0].item), "{about:?}");
        assert_eq!(about.iter().map(|task| task.question).collect::<Vec<_>>(), [0, 1, 2]);
    }
    let record = Record::read(&db).unwrap();
    for about in record.ballots.chunks(3) {
        assert!(about.iter().all(|ballot| ballot.a_is_left == about[0].a_is_left));
    }
}

#[test]
fn a_pair_that_one_voter_skips_goes_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let server = Running::start(&db, study(5), settings(1, 1), &["ann", "bo"], Access::Invited);
    assert_eq!(votes(&server, 0, |_| "skip").len(), 5);
    assert_eq!(votes(&server, 1, |_| "left").len(), 5);
    assert_eq!(votes(&server, 0, |_| "left"), []);
}

#[test]
fn a_vote_is_taken_back_and_changed() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let server = Running::start(&db, study(3), settings(1, 1), &["me"], Access::Open);
    let client = server.voter(0);
    let first = task(&client.state().unwrap()).unwrap();
    let undo = || client.post("/api/undo", &json!({ "task": first })).unwrap();
    assert_eq!(undo().0, 409);
    let (_, shown) = client.vote(&first, "left").unwrap();
    assert_ne!(task(&shown).unwrap(), first);
    let (status, shown) = undo();
    assert_eq!((status, task(&shown).unwrap()), (200, first.clone()));
    client.vote(&first, "left").unwrap();
    client.vote(&first, "tie").unwrap();
    let record = Record::read(&db).unwrap();
    assert_eq!(record.ballots.len(), 1);
    assert_eq!(record.ballots[0].answer, Some(Answer::Tie));
    // All four rows are there: nothing is ever overwritten.
    assert_eq!(record.ballots[0].position, 3);
}

#[test]
fn asking_again_to_take_a_vote_back_takes_back_no_other_one() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let server = Running::start(&db, study(3), settings(1, 1), &["me"], Access::Open);
    let client = server.voter(0);
    let first = task(&client.state().unwrap()).unwrap();
    let (_, shown) = client.vote(&first, "left").unwrap();
    let (_, shown) = client.vote(&task(&shown).unwrap(), "left").unwrap();
    // The page did not hear the first answer.
    for status in [200, 409] {
        assert_eq!(client.post("/api/undo", &json!({ "task": shown["last"] })).unwrap().0, status);
    }
    let standing = Record::read(&db).unwrap().ballots;
    assert_eq!(standing.iter().map(|ballot| ballot.task.to_string()).collect::<Vec<_>>(), [first]);
}

#[test]
fn a_vote_that_was_taken_back_is_asked_for_again_by_a_program_that_starts_anew() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let settings = || StudySettings { repeats: 1.0, ..settings(2, 1) };
    let start = || Running::start(&db, study(12), settings(), &["me"], Access::Open);
    let mut taken_back = HashSet::new();
    for round in 0.. {
        let server = start();
        let client = server.voter(0);
        let mut shown = client.state().unwrap();
        for _ in 0..5 {
            let Some(task) = task(&shown) else { break };
            shown = client.vote(&task, "left").unwrap().1;
        }
        let Some(last) = shown["last"].as_str().filter(|_| round < 8) else { break };
        // Of both rounds, and of both questions.
        let last: Task = last.parse().unwrap();
        client.post("/api/undo", &json!({ "task": last.to_string() })).unwrap();
        if last.question == 1 {
            let other = Task { question: 0, ..last };
            client.post("/api/undo", &json!({ "task": other.to_string() })).unwrap();
        }
        taken_back.insert(last);
    }
    drop(start());
    let server = start();
    votes(&server, 0, |_| "left");
    let standing: HashSet<Task> =
        Record::read(&db).unwrap().ballots.iter().map(|ballot| ballot.task).collect();
    assert_eq!(standing.len(), 12 * 2 * 2, "{taken_back:?}");
}

#[test]
fn a_pair_is_not_asked_again_of_whoever_skips_it_after_all() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let settings = StudySettings { repeats: 1.0, ..settings(1, 1) };
    let server = Running::start(&db, study(3), settings, &["me"], Access::Open);
    let client = server.voter(0);
    let mut shown = client.state().unwrap();
    while let Some(task) = task(&shown) {
        let Some(first) = task.strip_suffix("-1") else {
            shown = client.vote(&task, "left").unwrap().1;
            continue;
        };
        let (status, next) = client.vote(&format!("{first}-0"), "skip").unwrap();
        assert_eq!(status, 200);
        assert!(
            next["tasks"].as_array().unwrap().iter().all(|other| other["task"] != *task),
            "{task} is stuck"
        );
        shown = next;
    }
}

#[test]
fn a_pair_comes_again_with_sides_swapped() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let settings = StudySettings { repeats: 0.5, ..settings(1, 1) };
    let server = Running::start(&db, study(40), settings, &["me"], Access::Open);
    let done = votes(&server, 0, |_| "left");
    let again: Vec<&Task> = done.iter().filter(|task| task.round == 1).collect();
    assert!((10..30).contains(&again.len()) && done.len() == 40 + again.len(), "{}", again.len());
    let record = Record::read(&db).unwrap();
    for task in again {
        let of_round = |round| {
            let same = |task: Task| (task.item, task.round);
            record.ballots.iter().position(|ballot| same(ballot.task) == (task.item, round)).unwrap()
        };
        let (first, second) = (of_round(0), of_round(1));
        assert!(second > first + 3 || second > 40, "{first} {second}");
        assert_ne!(record.ballots[first].a_is_left, record.ballots[second].a_is_left);
    }
}

#[test]
fn known_answers_are_spread_over_the_study_and_everybody_gets_them() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let with_gold = || {
        let gold = Study { items: study(4).items.into_iter().map(known).collect(), ..study(4) };
        study(20).with_gold(gold)
    };
    let server = Running::start(&db, with_gold(), settings(1, 2), &["ann", "bo"], Access::Invited);
    for voter in 0..2 {
        let done = votes(&server, voter, |_| "left");
        let gold: Vec<usize> = (0..done.len()).filter(|&at| done[at].item >= 20).collect();
        assert_eq!((done.len(), gold.len()), (24, 4), "{gold:?}");
        assert!(gold.windows(2).all(|two| two[1] - two[0] >= 4), "{gold:?}");
    }
}

fn known(item: Item) -> Item {
    Item { known: Some(0), ..item }
}

#[test]
fn a_database_is_of_one_study_and_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let open = |study: &Study, settings: &StudySettings| {
        Database::open(&db, study, settings).map(drop).map_err(|error| error.to_string())
    };
    let first = Database::open(&db, &study(3), &settings(1, 1)).unwrap();
    let second = open(&study(3), &settings(1, 1)).unwrap_err();
    assert!(second.contains("another process is collecting votes in it"), "{second}");
    drop(first);
    assert_eq!(open(&study(3), &settings(1, 5)), Ok(()), "more votes may be asked for");
    assert!(open(&study(4), &settings(1, 1)).unwrap_err().contains("other images or prompts"));
    assert!(open(&study(3), &settings(2, 1)).unwrap_err().contains("general, and general, appeal are asked"));
    let other = StudySettings { seed: 1, ..settings(1, 1) };
    assert!(open(&study(3), &other).unwrap_err().contains("it has --seed 0, and 1 was typed"));
    std::fs::write(folder.path().join("no.sqlite"), "no database at all, but a text of some length").unwrap();
    let error = Record::read(&folder.path().join("no.sqlite")).unwrap_err().to_string();
    assert!(error.contains("cannot be used"), "{error}");
}

#[test]
fn five_thousand_pairs_open_at_once_and_the_next_one_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    drop(Database::open(&db, &study(5000), &settings(3, 5)).unwrap());
    let start = Instant::now();
    let server =
        Running::start(&db, study(5000), settings(3, 5), &["a", "b", "c", "d", "e"], Access::Invited);
    let client = server.voter(0);
    let mut shown = client.state().unwrap();
    let opening = start.elapsed();
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        let (status, next) = client.vote(&task(&shown).unwrap(), "left").unwrap();
        times.push(start.elapsed());
        assert_eq!(status, 200);
        shown = next;
    }
    times.sort_unstable();
    println!("opened in {opening:?}; next pair in {:?}, at most {:?}", times[25], times[49]);
}

#[test]
fn the_booth_takes_up_where_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let n = AtomicUsize::new(0);
    for _ in 0..4 {
        let server = Running::start(&db, study(4), settings(2, 1), &["me"], Access::Open);
        let client = server.voter(0);
        let mut shown = client.state().unwrap();
        for _ in 0..2 {
            let Some(task) = task(&shown) else { break };
            // The second question of a pair that was begun comes first.
            let begun: Task = task.parse().unwrap();
            assert_eq!(begun.question as usize, n.fetch_add(1, Ordering::Relaxed) % 2);
            shown = client.vote(&task, "left").unwrap().1;
        }
    }
    assert_eq!(Record::read(&db).unwrap().ballots.len(), 8);
    let database = Database::open(&db, &study(4), &settings(2, 1)).unwrap();
    let booth = Booth::open(database, study(4), settings(2, 1), &names(&["me"])).unwrap();
    assert_eq!((booth.upcoming(0, 4), booth.progress(0).done), (Vec::new(), 8));
}
