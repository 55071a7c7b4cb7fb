//! The loop of people: pairs are made, voted on, exported, trained on.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

#[path = "../../web/tests/web/browser.rs"]
#[expect(dead_code, reason = "shared with the tests of pages")]
mod browser;
mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use browser::Browser;
use image::RgbImage;
use serde_json::{Value, json};
use support::Bench;
use tastemaker_run::{Event, read_events};
use tastemaker_testkit::TINY_RESOLUTION;

/// A request to a page of this machine; status, head and body.
fn ask(address: &str, cookie: &str, line: &str, body: Option<&Value>) -> (u16, String, String) {
    let (status, head, body) = ask_bytes(address, cookie, line, body);
    (status, head, String::from_utf8(body).unwrap())
}

fn ask_bytes(address: &str, cookie: &str, line: &str, body: Option<&Value>) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let text = body.map(ToString::to_string).unwrap_or_default();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head, answer.split_off(end + 4))
}

/// The images that a voter sees, left and right.
type Seen = [RgbImage; 2];

/// Votes on everything that `vote` shows, and ends it as a person does, by Ctrl-C; how often. `answer` gets the number of the vote and what
/// is seen.
fn vote(bench: &Bench, args: &[&str], mut answer: impl FnMut(usize, &Seen) -> &'static str) -> usize {
    // Whoever started the tests may ignore an interruption.
    let mut child = Command::new("/usr/bin/env")
        .args(["--default-signal=INT", env!("CARGO_BIN_EXE_tastemaker")])
        .args([args, &["--bind", "127.0.0.1:0"]].concat())
        .current_dir(bench.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address =
        lines.into_iter().find_map(|line| Some(line.strip_prefix("vote at http://")?.to_owned())).unwrap();
    let (_, head, _) = ask(&address, "", "GET /", None);
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let cookie = cookie.split(';').next().unwrap();
    let mut n = 0;
    let (_, _, mut shown) = ask(&address, cookie, "GET /api/state", None);
    loop {
        let state: Value = serde_json::from_str(&shown).unwrap();
        let Some(task) = state["tasks"][0]["task"].as_str() else { break };
        let seen = ["left", "right"].map(|side| {
            let path = state["tasks"][0][side].as_str().unwrap();
            let (status, _, bytes) = ask_bytes(&address, cookie, &format!("GET {path}"), None);
            assert_eq!(status, 200);
            image::load_from_memory(&bytes).unwrap().to_rgb8()
        });
        let body = json!({ "task": task, "answer": answer(n, &seen), "seconds": 1.0 });
        let (status, _, next) = ask(&address, cookie, "POST /api/vote", Some(&body));
        assert_eq!(status, 200, "{next}");
        (n, shown) = (n + 1, next);
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "Ctrl-C is how it ends");
    n
}

#[test]
fn pairs_are_voted_on_exported_and_trained_on() {
    let bench = Bench::new();
    let n =
        vote(&bench, &["vote", "pairs", "--db", "votes.sqlite", "--questions", "general,appeal"], |n, _| {
            ["left", "right", "left", "tie"][n % 4]
        });
    assert!(n >= 8 && n % 2 == 0, "{n}");
    let results: Value =
        serde_json::from_str(&bench.succeed(&["vote", "results", "--db", "votes.sqlite", "--json"]).stdout)
            .unwrap();
    assert_eq!((&results["n_votes"], results["questions"].as_array().unwrap().len()), (&json!(n), 2));
    bench.succeed(&["vote", "results", "--db", "votes.sqlite", "--out", "results"]);
    assert!(bench.path("results/report.html").is_file() && bench.path("results/results.json").is_file());
    let said = bench.succeed(&["vote", "export", "--db", "votes.sqlite", "--out", "voted"]);
    assert!(said.stdout.starts_with("wrote voted: "), "{}", said.stdout);
    for method in ["cdpo", "smpo"] {
        let args = [
            "train",
            "--pretrained_model_name_or_path",
            "model",
            "--train_data_dir",
            "voted",
            "--resolution",
            "32",
            "--held_out_fraction",
            "0",
            "--max_train_steps",
            "2",
            "--train_batch_size",
            "2",
            "--method",
            method,
            "--output_dir",
            method,
        ];
        bench.succeed(&args);
    }
    let refused = bench.run(&["vote", "pairs", "--db", "votes.sqlite", "--questions", "general"]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("use another --db, or the same settings"), "{}", refused.stderr);
}

/// The commands of the guide's page about the whole loop.
fn loop_of_the_guide() -> Vec<Vec<String>> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/voting.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, part) = page.split_once("## The whole loop").unwrap();
    let (_, block) = part.split_once("```sh\n").unwrap();
    let block = block.split_once("```").unwrap().0.replace("\\\n", " ");
    let words = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect();
    block.lines().map(words).collect()
}

