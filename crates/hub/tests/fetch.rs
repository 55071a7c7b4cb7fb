//! Fetching from a hub that behaves, mostly.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use tastemaker_hub::{
    Cache, Event, Fetched, Hub, HubError, RepoId, Retry, Revision, Selection, Settings, Token, check_proxy,
    fetch,
};
use tastemaker_testkit::server::{Asked, COMMIT, File, Reply, Server, contents, hub, large, tagged};
use tempfile::TempDir;

const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";
const SECRET: &str = "hf_thisIsSecret";

fn files() -> Vec<File> {
    vec![
        // Source of the name: `git hash-object`.
        tagged("unet/config.json", "ce013625030ba8dba906f756967f9e9ca394464a", "hello\n"),
        large(WEIGHTS, (0..100_000_u32).map(|i| (i % 251) as u8).collect::<Vec<_>>()),
        large("unet/diffusion_pytorch_model.bin", "a pickle"),
        large("README.md", "a page"),
    ]
}

fn weights() -> Vec<u8> {
    files().remove(1).body
}

fn is_weights(asked: &Asked) -> bool {
    asked.method == "GET" && asked.path.ends_with(WEIGHTS)
}

fn settings(server: &Server) -> Settings {
    let wait = Duration::from_millis(1);
    Settings {
        endpoint: server.url.clone(),
        token: Token::new(SECRET).unwrap(),
        retry: Retry { attempts: 3, first_wait: wait, longest_wait: wait },
        ..Settings::default()
    }
}

/// Fetches, and checks that no output holds the token.
fn fetch_into(folder: &Path, settings: &Settings) -> (Result<Fetched, HubError>, Vec<String>) {
    let (hub, mut events) = (Hub::new(settings).unwrap(), Vec::new());
    let outcome = fetch(
        &hub,
        &Cache::new(folder),
        &RepoId::model("org/name").unwrap(),
        &Revision::default(),
        &Selection::default(),
        &mut |event: Event<'_>| events.push(format!("{event:?}")),
    );
    let mut said = format!("{hub:?} {settings:?} {events:?} {outcome:?}");
    if let Err(error) = &outcome {
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            said.push_str(&format!("{error} {error:#}"));
            cause = error.source();
        }
    }
    assert!(!said.contains(SECRET), "{said}");
    (outcome, events)
}

fn fetched(server: &Server) -> (TempDir, Fetched) {
    let folder = TempDir::new().unwrap();
    let outcome = fetch_into(folder.path(), &settings(server)).0.unwrap();
    (folder, outcome)
}

fn refused(server: &Server) -> (TempDir, HubError) {
    let folder = TempDir::new().unwrap();
    let error = fetch_into(folder.path(), &settings(server)).0.unwrap_err();
    (folder, error)
}

fn no_tricks(_: &Asked, _: usize) -> Option<Reply> {
    None
}

/// Every file below a folder that is no lock.
fn paths(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.push(path);
            }
        }
    }
    found.retain(|path| !path.starts_with(".locks/"));
    found.sort();
    found
}

#[test]
fn a_fresh_cache_has_the_layout_of_the_hubs_own_clients() {
    let server = hub(files(), no_tricks);
    let (folder, outcome) = fetched(&server);
    let root = folder.path().join("models--org--name");
    let sha256 = files()[1].etag.clone();
    let wanted = [
        format!(".tastemaker/{COMMIT}.json"),
        "blobs/ce013625030ba8dba906f756967f9e9ca394464a".to_owned(),
        format!("blobs/{sha256}"),
        "refs/main".into(),
        format!("snapshots/{COMMIT}/unet/config.json"),
        format!("snapshots/{COMMIT}/{WEIGHTS}"),
    ];
    let mut wanted = wanted.to_vec();
    wanted.sort();
    assert_eq!(paths(&root), wanted);
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(outcome.snapshot.folder(), root.join("snapshots").join(COMMIT));
    assert_eq!((outcome.n_files, outcome.n_bytes), (2, 100_006));
    assert_eq!(fs::read(outcome.snapshot.file(WEIGHTS).unwrap().unwrap()).unwrap(), weights());
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(outcome.snapshot.folder().join(WEIGHTS)).unwrap(),
        Path::new("../../../blobs").join(sha256)
    );
    assert!(
        server.asked().iter().all(|asked| asked.header("Authorization") == Some("Bearer hf_thisIsSecret"))
    );
}

