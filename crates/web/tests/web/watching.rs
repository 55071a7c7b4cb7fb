//! Watching runs in a real browser: as they go, as they are killed and resumed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use tastemaker_web::watch::{Runs, router};

use crate::browser::Browser;
use crate::support::{Client, Serving};

/// The pages of these runs, served.
fn served(folders: &[PathBuf]) -> Serving {
    Serving::start(router(Runs::new(folders).unwrap()), 0)
}

/// A run's folder, whose log grows by hand.
struct Run(PathBuf);

impl Run {
    fn new(root: &Path, name: &str, beta: f64) -> Self {
        let folder = root.join(name);
        fs::create_dir_all(folder.join("validation")).unwrap();
        let plan = json!({ "method": { "name": "diffusion-dpo", "beta": beta }, "validation": { "validation_prompts": ["a fox"] } });
        fs::write(folder.join("plan.json"), plan.to_string()).unwrap();
        fs::write(folder.join("events.jsonl"), "{\"tastemaker_events\":1}\n").unwrap();
        Self(folder)
    }

    fn say(&self, event: &Value) {
        let mut log = OpenOptions::new().append(true).open(self.0.join("events.jsonl")).unwrap();
        writeln!(log, "{event}").unwrap();
    }

    fn start(&self, step: u64) {
        self.say(&json!({ "event": "start", "version": "1", "method": "diffusion-dpo", "device": "CPU", "n_pairs": 100,
                          "n_held_out": 10, "n_ties": 0, "n_skipped": 0, "step": step,
                          "betas": { "mean": 5000.0, "no-half": 2500.0, "sum": 0.0763 } }));
    }

    fn steps(&self, from: u64, to: u64) {
        for step in from..to {
            let x = step as f64;
            let noise = (x * 12.9898).sin() * 0.02;
            self.say(&json!({ "event": "step", "step": step, "loss": 0.69 - x * 0.001 + noise, "winner_error": 0.06 - x * 1e-5,
                              "loser_error": 0.06 + x * 2e-5, "ref_winner": 0.06, "ref_loser": 0.06, "implicit_accuracy": 0.5 + x / 500.0,
                              "margin": x * 3e-5, "margin_by_quarter": [x * 1e-5, x * 2e-5, x * 4e-5, null],
                              "prediction_norm": 1.0 + x * 1e-3, "ref_norm": 1.0, "grad_norm": 0.2 + noise.abs(), "lr": (1e-6 * x).min(1e-4), "pairs_per_second": 40.0 + noise * 50.0 }));
            if step.is_multiple_of(20) {
                self.say(&json!({ "event": "validation", "step": step, "n_pairs": 50, "winner_error": 0.06 - x * 1e-5,
                                  "loser_error": 0.06 + x * 2e-5, "ref_winner": 0.06, "ref_loser": 0.06, "implicit_accuracy": 0.5 + x / 500.0,
                                  "accuracy_low": 0.4 + x / 500.0, "accuracy_high": 0.6 + x / 500.0, "margin": x * 3e-5 }));
            }
            if step.is_multiple_of(50) {
                let name = format!("validation/{step:06}-0.png");
                let color = Rgb([step as u8, 120, 200 - step as u8]);
                RgbImage::from_pixel(64, 64, color).save(self.0.join(&name)).unwrap();
                self.say(&json!({ "event": "images", "step": step, "paths": [name] }));
            }
        }
    }
}

#[test]
fn runs_are_watched_while_they_are_killed_and_resumed() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (Run::new(root.path(), "beta-5000", 5000.0), Run::new(root.path(), "beta-2000", 2000.0));
    one.start(0);
    one.steps(0, 100);
    let server = served(&[one.0.clone(), two.0.clone()]);
    let Some(browser) = Browser::start(&server.url) else { return };
    let steps = |counts: &str| {
        browser.wait(&format!("return document.body.dataset.steps === '{counts}'"));
    };
    browser.open("/");
    steps("100 0");
    two.start(0);
    two.steps(0, 60);
    one.steps(100, 150);
    steps("150 60");
    // Killed in the middle of a line, and resumed from its last checkpoint.
    write!(
        OpenOptions::new().append(true).open(one.0.join("events.jsonl")).unwrap(),
        "{{\"event\":\"step\",\"st"
    )
    .unwrap();
    let log = fs::read_to_string(one.0.join("events.jsonl")).unwrap();
    fs::write(one.0.join("events.jsonl"), &log[..log.rfind('\n').unwrap() + 1]).unwrap();
    one.start(120);
    one.steps(120, 130);
    one.say(&json!({ "event": "alarm", "step": 125, "name": "winner-drift", "message": "winners get worse; lower the learning rate" }));
    steps("130 60");
    browser.wait("return document.getElementById('alarms').textContent.includes('winners get worse')");
    browser.wait("return document.querySelectorAll('#charts .alarm').length > 5");
    browser.wait("return document.getElementById('plan').textContent.includes('method.beta5000.02000.0')");
    browser.wait("return [...document.querySelectorAll('#images img')].every((image) => image.complete && image.naturalWidth > 0)");
    browser.wait("return document.getElementById('log').textContent.includes('beta 2500 as no-half, beta 0.0763 as sum')");
    browser.wait("return document.getElementById('charts').textContent.includes('Length of outputs')");
    browser.photograph("watch");
    browser.check("watch");
    two.say(&json!({ "event": "finish", "step": 60, "outcome": "completed", "seconds": 3.0, "peak_memory_bytes": 1 << 30 }));
    browser.wait("return document.getElementById('runs').textContent.includes('completed')");
    let exported = root.path().join("watch.html");
    fs::write(&exported, Runs::new(&[one.0.clone(), two.0.clone()]).unwrap().export().unwrap()).unwrap();
    let text = fs::read_to_string(&exported).unwrap();
    assert!(!text.contains("src=\"/") && !text.contains("href=\"/") && text.contains("default-src 'none'"));
    drop(browser);
    let browser = Browser::start(&format!("file://{}", root.path().display())).unwrap();
    browser.open("/watch.html");
    browser.wait("return document.body.dataset.steps === '130 60'");
    browser.wait("return document.querySelectorAll('#images img').length >= 2");
    browser.check("watch exported");
}

