//! Hubs that refuse, lack, damage or attack, and disks that do not take what they send.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use tastemaker_hub::{Cache, Hub, HubError, RepoId, Retry, Revision, Selection, Settings, Token, fetch};
use tastemaker_store::StoreError;
use tastemaker_testkit::server::{Asked, COMMIT, File, Reply, Server, contents, hub, large, listing};
use tempfile::TempDir;

const SECRET: &str = "hf_thisIsSecret";

fn file() -> File {
    large("pytorch_lora_weights.safetensors", "some weights")
}

/// What a user sees of a failed fetch: the error with its causes. The token is in no form of it.
fn complaint(server: &Server, folder: &Path) -> (HubError, String) {
    complaint_with(server, folder, Token::new(SECRET).unwrap())
}

fn complaint_with(server: &Server, folder: &Path, token: Option<Token>) -> (HubError, String) {
    let wait = Duration::from_millis(1);
    let retry = Retry { attempts: 2, first_wait: wait, longest_wait: wait };
    let settings = Settings { endpoint: server.url.clone(), token, retry, ..Settings::default() };
    let hub = Hub::new(&settings).unwrap();
    let (cache, repo) = (Cache::new(folder), RepoId::model("org/name").unwrap());
    let mut events = String::new();
    let outcome = fetch(&hub, &cache, &repo, &Revision::default(), &Selection::default(), &mut |event| {
        events.push_str(&format!("{event:?}"));
    });
    let error = outcome.unwrap_err();
    let mut text = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        text.push_str(&format!("{error}: "));
        cause = error.source();
    }
    let text = text.trim_end_matches(": ").replace(&server.url, "HUB");
    assert!(!format!("{hub:?}{events}{error:?}{text}").contains(SECRET), "{text}");
    (error, text)
}

fn said(trick: impl Fn(&Asked, usize) -> Option<Reply> + Send + Sync + 'static) -> String {
    let folder = TempDir::new().unwrap();
    let text = complaint(&hub(vec![file()], trick), folder.path()).1;
    assert!(!folder.path().join("models--org--name/refs").exists(), "a failed fetch looks whole");
    text
}

fn is_api(asked: &Asked) -> bool {
    asked.path.starts_with("/api/")
}

#[test]
fn a_gated_model_says_where_to_accept_its_license() {
    for status in [401, 403] {
        let wanted = format!(
            "HUB/org/name refuses access (status {status}); the token that was sent does not open it: check the name, and \
             accept its license on that page with the token's account"
        );
        assert_eq!(said(move |_, _| Some(Reply::new(status, SECRET))), wanted);
    }
    let server = hub(vec![file()], |asked, _| (!is_api(asked)).then(|| Reply::new(401, "")));
    let text = complaint_with(&server, TempDir::new().unwrap().path(), None).1;
    assert_eq!(
        text,
        "HUB/org/name refuses access (status 401); it is gated, private or not there: check the name, accept its license on \
         that page, and set HF_TOKEN"
    );
    assert!(server.asked().iter().all(|asked| asked.header("Authorization").is_none()));
}

#[test]
fn what_is_not_there_is_named() {
    let missing = |code: &'static str| {
        move |asked: &Asked, _| is_api(asked).then(|| Reply::new(404, "").with("X-Error-Code", code))
    };
    assert_eq!(said(missing("RepoNotFound")), "HUB has no model org/name; check the name");
    assert_eq!(
        said(missing("RevisionNotFound")),
        "HUB has no revision main of model org/name; check the name"
    );
    assert_eq!(said(missing("")), "HUB has no model org/name at revision main; check the name");
    let text =
        said(|asked, _| (!is_api(asked)).then(|| Reply::new(404, "").with("X-Error-Code", "EntryNotFound")));
    let name = file().name;
    assert_eq!(
        text,
        format!("HUB has no file {name} in model org/name at revision {COMMIT}; check the name")
    );
}

#[test]
fn a_wrong_checksum_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let server = hub(vec![file()], |asked, _| {
        (asked.method == "GET" && !is_api(asked)).then(|| Reply::new(200, "evil weights"))
    });
    let (error, text) = complaint(&server, folder.path());
    let found = tastemaker_store::checksum::sha256_bytes(b"evil weights");
    assert!(matches!(error, HubError::Damaged { .. }), "{error:?}");
    assert!(text.contains(&format!("found SHA-256 {found}; wanted {}", file().etag)), "{text}");
    assert_eq!(fs::read_dir(folder.path().join("models--org--name/blobs")).unwrap().count(), 0);
    assert!(!folder.path().join("models--org--name/snapshots").exists());
}

#[test]
fn a_wrong_size_leaves_nothing_behind() {
    let get = |asked: &Asked| asked.method == "GET" && !is_api(asked);
    let announced = said(move |asked, _| get(asked).then(|| Reply::new(200, "some weights and more")));
    assert!(announced.contains("is damaged: found 21 bytes; wanted 12 bytes"), "{announced}");
    let silent = said(move |asked, _| {
        get(asked).then(|| Reply::new(200, "some weights and more").without("Content-Length"))
    });
    assert!(silent.contains("is damaged: found more than 12 bytes; wanted 12 bytes"), "{silent}");
    let short = said(move |asked, _| get(asked).then(|| Reply::new(200, "some")));
    assert!(short.contains("is damaged: found 4 bytes; wanted 12 bytes"), "{short}");
}