#[test]
fn events_tell_the_plan_and_how_far_each_file_is() {
    let server = hub(files(), no_tricks);
    let folder = TempDir::new().unwrap();
    let (_, events) = fetch_into(folder.path(), &settings(&server));
    assert_eq!(events[0], "Planned { n_files: 2, n_cached: 0, bytes: Some(100006) }");
    assert_eq!(events[1], "Begin { name: \"unet/config.json\", bytes: Some(6) }");
    assert_eq!(events.last().unwrap(), &format!("Done {{ name: {WEIGHTS:?} }}"));
    assert!(events.contains(&format!("At {{ name: {WEIGHTS:?}, bytes: 100000 }}")), "{events:?}");
}

#[test]
fn what_is_cached_is_not_downloaded_again() {
    let server = hub(files(), no_tricks);
    let (folder, first) = fetched(&server);
    let before = server.asked().len();
    let second = fetch_into(folder.path(), &settings(&server)).0.unwrap();
    assert_eq!(server.lines()[before..], ["GET /api/models/org/name/revision/main"]);
    assert_eq!((second.snapshot, second.n_bytes), (first.snapshot, 0));
}

#[test]
fn a_blob_of_another_commit_is_linked_and_not_downloaded() {
    let server = hub(files(), no_tricks);
    let (folder, outcome) = fetched(&server);
    fs::remove_dir_all(outcome.snapshot.folder()).unwrap();
    let gets = server.count("GET");
    let again = fetch_into(folder.path(), &settings(&server)).0.unwrap();
    assert_eq!(server.count("GET"), gets + 1, "{:?}", server.lines());
    assert_eq!(again.n_bytes, 0);
    assert!(again.snapshot.file(WEIGHTS).unwrap().is_some());
}

#[test]
fn a_cut_connection_is_resumed_where_it_was_cut() {
    let server = hub(files(), |asked, before| {
        (is_weights(asked) && before == 0).then(|| contents(asked, &files()[1]).cut_after(70_000))
    });
    let (_folder, outcome) = fetched(&server);
    let ranges: Vec<_> = server
        .asked()
        .iter()
        .filter(|asked| is_weights(asked))
        .map(|asked| asked.header("Range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=70000-".to_owned())]);
    assert_eq!(outcome.n_bytes, 100_006);
    assert_eq!(fs::read(outcome.snapshot.file(WEIGHTS).unwrap().unwrap()).unwrap(), weights());
}

#[test]
fn what_an_earlier_process_left_is_resumed() {
    let server = hub(files(), no_tricks);
    let folder = TempDir::new().unwrap();
    let blobs = folder.path().join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", files()[1].etag)), &weights()[..99_000]).unwrap();
    let outcome = fetch_into(folder.path(), &settings(&server)).0.unwrap();
    assert_eq!(outcome.n_bytes, 1006);
}

#[test]
fn what_was_left_whole_is_verified_and_not_asked_for() {
    let server = hub(files(), no_tricks);
    let folder = TempDir::new().unwrap();
    let blobs = folder.path().join("models--org--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.incomplete", files()[1].etag)), weights()).unwrap();
    let outcome = fetch_into(folder.path(), &settings(&server)).0.unwrap();
    assert_eq!(outcome.n_bytes, 6);
    assert!(!server.asked().iter().any(is_weights));
}

#[test]
fn a_server_that_does_not_resume_sends_everything_again() {
    let server = hub(files(), |asked, before| {
        let whole = Reply::new(200, weights());
        is_weights(asked).then(|| if before == 0 { whole.cut_after(70_000) } else { whole })
    });
    let (_folder, outcome) = fetched(&server);
    assert_eq!(outcome.n_bytes, 170_006);
    assert_eq!(fs::read(outcome.snapshot.file(WEIGHTS).unwrap().unwrap()).unwrap(), weights());
}

#[test]
fn a_server_that_refuses_to_resume_is_asked_for_everything() {
    let server = hub(files(), |asked, before| match before {
        0 if is_weights(asked) => Some(Reply::new(200, weights()).cut_after(70_000)),
        1 if is_weights(asked) => Some(Reply::new(416, "")),
        _ => None,
    });
    let (_folder, outcome) = fetched(&server);
    assert_eq!(outcome.n_bytes, 170_006);
}

