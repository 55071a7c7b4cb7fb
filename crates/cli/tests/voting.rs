//! The loop of people: pairs are made, voted on, exported, trained on.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::Bench;

/// A request to a page of this machine; status, head and body.
fn ask(address: &str, cookie: &str, line: &str, body: Option<&Value>) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let text = body.map(ToString::to_string).unwrap_or_default();
    write!(
        stream,
        "{line} HTTP/1.1\r\nHost: {address}\r\nCookie: {cookie}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

/// Votes on everything that `vote` shows, and ends it as a person does, by Ctrl-C.
fn vote(bench: &Bench, args: &[&str], mut answer: impl FnMut(usize) -> &'static str) -> usize {
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
        let body = json!({ "task": task, "answer": answer(n), "seconds": 1.0 });
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
    let n = vote(&bench, &["vote", "pairs", "--db", "votes.sqlite", "--questions", "general,appeal"], |n| {
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
        ("vote pairs model --db v.sqlite", 3, "missing field `file_name`"),
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
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(ask(&address, "", "GET /", None).0, 200, "{line}");
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{line}");
    }
}