#[test]
fn a_connection_that_keeps_being_cut_says_how_it_ended() {
    let text = said(|asked, _| {
        (asked.method == "GET" && !is_api(asked)).then(|| contents(asked, &file()).cut_after(0))
    });
    assert!(text.starts_with("no whole answer from HUB/org/name/resolve/"), "{text}");
    assert!(text.contains("in 2 attempts"), "{text}");
    let text = said(|_, _| Some(Reply::new(500, SECRET)));
    assert!(text.ends_with("status 500"), "{text}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let server = hub(vec![file()], |_, _| None);
    let folder = TempDir::new().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let wait = Duration::from_millis(1);
    let retry = Retry { attempts: 2, first_wait: wait, longest_wait: wait };
    let settings = Settings { endpoint: format!("http://{free}"), retry, ..Settings::default() };
    let hub = Hub::new(&settings).unwrap();
    let repo = RepoId::model("org/name").unwrap();
    let outcome = fetch(
        &hub,
        &Cache::new(folder.path()),
        &repo,
        &Revision::default(),
        &Selection::default(),
        &mut |_| {},
    );
    assert!(matches!(outcome, Err(HubError::Connection { attempts: 2, .. })), "{outcome:?}");
    assert!(server.asked().is_empty());
}

#[test]
fn file_names_that_lead_out_of_the_cache_are_refused() {
    for name in ["../x", "/etc/x", "a\\b", "unet/../../x", "", "a//b", "x\ny", "c:x"] {
        let folder = TempDir::new().unwrap();
        let server = hub(vec![file()], move |asked, _| {
            is_api(asked).then(|| listing(&["pytorch_lora_weights.safetensors", name]))
        });
        let (error, text) = complaint(&server, folder.path());
        assert!(matches!(error, HubError::Answer { .. }), "{error:?}");
        assert!(
            text.contains(&format!("with a file named {name:?}; wanted a path inside the repository")),
            "{text}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{name:?} wrote something");
    }
}

#[test]
fn commits_and_entity_tags_that_lead_out_of_the_cache_are_refused() {
    let text =
        said(|asked, _| is_api(asked).then(|| Reply::new(200, "{\"sha\": \"../../x\", \"siblings\": []}")));
    assert!(text.ends_with("answers commit \"../../x\"; wanted 40 hexadecimal digits"), "{text}");
    for etag in ["\"../x\"", "/etc/x", "\"\"", "a.incomplete"] {
        let text =
            said(move |asked, _| (!is_api(asked)).then(|| contents(asked, &file()).with("ETag", etag)));
        assert!(text.contains("with entity tag"), "{text}");
    }
    let text =
        said(|asked, _| (!is_api(asked)).then(|| contents(asked, &file()).with("X-Repo-Commit", SECRET)));
    assert!(text.contains("answers for commit \"(token)\"; wanted commit"), "{text}");
}

#[test]
fn answers_that_make_no_sense_are_described() {
    let text = said(|asked, _| is_api(asked).then(|| Reply::new(200, "<html>")));
    assert!(text.contains("wanted JSON with `sha` and `siblings`"), "{text}");
    let text = said(|asked, _| is_api(asked).then(|| Reply::new(418, "")));
    assert!(text.contains("answers with status 418"), "{text}");
    let text = said(|asked, _| (!is_api(asked)).then(|| contents(asked, &file()).without("ETag")));
    assert!(text.contains("answers without an entity tag"), "{text}");
    let text =
        said(|asked, _| (!is_api(asked)).then(|| contents(asked, &file()).with("Content-Length", "many")));
    assert!(text.contains("no whole answer") || text.contains("with size"), "{text}");
    let text = said(|asked, _| {
        let reply = contents(asked, &file()).with("ETag", "\"abc\"").without("Content-Length");
        (!is_api(asked)).then_some(reply)
    });
    assert!(text.contains("with neither a size nor a checksum"), "{text}");
    let text = said(|asked, _| is_api(asked).then(|| listing(&["README.md"])));
    assert!(text.contains("answers a list of 1 files; wanted the files of a diffusers pipeline"), "{text}");
}

#[test]
fn redirects_without_end_or_to_nowhere_stop() {
    let text = said(|asked, _| Some(Reply::redirect(&asked.path)));
    assert!(text.contains("with more than 10 redirects"), "{text}");
    for to in ["file:///etc/passwd", "", "http://user:pw@localhost/"] {
        let text = said(move |_, _| Some(Reply::redirect(to)));
        assert!(text.contains("answers a redirect to no web address"), "{text}");
    }
}

#[test]
fn a_refusal_elsewhere_is_no_matter_of_licenses() {
    let elsewhere = Server::start(|_, _| Reply::new(403, "expired"));
    let address = format!("{}/signed?Signature=abc", elsewhere.url);
    let text =
        said(move |asked, _| (asked.method == "GET" && !is_api(asked)).then(|| Reply::redirect(&address)));
    assert!(text.contains("status 403 from") && !text.contains("Signature"), "{text}");
    assert_eq!(elsewhere.count("GET"), 2);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "in the way").unwrap();
    let cache = folder.path().join("file/cache");
    let (error, text) = complaint(&hub(vec![file()], |_, _| None), &cache);
    assert!(matches!(error, HubError::Store(StoreError::Io { action: "create", .. })), "{error:?}");
    assert!(text.contains("cannot create") && text.contains("file/cache"), "{text}");
}

#[test]
fn an_endpoint_that_is_no_web_address_is_refused_at_once() {
    let settings = Settings { endpoint: "huggingface.co".into(), ..Settings::default() };
    let error = Hub::new(&settings).unwrap_err();
    assert_eq!(
        error.to_string(),
        "endpoint \"huggingface.co\" is not usable; wanted http:// or https://, a host, and nothing but a path behind it"
    );
}