#[test]
fn a_busy_server_is_asked_again() {
    let server = hub(files(), |asked, before| match (asked.method.as_str(), before) {
        (_, 0) => Some(Reply::new(503, "busy").with("Retry-After", "0")),
        ("GET", 1) => Some(Reply::new(429, "busy")),
        _ => None,
    });
    assert_eq!(fetched(&server).1.n_bytes, 100_006);
}

#[test]
fn attempts_are_bounded_and_what_is_here_stays() {
    let server =
        hub(files(), |asked, _| is_weights(asked).then(|| contents(asked, &files()[1]).cut_after(10)));
    let (folder, error) = refused(&server);
    assert!(matches!(&error, HubError::Connection { attempts: 3, .. }), "{error:?}");
    let partial = folder.path().join(format!("models--org--name/blobs/{}.incomplete", files()[1].etag));
    assert_eq!(fs::read(partial).unwrap(), &weights()[..30]);
    assert!(!folder.path().join("models--org--name/refs/main").exists());
}

#[test]
fn redirects_are_followed_and_the_token_stays_at_home() {
    let elsewhere = Server::start(|asked, _| contents(asked, &files()[1]).without("X-Repo-Commit"));
    let address = format!("{}/signed?Signature=abc", elsewhere.url);
    let server = hub(files(), move |asked, _| {
        let redirect = Reply::redirect(&address)
            .with("ETag", "\"something else\"")
            .with("X-Linked-Etag", &format!("\"{}\"", files()[1].etag))
            .with("X-Linked-Size", "100000")
            .with("X-Repo-Commit", COMMIT);
        asked.path.ends_with(WEIGHTS).then_some(redirect)
    });
    let (_folder, outcome) = fetched(&server);
    assert_eq!(outcome.n_bytes, 100_006);
    assert_eq!(elsewhere.lines(), ["GET /signed?Signature=abc"]);
    assert_eq!(elsewhere.asked()[0].header("Authorization"), None);
    assert!(server.asked().iter().all(|asked| asked.header("Authorization").is_some()));
}

#[test]
fn a_renamed_repository_is_found_under_its_new_name() {
    let server = hub(files(), |asked, _| {
        asked.path.contains("org/old").then(|| Reply::redirect(&asked.path.replace("org/old", "org/name")))
    });
    let folder = TempDir::new().unwrap();
    let old = RepoId::model("org/old").unwrap();
    let hub = Hub::new(&settings(&server)).unwrap();
    let outcome = fetch(
        &hub,
        &Cache::new(folder.path()),
        &old,
        &Revision::default(),
        &Selection::default(),
        &mut |_| {},
    );
    assert_eq!(outcome.unwrap().n_bytes, 100_006);
}

#[test]
fn offline_opens_no_connection() {
    let server = hub(files(), no_tricks);
    let offline = Settings { offline: true, ..settings(&server) };
    let folder = TempDir::new().unwrap();
    let error = fetch_into(folder.path(), &offline).0.unwrap_err();
    assert!(matches!(error, HubError::NotCached { .. }), "{error:?}");
    assert!(server.asked().is_empty());

    let online = fetch_into(folder.path(), &settings(&server)).0.unwrap();
    let before = server.asked().len();
    let found = fetch_into(folder.path(), &offline).0.unwrap();
    assert_eq!(found.snapshot, online.snapshot);
    assert_eq!(server.asked().len(), before);
}

#[test]
fn two_at_once_download_each_file_once() {
    let server = hub(files(), |asked, _| {
        if is_weights(asked) {
            std::thread::sleep(Duration::from_millis(50));
        }
        None
    });
    let folder = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| fetch_into(folder.path(), &settings(&server)).0.unwrap());
        }
    });
    assert_eq!(server.asked().iter().filter(|asked| is_weights(asked)).count(), 1);
}