#[test]
fn only_images_of_a_run_are_read() {
    let root = tempfile::tempdir().unwrap();
    let run = Run::new(root.path(), "run", 1.0);
    run.steps(0, 1);
    RgbImage::new(1, 1).save(root.path().join("outside.png")).unwrap();
    let server = served(std::slice::from_ref(&run.0));
    let client = Client::new(&server.url, "", "");
    assert_eq!(client.get("/image/0/validation/000000-0.png").unwrap().0, 200);
    for path in [
        "/image/0/plan.json",
        "/image/0/..%2Foutside.png",
        "/image/0/%2Fetc%2Fpasswd",
        "/image/1/validation/000000-0.png",
        "/image/0/",
    ] {
        assert_eq!(client.get(path).unwrap().0, 404, "{path}");
    }
}

#[test]
fn an_exported_page_has_all_of_a_log_whatever_its_lines_are() {
    let root = tempfile::tempdir().unwrap();
    let run = Run::new(root.path(), "run", 1.0);
    run.steps(0, 3);
    run.say(&json!({ "event": "note", "text": "x".repeat(600_000) }));
    run.say(&Value::Null);
    run.steps(3, 5);
    let page = Runs::new(&[run.0]).unwrap().export().unwrap();
    assert_eq!(page.matches("\"event\":\"step\"").count(), 5);
}

#[test]
fn a_page_follows_a_run_that_begins_anew_and_says_when_its_log_goes() {
    let root = tempfile::tempdir().unwrap();
    let begin = |red: u8| {
        let run = Run::new(root.path(), "run", 1.0);
        run.start(0);
        run.steps(0, 3);
        RgbImage::from_pixel(64, 64, Rgb([red, 0, 0])).save(run.0.join("validation/000000-0.png")).unwrap();
        // Anything else in a log is passed over.
        run.say(&Value::Null);
        run.say(&json!({ "event": "images", "step": 1 }));
        run.say(&json!({ "event": "note", "text": format!("red is {red}") }));
        run
    };
    let first = begin(10);
    let server = served(std::slice::from_ref(&first.0));
    let Some(browser) = Browser::start(&server.url) else { return };
    let red = "const image = document.querySelector('#images img'); if (!image || !image.complete || !image.naturalWidth) return null; \
               const one = document.createElement('canvas').getContext('2d'); one.drawImage(image, 0, 0); \
               return String(one.getImageData(5, 5, 1, 1).data[0])";
    browser.open("/");
    browser.wait("return document.getElementById('log').textContent.includes('red is 10')");
    assert_eq!(browser.wait(red), "10");
    fs::remove_dir_all(&first.0).unwrap();
    browser.wait("return document.getElementById('runs').textContent.includes('its log is gone')");
    begin(200);
    browser.wait("return document.getElementById('log').textContent.includes('red is 200')");
    browser.wait(&format!("return (() => {{ {red} }})() === '200'"));
    // A server of other runs takes the place of this one.
    let port = server.address.port();
    drop(server);
    let other = Run::new(root.path(), "other", 1.0);
    other.steps(0, 2);
    let _server = Serving::start(router(Runs::new(&[other.0]).unwrap()), port);
    browser.wait("return document.getElementById('runs').textContent.includes('other')");
}

#[test]
fn a_run_that_says_nothing_any_more_is_told_from_one_that_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let (killed, going) = (Run::new(root.path(), "killed", 1.0), Run::new(root.path(), "going", 1.0));
    for run in [&killed, &going] {
        run.start(0);
        run.steps(0, 3);
    }
    going.say(&json!({ "event": "alarm", "step": 2, "name": "loss", "message": "step 2: the loss is high" }));
    let log = fs::File::options().append(true).open(killed.0.join("events.jsonl")).unwrap();
    log.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    let server = served(&[killed.0.clone(), going.0.clone()]);
    let Some(browser) = Browser::start(&server.url) else { return };
    browser.open("/");
    browser.wait("return document.body.dataset.steps === '3 3'");
    browser.wait("return document.getElementById('runs').textContent.includes('killed: nothing new for 6')");
    assert_eq!(
        browser.run("return document.getElementById('runs').textContent.match(/nothing new/g).length"),
        1
    );
    let alarm = browser.run("return document.getElementById('alarms').textContent");
    assert_eq!(alarm, "step 2going: the loss is high");
    // Whoever is at a box by keyboard stays there.
    browser.run("document.querySelector('#runs input').focus(); return 1");
    going.steps(3, 5);
    browser.wait("return document.body.dataset.steps === '3 5'");
    assert_eq!(browser.run("return document.activeElement === document.querySelector('#runs input')"), true);
}
