//! Files on a web server, read as if they were here.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tastemaker_hub::remote::{RemoteTree, Settings, locate};
use tastemaker_hub::{HubError, Retry};
use tastemaker_store::StoreError;
use tastemaker_store::tree::{Tree, read_whole};
use tastemaker_testkit::server::{Asked, File, Reply, Server, contents, files, tagged};

const BLOCK: usize = 4 << 20;

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8 ^ (i >> 12) as u8).collect()
}

/// Two blocks and a bit.
fn long() -> File {
    tagged("set/long.tar", "one", bytes(2 * BLOCK + 300_000))
}

fn short() -> File {
    tagged("set/short.txt", "one", "a few words")
}

fn settings() -> Settings {
    let wait = Duration::from_millis(1);
    Settings {
        retry: Retry { attempts: 3, first_wait: wait, longest_wait: wait },
        wait: Duration::from_millis(500),
        ..Settings::default()
    }
}

fn tree(server: &Server) -> RemoteTree {
    RemoteTree::new(&format!("{}/set/", server.url), &settings()).unwrap()
}

fn no_tricks(_: &Asked, _: usize) -> Option<Reply> {
    None
}

fn is_get(asked: &Asked) -> bool {
    asked.method == "GET"
}

/// What the network's own error is.
fn elsewhere(error: &StoreError) -> &HubError {
    match error {
        StoreError::Remote(error) => error.downcast_ref().unwrap(),
        error => panic!("{error:?}"),
    }
}

/// What a user sees of an error: it and its causes.
fn said(server: &Server, error: &StoreError) -> String {
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        text.push_str(&format!("{error}: "));
        cause = error.source();
    }
    text.trim_end_matches(": ").replace(&server.url, "HOST")
}

/// What reading the short file ends in.
fn complaint(trick: impl Fn(&Asked, usize) -> Option<Reply> + Send + Sync + 'static) -> (StoreError, String) {
    let server = files(vec![short()], trick);
    let outcome = tree(&server).open("short.txt").and_then(|blob| read_whole(blob.as_ref(), 1 << 30));
    let error = outcome.unwrap_err();
    let text = said(&server, &error);
    (error, text)
}

#[test]
fn any_part_is_the_part_of_the_file() {
    let (server, whole) = (files(vec![long()], no_tricks), long().body);
    let blob = tree(&server).open("long.tar").unwrap();
    assert_eq!(blob.size(), whole.len() as u64);
    for (start, length) in [(0, 10), (BLOCK - 3, 7), (0, whole.len()), (whole.len() - 1, 1), (whole.len(), 0)]
    {
        assert!(
            blob.read_at(start as u64, length).unwrap() == whole[start..start + length],
            "{start} {length}"
        );
    }
    assert!(matches!(blob.read_at(whole.len() as u64, 1), Err(StoreError::Malformed { .. })));
    assert!(matches!(blob.read_at(u64::MAX, 1), Err(StoreError::Malformed { .. })));
}