#[test]
fn the_loop_of_the_guide_works_for_a_voter_who_likes_bright_images() {
    let bench = Bench::empty();
    let bright = |image: &RgbImage| image.as_raw().iter().map(|&byte| u64::from(byte)).sum::<u64>();
    let mut votes = Vec::new();
    for command in loop_of_the_guide() {
        let mut args: Vec<&str> = command.iter().map(String::as_str).collect();
        let short: &[&str] =
            match (args[0], args[1]) {
                ("vote", "results" | "export") => &[],
                ("vote", _) => {
                    votes.push(vote(&bench, &args, |_, [left, right]| {
                        if bright(left) >= bright(right) { "left" } else { "right" }
                    }));
                    continue;
                }
                ("data", _) => &["--num_inference_steps", "2"],
                ("train", _) => &["--max_train_steps", "2"],
                _ => &["--num_inference_steps", "2", "--n_prompts", "3"],
            };
        for pair in short.chunks(2) {
            match args.iter().position(|arg| *arg == pair[0]) {
                Some(at) => args[at + 1] = pair[1],
                None => args.extend(pair),
            }
        }
        let said = bench.run_in(&args, &[("XDG_CACHE_HOME", "own"), ("OMP_NUM_THREADS", "1")]);
        assert_eq!(said.code, 0, "{args:?}: {}", said.stderr);
    }
    assert!(votes[0] == 20 && votes[1] >= 3, "{votes:?}");
    let results: Value =
        serde_json::from_slice(&fs::read(bench.path("results/results.json")).unwrap()).unwrap();
    assert_eq!(results["questions"][0]["comparisons"][0]["n"], votes[1]);
    let rows = fs::read_to_string(bench.path("compared/scores.jsonl")).unwrap();
    assert!(rows.lines().count() >= 6 && results["questions"][0]["scorers"][0]["scorer"].is_string());
}

#[test]
fn a_run_is_watched_while_it_is_trained_killed_and_resumed() {
    const STEPS: u64 = 400;
    let bench = Bench::new();
    let folder = bench.path("run");
    fs::create_dir(&folder).unwrap();
    let line = format!(
        "train --pretrained_model_name_or_path model --train_data_dir pairs --resolution {TINY_RESOLUTION} --held_out_fraction 0 \
         --max_train_steps {STEPS} --train_batch_size 2 --checkpointing_steps 10 --method mapo --output_dir run"
    );
    let train = |more: &str| {
        let line = format!("{line} {more}");
        bench.start(&line.split_whitespace().collect::<Vec<_>>())
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut page = bench.start(&["watch", "run", "--port", &port.to_string()]);
    let url = format!("http://127.0.0.1:{port}");
    while TcpStream::connect(&url[7..]).is_err() {
        assert!(page.try_wait().unwrap().is_none(), "watch has ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    let Some(browser) = Browser::start(&url) else {
        page.kill().unwrap();
        page.wait().unwrap();
        return;
    };
    browser.open("/");
    let steps = "Number(document.body.dataset.steps)";
    let mut run = train("");
    browser.wait(&format!("return {steps} >= 25"));
    run.kill().unwrap();
    run.wait().unwrap();
    let left = browser.run(&format!("return {steps}")).as_u64().unwrap();
    assert!((25..STEPS).contains(&left), "it was killed on the way, at {left}");
    let mut run = train("--resume_from_checkpoint latest");
    assert!(run.wait().unwrap().success());
    browser.wait(&format!("return {steps} === {STEPS}"));
    browser.wait("return document.getElementById('runs').textContent.includes('completed')");
    browser.check("watch a run");
    let events = read_events(folder.join("events.jsonl")).unwrap().events;
    let starts = events
        .iter()
        .filter_map(|event| if let Event::Start(start) = event { Some(start.step) } else { None });
    let starts: Vec<u64> = starts.collect();
    assert!(starts.len() == 2 && starts[1] >= 10, "it was resumed: {starts:?}");
    Command::new("kill").args(["-INT", &page.id().to_string()]).status().unwrap();
    assert_eq!(page.wait().unwrap().code(), Some(0));
}

#[test]
fn what_cannot_be_voted_on_is_a_mistake_that_says_why() {
    let bench = Bench::new();
    let told = |args: &str| {
        let said = bench.run(&args.split(' ').collect::<Vec<_>>());
        (said.code, said.stderr)
    };
    for (args, code, words) in [
        ("vote pairs", 2, "--db"),
        ("vote pairs --db v.sqlite --questions apeal", 2, "did you mean \"appeal\"?"),
        ("vote pairs --db v.sqlite --repeats 2", 2, "--repeats is 2; wanted a fraction from 0 to 1"),
        ("vote pairs --db v.sqlite --prompts small", 2, "which has its captions"),
        ("vote pairs model --db v.sqlite", 3, "line 1 has no text called file_name"),
        ("vote a=pairs a=model --db v.sqlite", 2, "two folders are named `a`"),
        ("vote results --db nothing.sqlite", 3, "nothing.sqlite does not exist"),
        ("vote pairs --db v.sqlite --tls_cert no.pem --tls_key no.pem", 2, "no.pem cannot be used"),
        ("curate nothing", 3, "nothing does not exist"),
        ("watch nothing", 3, "nothing does not exist"),
    ] {
        let (found, stderr) = told(args);
        assert_eq!(found, code, "{args}: {stderr}");
        assert!(stderr.contains(words), "{args}: {stderr}");
    }
}

#[test]
fn a_page_is_served_though_nobody_reads_what_its_command_prints() {
    let bench = Bench::new();
    bench.train("run", &["--method", "mapo"]);
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for (line, flag) in [
        ("vote pairs --db votes.sqlite --bind", "127.0.0.1:"),
        ("curate pairs --port", ""),
        ("watch run --port", ""),
    ] {
        let port = free();
        let mut child = Command::new("/usr/bin/env")
            .args(["--default-signal=INT", env!("CARGO_BIN_EXE_tastemaker")])
            .args(line.split(' '))
            .arg(format!("{flag}{port}"))
            .current_dir(bench.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // As `head` leaves them.
        drop((child.stdout.take(), child.stderr.take()));
        let address = format!("127.0.0.1:{port}");
        while TcpStream::connect(&address).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "{line} has ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(ask(&address, "", "GET /", None).0, 200, "{line}");
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{line}");
    }
}
