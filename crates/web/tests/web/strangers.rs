//! Who is not invited gets nothing, and nothing breaks.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Client, Running, settings, study, task};
use serde_json::json;
use tastemaker_web::WebError;
use tastemaker_web::study::{ImageSource, Study};
use tastemaker_web::vote::{Access, Record};

/// Sends bytes as they are; what comes back.
fn raw(server: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // The server may have enough before all is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

fn invited(folder: &tempfile::TempDir) -> Running {
    let db = folder.path().join("votes.sqlite");
    Running::start(&db, study(5), settings(1, 1), &["ann", "bo"], Access::Invited)
}

#[test]
fn without_the_secret_nothing_is_shown_or_taken() {
    let folder = tempfile::tempdir().unwrap();
    let server = invited(&folder);
    let invited = server.voter(0);
    let shown = invited.state().unwrap();
    let image = shown["tasks"][0]["left"].as_str().unwrap().to_owned();
    assert_eq!(invited.get(&image).unwrap().0, 200);
    let body = json!({ "task": task(&shown).unwrap(), "answer": "left", "seconds": 1 });
    for secret in ["", "0", "ann", &"0".repeat(32), &server.secrets[0][..31], "../../etc/passwd"] {
        let stranger = Client::new(&server.url, &server.tag, secret);
        assert_eq!(stranger.get("/").unwrap().0, 403);
        assert_eq!(stranger.get("/api/state").unwrap().0, 401);
        assert_eq!(stranger.get(&image).unwrap().0, 401);
        assert_eq!(stranger.get("/votes").unwrap().0, 303);
        assert_eq!(stranger.get(&format!("/invite/{}", secret.replace('/', "%2f"))).unwrap().0 / 100, 4);
        assert_eq!(stranger.post("/api/vote", &body).unwrap().0, 401);
        assert_eq!(stranger.post("/api/undo", &json!({ "task": "0-0-0" })).unwrap().0, 401);
    }
    let entered = raw(
        &server,
        format!("POST /enter HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nvoter=0", server.address)
            .as_bytes(),
    );
    assert_eq!(status(&entered), 403, "nobody says who they are where links are sent");
    assert!(Record::read(&folder.path().join("votes.sqlite")).unwrap().ballots.is_empty());
    let other = server.voter(1).state().unwrap();
    assert_eq!(other["progress"]["done"], 0);
}

#[test]
fn foreign_hosts_and_origins_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = invited(&folder);
    let cookie = format!("Cookie: tastemaker-{}={}\r\n", server.tag, server.secrets[0]);
    let host = server.address.to_string();
    let task = task(&server.voter(0).state().unwrap()).unwrap();
    let body = json!({ "task": task, "answer": "left", "seconds": 1 }).to_string();
    let post = |host: &str, more: &str, kind: &str| {
        status(&raw(
            &server,
            format!(
                "POST /api/vote HTTP/1.1\r\nHost: {host}\r\n{cookie}{more}Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        ))
    };
    let json = "application/json";
    for foreign in
        ["evil.example", "evil.example:80", &format!("evil.example:{}", server.address.port()), "localhost:1"]
    {
        assert_eq!(
            status(&raw(&server, format!("GET / HTTP/1.1\r\nHost: {foreign}\r\n{cookie}\r\n").as_bytes())),
            421
        );
        assert_eq!(post(foreign, "", json), 421);
    }
    assert_eq!(post(&host, "Host: evil.example\r\n", json), 400, "two hosts");
    assert_eq!(post(&host, "Origin: https://evil.example\r\n", json), 403);
    assert_eq!(post(&host, "Origin: null\r\n", json), 403);
    assert_eq!(post(&host, "Sec-Fetch-Site: cross-site\r\n", json), 403);
    assert_eq!(post(&host, "", "text/plain"), 415, "what a form elsewhere can send");
    assert_eq!(status(&raw(&server, b"GET / HTTP/1.0\r\n\r\n")), 400, "no host");
    assert!(Record::read(&folder.path().join("votes.sqlite")).unwrap().ballots.is_empty());
    assert_eq!(post(&host, &format!("Origin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n"), json), 200);
}

#[test]
fn every_answer_carries_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let server = invited(&folder);
    for path in ["/", "/nothing", "/api/state", "/assets/x/vote.js", "/image/x"] {
        let answer = raw(
            &server,
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.address)
                .as_bytes(),
        );
        let answer = answer.to_ascii_lowercase();
        assert!(answer.contains("content-security-policy: default-src 'none'"), "{path}: {answer}");
        assert!(
            answer.contains("x-content-type-options: nosniff")
                && answer.contains("referrer-policy: same-origin")
        );
        assert!(!answer.contains("unsafe-inline") && !answer.contains("server:"));
    }
}

#[test]
fn ten_thousand_malformed_requests_break_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = invited(&folder);
    let host = server.address.to_string();
    let client = server.voter(0);
    let first = client.state().unwrap();
    // A few by hand, then the same with bytes changed.
    let long = "x".repeat(100_000);
    let seeds: Vec<String> = vec![
        format!("GET /../../etc/passwd HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET /assets/x/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET /image/..%2f..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET /image/%00 HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!(
            "POST /api/vote HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 999999999999\r\n\r\n{{}}"
        ),
        format!(
            "POST /api/vote HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n"
        ),
        format!(
            "POST /api/vote HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{{}}"
        ),
        format!("GET /votes?from=99999999999999999999 HTTP/1.1\r\nHost: {host}\r\nCookie: a=b; ;=;;\r\n\r\n"),
        "\0\0\0\0".to_owned(),
        format!("DELETE / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET / HTTP/9.9\r\nHost: {host}\r\nX: {long}\r\n\r\n"),
    ];
    let n = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (seeds, server, n) = (&seeds, &server, &n);
            scope.spawn(move || {
                for number in 0..2500 {
                    let mut bytes = seeds[number % seeds.len()].clone().into_bytes();
                    if number >= seeds.len() {
                        for change in 0..3_u64 {
                            let place = thread << 32 | (number as u64) << 2 | change;
                            let random = place
                                .wrapping_mul(6_364_136_223_846_793_005)
                                .wrapping_add(1_442_695_040_888_963_407);
                            let at = (random >> 20) as usize % bytes.len().min(400);
                            bytes[at] = (random >> 50) as u8;
                        }
                    }
                    let answer = raw(server, &bytes);
                    assert!(!answer.contains("root:") && !matches!(status(&answer), 500..=599), "{answer}");
                    n.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(n.load(Ordering::Relaxed), 10_000);
    for (task, answer) in [
        ("9999-0-0", "left"),
        ("0-9-0", "left"),
        ("0-0-9", "left"),
        ("0-0-1", "left"),
        ("0-0-0", "up"),
        ("", ""),
    ] {
        assert_eq!(client.vote(task, answer).unwrap().0, 400, "{task} {answer}");
    }
    assert_eq!(client.get(&format!("/votes?from={}", usize::MAX)).map(|(status, _)| status), Some(200));
    let huge = json!({ "task": "0-0-0", "answer": "left", "seconds": 1, "more": long });
    assert!(matches!(client.post("/api/vote", &huge).unwrap().0, 413 | 422));
    assert_eq!(client.state().unwrap()["tasks"], first["tasks"]);
}

#[test]
fn slow_clients_keep_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = invited(&folder);
    let idle: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
            stream
        })
        .collect();
    assert!(server.voter(0).state().is_some());
    drop(idle);
}

