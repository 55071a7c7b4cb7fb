//! No vote is lost: whatever was acknowledged is there after the program was killed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Client, Running, settings, study, task};
use tastemaker_web::vote::{Access, Record, Task};

/// Set where this program is started by its own test, to the database.
const DB: &str = "TASTEMAKER_TEST_VOTES";
const ITEMS: usize = 20_000;

#[test]
fn serve_until_killed() {
    let Some(db) = std::env::var_os(DB) else { return };
    let server = Running::start(Path::new(&db), study(ITEMS), settings(2, 1), &["me"], Access::Open);
    println!("ready {} {} {}", server.url, server.tag, server.secrets[0]);
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_hundred_kills_lose_no_acknowledged_vote() {
    const KILLS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let mut acknowledged: HashMap<Task, &'static str> = HashMap::new();
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::serve_until_killed", "--nocapture"])
            .env(DB, &db)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready =
            lines.map_while(Result::ok).find_map(|line| Some(line.split_once("ready ")?.1.to_owned()));
        let ready = ready.expect("the server starts again, whatever the kill left");
        let [url, tag, secret] = ready.split(' ').collect::<Vec<_>>()[..] else { panic!("{ready}") };
        let client = Client::new(url, tag, secret);
        // Anywhere between the first request and some dozens of votes.
        let life = Duration::from_micros(500 + (kill * 7919 % 97) * 4_000);
        let pid = child.id();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(life);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        let mut shown = client.state();
        while let Some(task) = shown.as_ref().and_then(task) {
            let answer = ["left", "right", "tie", "bad"][(acknowledged.len() + pid as usize) % 4];
            let parsed: Task = task.parse().unwrap();
            // Whatever was acknowledged is never asked again.
            assert!(!acknowledged.contains_key(&parsed), "{task} is dealt again after kill {kill}");
            let Some((200, next)) = client.vote(&task, answer) else { break };
            acknowledged.insert(parsed, answer);
            shown = Some(next);
        }
        killer.join().unwrap();
        let record = Record::read(&db).unwrap();
        let standing: HashMap<Task, &'static str> = record
            .ballots
            .iter()
            .map(|ballot| (ballot.task, ballot.answer.unwrap().side(ballot.a_is_left)))
            .collect();
        for (task, answer) in &acknowledged {
            assert_eq!(standing.get(task), Some(answer), "{task} after kill {kill}");
        }
        // A vote may be on disk whose acknowledgment did not get through.
        for (task, answer) in standing {
            acknowledged.entry(task).or_insert(answer);
        }
    }
    println!("{} votes over {KILLS} kills", acknowledged.len());
    assert!(acknowledged.len() > 300, "{}", acknowledged.len());
}