#[test]
fn patterns_pick_other_files() {
    let server = hub(files(), no_tricks);
    let folder = TempDir::new().unwrap();
    let hub = Hub::new(&settings(&server)).unwrap();
    let (repo, cache) = (RepoId::model("org/name").unwrap(), Cache::new(folder.path()));
    let revision = Revision::new(COMMIT).unwrap();
    let selection = Selection::Matching(vec!["*.md".into()]);
    let outcome = fetch(&hub, &cache, &repo, &revision, &selection, &mut |_| {}).unwrap();
    assert_eq!(outcome.n_files, 1);
    assert!(outcome.snapshot.file("README.md").unwrap().is_some());
    assert!(!cache.repo_folder(&repo).join("refs").exists(), "a commit needs no reference");
    let found = cache.snapshot(&repo, &revision).unwrap().unwrap();
    assert_eq!((found.commit(), found.folder()), (COMMIT, outcome.snapshot.folder()));
    assert_eq!(found.parts(), Some("--include *.md"));
}

#[test]
fn a_commit_whose_fetching_was_interrupted_is_not_taken_for_whole() {
    let names = ["data/a.parquet", "data/b.parquet", "data/c.parquet"];
    let all = || names.map(|name| large(name, name)).to_vec();
    let server = hub(all(), |asked, before| {
        // As when the process is killed at the second file: its attempts are used up.
        (asked.method == "GET" && asked.path.ends_with("b.parquet") && before < 3)
            .then(|| Reply::new(200, "data/b.parquet").cut_after(3))
    });
    let folder = TempDir::new().unwrap();
    let (cache, repo) = (Cache::new(folder.path()), RepoId::model("org/name").unwrap());
    let hub = Hub::new(&settings(&server)).unwrap();
    let commit = Revision::new(COMMIT).unwrap();
    let data = Selection::Data { config: None, split: None };
    let run = |selection: &Selection| fetch(&hub, &cache, &repo, &commit, selection, &mut |_| {});
    assert!(matches!(run(&data), Err(HubError::Connection { .. })));
    let found = cache.snapshot(&repo, &commit);
    let Err(HubError::Incomplete { n_missing, n_files, .. }) = &found else { panic!("{found:?}") };
    assert_eq!((*n_missing, *n_files), (2, 3));
    run(&data).unwrap();
    let snapshot = cache.snapshot(&repo, &commit).unwrap().unwrap();
    assert_eq!(snapshot.parts(), None);
    assert!(names.iter().all(|name| snapshot.file(name).unwrap().is_some()));
}

#[test]
fn a_part_that_was_asked_for_is_known_to_be_one() {
    let server = hub(vec![large("data/a.parquet", "a"), large("data/b.parquet", "b")], no_tricks);
    let folder = TempDir::new().unwrap();
    let (cache, repo) = (Cache::new(folder.path()), RepoId::model("org/name").unwrap());
    let hub = Hub::new(&settings(&server)).unwrap();
    let parts = |selection: &Selection| {
        fetch(&hub, &cache, &repo, &Revision::default(), selection, &mut |_| {}).unwrap();
        let snapshot = cache.snapshot(&repo, &Revision::default()).unwrap().unwrap();
        snapshot.parts().map(str::to_owned)
    };
    let one = Selection::Matching(vec!["data/a*".into()]);
    assert_eq!(parts(&one).as_deref(), Some("--include data/a*"));
    assert_eq!(parts(&Selection::Data { config: None, split: None }), None);
    assert_eq!(parts(&one), None, "the rest is still there");
}

#[test]
fn a_body_of_a_few_bytes_a_second_is_not_waited_for() {
    let server = hub(files(), |asked, _| is_weights(asked).then(|| Reply::new(200, weights()).slowly()));
    let impatient = Settings { wait: Duration::from_millis(100), ..settings(&server) };
    let started = std::time::Instant::now();
    let (outcome, _) = fetch_into(TempDir::new().unwrap().path(), &impatient);
    assert!(matches!(outcome, Err(HubError::Connection { .. })), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn a_proxy_that_cannot_be_spoken_to_is_refused_without_its_password() {
    for good in ["http://h:1", "socks5://u:p@h:1080", "socks5h://h", "socks4a://h:1", "host:3128"] {
        check_proxy("ALL_PROXY", good).unwrap();
    }
    for bad in ["quic://u:hush@h:1", "socks6://h", "://"] {
        let error = check_proxy("ALL_PROXY", bad).unwrap_err();
        assert!(
            error.to_string().contains("ALL_PROXY") && !format!("{error:?}").contains("hush"),
            "{error:?}"
        );
    }
}