#[test]
fn small_neighbors_cost_one_request_a_block() {
    let (server, whole) = (files(vec![long()], no_tricks), long().body);
    let blob = tree(&server).open("long.tar").unwrap();
    for start in (0..whole.len() - 600).step_by(40_000) {
        assert!(blob.read_at(start as u64, 512).unwrap() == whole[start..start + 512]);
    }
    assert_eq!((server.count("HEAD"), server.count("GET")), (1, 3));
    let ranges: Vec<String> =
        server.asked().iter().filter_map(|asked| asked.header("Range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["bytes=0-4194303", "bytes=4194304-8388607", "bytes=8388608-8688607"]);
}

#[test]
fn many_threads_read_at_once_and_fetch_each_block_once() {
    let (server, whole) = (files(vec![long()], no_tricks), long().body);
    let tree = tree(&server);
    thread::scope(|scope| {
        for thread in 0..16_usize {
            let (tree, whole) = (&tree, &whole);
            scope.spawn(move || {
                let blob = tree.open("long.tar").unwrap();
                for i in 0..50 {
                    let start = (thread * 7919 + i * 174_763) % (whole.len() - 900);
                    assert!(blob.read_at(start as u64, 900).unwrap() == whole[start..start + 900]);
                }
            });
        }
    });
    assert_eq!(server.count("GET"), 3);
}

#[test]
fn an_empty_file_is_empty() {
    let server = files(vec![tagged("set/empty", "one", "")], no_tricks);
    let blob = tree(&server).open("empty").unwrap();
    assert_eq!(read_whole(blob.as_ref(), 0).unwrap(), b"");
}

#[test]
fn a_connection_that_is_cut_and_a_server_that_stumbles_are_asked_again() {
    let server = files(vec![short()], |asked, before| match (is_get(asked), before) {
        (true, 0) => Some(contents(asked, &short()).cut_after(3)),
        (true, 1) => Some(Reply::new(503, "busy")),
        (false, 0) => Some(Reply::new(500, "")),
        _ => None,
    });
    let blob = tree(&server).open("short.txt").unwrap();
    assert_eq!(read_whole(blob.as_ref(), 100).unwrap(), b"a few words");
    assert_eq!((server.count("HEAD"), server.count("GET")), (2, 3));
}

#[test]
fn a_connection_that_keeps_being_cut_is_an_error_after_some_attempts() {
    let (error, text) = complaint(|asked, _| is_get(asked).then(|| contents(asked, &short()).cut_after(3)));
    assert!(matches!(elsewhere(&error), HubError::Unreachable { .. }), "{error:?}");
    assert!(text.starts_with("no whole answer from HOST/set/short.txt; check the connection"), "{text}");
    assert!(text.contains("after 2 retries"), "{text}");
    let (error, text) = complaint(|_, _| Some(Reply::new(502, "")));
    assert!(matches!(elsewhere(&error), HubError::Unreachable { .. }) && text.contains("502"), "{text}");
}

#[test]
fn a_server_that_is_slow_or_not_there_is_an_error_in_time() {
    let start = Instant::now();
    let server = files(vec![short()], |asked, before| {
        if is_get(asked) && before == 0 {
            thread::sleep(Duration::from_millis(1500));
        }
        None
    });
    let fast = Settings { retry: Retry { attempts: 1, ..settings().retry }, ..settings() };
    let tree = RemoteTree::new(&format!("{}/set/", server.url), &fast).unwrap();
    let error = tree.open("short.txt").and_then(|blob| read_whole(blob.as_ref(), 100)).unwrap_err();
    assert!(matches!(elsewhere(&error), HubError::Unreachable { .. }), "{error:?}");
    assert!(start.elapsed() < Duration::from_millis(1400), "{:?}", start.elapsed());

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tree = RemoteTree::new(&format!("http://{free}/set/"), &settings()).unwrap();
    let error = tree.open("short.txt").unwrap_err();
    assert!(matches!(elsewhere(&error), HubError::Unreachable { .. }), "{error:?}");
}

#[test]
fn what_is_not_there_is_missing_and_what_is_forbidden_is_denied() {
    let server = files(vec![short()], no_tricks);
    assert_eq!(tree(&server).size("other.txt").unwrap(), None);
    let error = tree(&server).open("other.txt").unwrap_err();
    assert_eq!(said(&server, &error), "HOST/set/other.txt does not exist; wanted a file");
    for status in [401, 403] {
        let (error, text) = complaint(move |_, _| Some(Reply::new(status, "go away")));
        assert!(matches!(elsewhere(&error), HubError::Denied { .. }), "{error:?}");
        assert!(text.starts_with(&format!("HOST/set/short.txt refuses access (status {status})")), "{text}");
    }
    let (error, text) = complaint(|_, _| Some(Reply::new(418, "teapot")));
    assert!(
        matches!(elsewhere(&error), HubError::Answer { .. }) && text.contains("with status 418"),
        "{text}"
    );
}

#[test]
fn a_file_that_changes_meanwhile_is_an_error_and_never_a_mixture() {
    static REPLACED: AtomicBool = AtomicBool::new(false);
    let other = || tagged("set/long.tar", "two", vec![7; 2 * BLOCK + 300_000]);
    let server = files(vec![long()], move |asked, _| {
        REPLACED.load(Ordering::SeqCst).then(|| contents(asked, &other()))
    });
    let tree = tree(&server);
    let blob = tree.open("long.tar").unwrap();
    blob.read_at(0, 10).unwrap();
    REPLACED.store(true, Ordering::SeqCst);
    blob.read_at(100, 10).unwrap();
    let error = blob.read_at(BLOCK as u64, 10).unwrap_err();
    assert!(matches!(elsewhere(&error), HubError::Changed { .. }), "{error:?}");
    // Nor does it help to open it again: what was read before came from the other one.
    assert!(matches!(elsewhere(&tree.open("long.tar").unwrap_err()), HubError::Changed { .. }));
}

#[test]
fn a_file_that_gets_another_size_or_date_is_an_error_too() {
    let grown = |asked: &Asked| contents(asked, &tagged("", "one", "a few words more"));
    let (error, _) = complaint(move |asked, _| is_get(asked).then(|| grown(asked)));
    assert!(matches!(elsewhere(&error), HubError::Changed { .. }), "{error:?}");
    let dated =
        |asked: &Asked, date: &str| contents(asked, &short()).without("ETag").with("Last-Modified", date);
    let (error, _) = complaint(move |asked, _| {
        let second = if is_get(asked) { "01" } else { "00" };
        Some(dated(asked, &format!("Tue, 15 Nov 1994 12:45:{second} GMT")))
    });
    assert!(matches!(elsewhere(&error), HubError::Changed { .. }), "{error:?}");
}

#[test]
fn without_tags_and_dates_the_size_must_do() {
    let server = files(vec![short()], |asked, _| Some(contents(asked, &short()).without("ETag")));
    let blob = tree(&server).open("short.txt").unwrap();
    assert_eq!(read_whole(blob.as_ref(), 100).unwrap(), b"a few words");
}

#[test]
fn a_server_that_sends_no_parts_serves_small_files() {
    let whole = |asked: &Asked, file: &File| {
        Some(Reply::new(200, &file.body).with("ETag", "\"one\"")).filter(|_| asked.header("Range").is_some())
    };
    let server = files(vec![short(), long()], move |asked, _| whole(asked, &long()));
    let tree = tree(&server);
    assert_eq!(read_whole(tree.open("short.txt").unwrap().as_ref(), 100).unwrap(), b"a few words");
    let error = tree.open("long.tar").unwrap().read_at(0, 1).unwrap_err();
    let text = said(&server, &error);
    assert!(text.contains("with the whole file where a part was asked for"), "{text}");
}

#[test]
fn answers_that_make_no_sense_are_described() {
    let server = files(vec![long()], |asked, _| {
        is_get(asked).then(|| contents(asked, &long()).with("Content-Range", "bytes 5-9/8688608"))
    });
    let error = tree(&server).open("long.tar").unwrap().read_at(0, 1).unwrap_err();
    assert!(matches!(elsewhere(&error), HubError::Answer { .. }), "{error:?}");
    let (error, text) =
        complaint(|asked, _| (!is_get(asked)).then(|| Reply::new(200, "").without("Content-Length")));
    assert!(matches!(elsewhere(&error), HubError::Answer { .. }), "{text}");
    // A megabyte more than is read.
    let (error, text) = complaint(|asked, _| is_get(asked).then(|| Reply::new(200, vec![0; 65 << 20])));
    assert!(
        matches!(elsewhere(&error), HubError::Answer { .. }) && text.contains("an answer of more than"),
        "{text}"
    );
}

#[test]
fn redirects_lead_on_with_the_part_that_was_asked_for() {
    let elsewhere = files(vec![long()], no_tricks);
    let address = format!("{}/set/long.tar", elsewhere.url);
    let server = files(Vec::new(), move |_, _| Some(Reply::redirect(&address)));
    let blob = tree(&server).open("long.tar").unwrap();
    assert!(blob.read_at(BLOCK as u64, 9).unwrap() == long().body[BLOCK..BLOCK + 9]);
    let server = files(Vec::new(), |asked, _| Some(Reply::redirect(&asked.path)));
    assert!(tree(&server).open("long.tar").is_err());
}

#[test]
fn paths_that_lead_out_are_not_there() {
    let server = files(vec![short()], no_tricks);
    for path in ["../set/short.txt", "/set/short.txt", "./short.txt", "", "a//b"] {
        assert_eq!(tree(&server).size(path).unwrap(), None, "{path}");
        assert!(matches!(tree(&server).open(path), Err(StoreError::Missing { .. })), "{path}");
    }
    assert!(server.asked().is_empty());
}

#[test]
fn a_web_server_is_not_listed_and_its_files_are_named() {
    let file = |n: usize| tagged(&format!("set/pairs-{n:03}.tar"), "one", vec![0; n]);
    let server = files((8..12).map(file).collect(), no_tricks);
    let at = |text: &str| locate(&text.replace("HOST", &server.url), &settings());
    let error = at("HOST/set/").unwrap().entries().unwrap_err();
    assert!(said(&server, &error).contains("wanted addresses of files, such as"), "{error}");

    let entries = at("HOST/set/pairs-{008..011}.tar").unwrap().entries().unwrap();
    let found: Vec<(&str, u64)> = entries.iter().map(|entry| (entry.path.as_str(), entry.bytes)).collect();
    assert_eq!(
        found,
        [("pairs-008.tar", 8), ("pairs-009.tar", 9), ("pairs-010.tar", 10), ("pairs-011.tar", 11)]
    );
    let two = at("HOST/set/pairs-008.tar::HOST/set/pairs-{010,011}.tar").unwrap().entries().unwrap();
    assert_eq!(two.len(), 3);
    let one = at("HOST/set/pairs-009.tar").unwrap();
    assert_eq!(one.entries().unwrap()[0].path, "pairs-009.tar");
    assert!(one.names_files());
    let error = at("HOST/set/pairs-{008..012}.tar").unwrap().entries().unwrap_err();
    assert_eq!(said(&server, &error), "HOST/set/pairs-012.tar does not exist; wanted a file");
    assert!(matches!(at("HOST/a::http://other.example/b"), Err(HubError::Name { .. })));
}

#[test]
fn file_addresses_are_this_machine() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a-0.tar", "a-1.tar"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    let at = |rest: &str| locate(&format!("file://{}{rest}", folder.path().display()), &settings());
    let names = |rest: &str| -> Vec<String> {
        at(rest).unwrap().entries().unwrap().into_iter().map(|entry| entry.path).collect()
    };
    assert_eq!(names(""), ["a-0.tar", "a-1.tar"]);
    assert_eq!(names("/a-1.tar"), ["a-1.tar"]);
    assert_eq!(names("/a-{0..1}.tar"), ["a-0.tar", "a-1.tar"]);
    assert!(matches!(at("/b"), Err(HubError::Store(StoreError::Missing { .. }))));
}

#[test]
fn secrets_are_in_no_form_of_settings_and_trees() {
    let options = vec![
        ("AWS_SECRET_ACCESS_KEY".to_owned(), "hush".to_owned()),
        ("AWS_ACCESS_KEY_ID".into(), "hush".into()),
    ];
    let settings = Settings { options, ..settings() };
    let tree = RemoteTree::new("s3://bucket/set/", &settings).unwrap();
    assert!(!format!("{settings:?} {tree:?}").contains("hush"), "{tree:?}");
    assert_eq!(tree.place("a b.png").to_str(), Some("s3://bucket/set/a b.png"));
}

#[test]
fn a_list_without_end_is_an_error() {
    let pages = Server::start(|asked, _| {
        assert!(asked.path.contains("list-type=2"), "{}", asked.path);
        let next = asked.path.len();
        Reply::new(
            200,
            format!(
                "<ListBucketResult><IsTruncated>true</IsTruncated>\
                 <NextContinuationToken>{next}</NextContinuationToken></ListBucketResult>"
            ),
        )
    });
    let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let settings = Settings {
        options: vec![
            option("AWS_ENDPOINT_URL", &pages.url),
            option("AWS_ALLOW_HTTP", "true"),
            option("AWS_ACCESS_KEY_ID", "id"),
            option("AWS_SECRET_ACCESS_KEY", "hush"),
        ],
        wait: Duration::from_millis(20),
        ..settings()
    };
    let started = Instant::now();
    let error = RemoteTree::new("s3://bucket/set/", &settings).unwrap().entries().unwrap_err();
    assert!(said(&pages, &error).contains("has no end"), "{}", said(&pages, &error));
    assert!(started.elapsed() < Duration::from_secs(20));
}