#[test]
fn two_hundred_people_vote_at_once() {
    two_hundred_people_vote(Duration::from_secs(3), 2000);
}

#[test]
#[ignore = "takes a minute; run by hand, with --nocapture for its numbers"]
fn two_hundred_people_vote_for_a_minute() {
    two_hundred_people_vote(Duration::from_secs(60), 20_000);
}

/// All at once over so many pairs, each as fast as it goes; prints requests a second, times and memory.
fn two_hundred_people_vote(time: Duration, n_items: usize) {
    const PEOPLE: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let people: Vec<String> = (0..PEOPLE).map(|number| format!("voter {number}")).collect();
    let people: Vec<&str> = people.iter().map(String::as_str).collect();
    let server = Running::start(&db, study(n_items), settings(1, 1000), &people, Access::Invited);
    let before = resident();
    let start = Instant::now();
    let one = |number: usize| {
        let client = server.voter(number);
        let mut times = Vec::new();
        let mut shown = client.state().unwrap();
        while start.elapsed() < time {
            let asked = Instant::now();
            let (status, next) = client.vote(&task(&shown).unwrap(), "left").unwrap();
            assert_eq!(status, 200);
            times.push(asked.elapsed());
            shown = next;
        }
        times
    };
    let one = &one;
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..PEOPLE).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let (n, took, grown) = (times.len(), start.elapsed(), resident().saturating_sub(before) >> 20);
    times.sort_unstable();
    println!(
        "{n} votes in {took:?}: {:.0} a second, median {:?}, p99 {:?}, {grown} MiB more memory",
        n as f64 / took.as_secs_f64(),
        times[n / 2],
        times[n * 99 / 100]
    );
    let record = Record::read(&db).unwrap();
    assert_eq!(record.ballots.len(), n, "what was acknowledged is there, and nothing else");
    assert!(grown < 400, "{grown} MiB");
}

/// Memory of this process, the server's and the clients', in bytes; 0 where the system does not say.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    line.unwrap_or(0) << 10
}

#[test]
fn huge_images_are_sent_in_bounded_memory() {
    struct Huge;
    impl ImageSource for Huge {
        fn len(&self) -> usize {
            4
        }
        fn read(&self, image: u32) -> Result<Vec<u8>, WebError> {
            // A PNG whose one text is of 100 MB would be cut away: this is all image data.
            let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
            let n = if image < 2 { 100_u32 << 20 } else { 1000 };
            bytes.extend(n.to_be_bytes());
            bytes.extend(b"IDAT");
            bytes.resize(bytes.len() + n as usize + 4, 7);
            Ok(bytes)
        }
        fn name(&self, image: u32) -> String {
            format!("huge-{image}.png")
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let huge = Study { images: Arc::new(Huge), ..study(2) };
    let server = Running::start(&db, huge, settings(1, 1), &["me"], Access::Open);
    let client = server.voter(0);
    let shown = client.state().unwrap();
    let of_item = |item: &str| {
        let tasks = shown["tasks"].as_array().unwrap();
        let task = tasks.iter().find(|task| task["task"].as_str().unwrap().starts_with(item)).unwrap();
        task["left"].as_str().unwrap()
    };
    let path = of_item("0-");
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {}\r\nCookie: tastemaker-{}={}\r\nConnection: close\r\n\r\n",
        server.address, server.tag, server.secrets[0]
    );
    let before = resident();
    // Twenty clients that read slowly: two gigabytes, were they all held.
    let mut streams: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    let mut most = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(50));
        most = most.max(resident().saturating_sub(before));
    }
    let mut some = [0; 1000];
    streams[0].read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200 OK"));
    println!("{} MiB for 20 images of 100 MiB", most >> 20);
    assert!(most < 1200 << 20, "{} MiB", most >> 20);
    // Whoever looks at images as most are waits for none of them.
    assert_eq!(client.get(of_item("1-")).unwrap().0, 200);
    drop(streams);
    assert!(client.state().is_some());
}
