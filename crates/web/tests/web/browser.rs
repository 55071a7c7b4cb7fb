//! A headless browser that is driven over WebDriver, and what every page must be.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

/// Debian's driver of Chromium, and the browser.
const DRIVER: &str = "chromedriver";
const BROWSERS: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// Set where these tests may not be skipped.
const WANTED: &str = "TASTEMAKER_WANTS_BROWSER";

/// WebDriver's names of keys.
pub const LEFT: &str = "\u{e012}";
pub const UP: &str = "\u{e013}";
pub const RIGHT: &str = "\u{e014}";
pub const DOWN: &str = "\u{e015}";

/// A browser with one window.
pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
    origin: String,
    #[expect(dead_code, reason = "the profile goes when the browser does")]
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one whose pages all come from `origin`; `None` where this machine has none, and tests then say so and pass, unless [`WANTED`] is set.
    pub fn start(origin: &str) -> Option<Self> {
        let binary = BROWSERS.iter().find(|path| PathBuf::from(path).is_file());
        let driver =
            Command::new(DRIVER).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let (Some(binary), Ok(mut driver)) = (binary, driver) else {
            let wanted = std::env::var_os(WANTED).is_some();
            assert!(!wanted, "{WANTED} is set, and there is no {DRIVER} or no Chromium");
            println!(
                "skipped: there is no {DRIVER} or no Chromium; install chromium and chromium-driver to run this test"
            );
            return None;
        };
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let started = lines.into_iter().find(|line| line.contains("started successfully on port")).unwrap();
        let port: u16 = started.trim_end_matches('.').rsplit(' ').next().unwrap().parse().unwrap();
        let profile = tempfile::tempdir().unwrap();
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        let agent: ureq::Agent = config.into();
        let args = [
            "--headless=new".into(),
            "--no-sandbox".into(),
            "--disable-gpu".into(),
            "--disable-dev-shm-usage".into(),
            "--hide-scrollbars".into(),
            "--window-size=1280,800".into(),
            format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "binary": binary, "args": args },
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        }}});
        let base = format!("http://127.0.0.1:{port}/session");
        let answer = call(&agent, "POST", &base, Some(&wanted));
        let session =
            format!("{base}/{}", answer["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}")));
        Some(Self { driver, agent, session, origin: origin.into(), profile })
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        call(&self.agent, method, &format!("{}{path}", self.session), body)
    }

    pub fn open(&self, path: &str) {
        self.call("POST", "/url", Some(&json!({ "url": format!("{}{path}", self.origin) })));
    }

    pub fn reload(&self) {
        self.call("POST", "/refresh", Some(&json!({})));
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.call("POST", "/execute/sync", Some(&json!({ "script": script, "args": [] })))
    }

    /// Waits until a script returns something that is true; what it is.
    pub fn wait(&self, script: &str) -> Value {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let value = self.run(script);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            assert!(
                Instant::now() < end,
                "{script} stays {value}; the page says: {}",
                self.run("return document.body.innerText")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses a key.
    pub fn press(&self, key: &str) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.call(
            "POST",
            "/actions",
            Some(&json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] })),
        );
    }

    /// Taps the middle of an element with a finger.
    pub fn tap(&self, selector: &str) {
        let found =
            self.call("POST", "/element", Some(&json!({ "using": "css selector", "value": selector })));
        let actions = json!([
            { "type": "pointerMove", "origin": found, "x": 0, "y": 0, "duration": 0 },
            { "type": "pointerDown", "button": 0 }, { "type": "pause", "duration": 30 }, { "type": "pointerUp", "button": 0 },
        ]);
        let finger = json!({ "type": "pointer", "id": "finger", "parameters": { "pointerType": "touch" }, "actions": actions });
        self.call("POST", "/actions", Some(&json!({ "actions": [finger] })));
    }

    fn devtools(&self, command: &str, parameters: Value) {
        self.call("POST", "/goog/cdp/execute", Some(&json!({ "cmd": command, "params": parameters })));
    }

    /// Changes what pages see: width and height, whether it is a phone, whether dark is preferred.
    pub fn appear(&self, (width, height): (u32, u32), dark: bool) {
        let phone = width < 600;
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone }),
        );
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// The page as it is seen, in light and dark, at a desk and on a phone, in the test's own folder.
    pub fn photograph(&self, name: &str) {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pages");
        std::fs::create_dir_all(&folder).unwrap();
        for (size, place) in [((1280, 800), "desk"), ((390, 844), "phone")] {
            for (dark, scheme) in [(false, "light"), (true, "dark")] {
                self.appear(size, dark);
                std::thread::sleep(Duration::from_millis(150));
                let image = self.call("GET", "/screenshot", None);
                let bytes =
                    base64::engine::general_purpose::STANDARD.decode(image.as_str().unwrap()).unwrap();
                std::fs::write(folder.join(format!("{name}-{place}-{scheme}.png")), bytes).unwrap();
                let wide = self.run(
                    "return document.documentElement.scrollWidth > document.documentElement.clientWidth",
                );
                assert_eq!(wide, false, "{name} is wider than the {place}");
                // Nor is there a part that scrolls sideways on a phone.
                let script = "return [...document.querySelectorAll('body *')].filter((part) => part.clientWidth > 0 && part.scrollWidth > \
                              part.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(part).overflowX)).map((part) => \
                              `${part.tagName}.${part.className}`)";
                let found = self.run(script);
                assert!(
                    size.0 > 600 || found == json!([]),
                    "{name} scrolls sideways on the {place}: {found}"
                );
            }
        }
        self.appear((1280, 800), false);
    }

    /// What a page must be: without errors, without requests to others, and without barriers.
    pub fn check(&self, name: &str) {
        let log = self.call("POST", "/se/log", Some(&json!({ "type": "browser" })));
        let errors: Vec<&Value> =
            log.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        let log = self.call("POST", "/se/log", Some(&json!({ "type": "performance" })));
        for entry in log.as_array().unwrap() {
            let message: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            if message["message"]["method"] != "Network.requestWillBeSent" {
                continue;
            }
            let url = message["message"]["params"]["request"]["url"].as_str().unwrap();
            let ours = url.starts_with(&self.origin) || url.starts_with("data:") || url.starts_with("chrome");
            assert!(ours, "{name} asks {url}");
        }
        if let Some(axe) = axe() {
            self.run(&axe);
            for dark in [false, true] {
                self.appear((1280, 800), dark);
                let script = "window.found = null; axe.run().then((results) => { window.found = results.violations.map(({ id, impact, \
                              nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(' ')}`); }); return true";
                self.run(script);
                let found = self.wait("return window.found");
                let serious = |text: &&Value| !text.as_str().unwrap().starts_with("minor");
                let found: Vec<&Value> = found.as_array().unwrap().iter().filter(serious).collect();
                assert!(found.is_empty(), "{name}, dark {dark}: {found:#?}");
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.call("DELETE", "", None);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The script of axe-core, which `cargo xtask browser` fetches.
fn axe() -> Option<String> {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.axe/axe.min.js");
    let script = std::fs::read_to_string(place).ok();
    if script.is_none() {
        println!(
            "skipped: pages are not checked for barriers without axe-core; cargo xtask browser fetches it"
        );
    }
    script
}

fn call(agent: &ureq::Agent, method: &str, url: &str, body: Option<&Value>) -> Value {
    let answer = match (method, body) {
        ("POST", Some(body)) => {
            agent.post(url).header("content-type", "application/json").send(body.to_string())
        }
        ("DELETE", _) => agent.delete(url).call(),
        _ => agent.get(url).call(),
    };
    // A screenshot is some megabytes.
    let text = answer.unwrap().body_mut().with_config().limit(64 << 20).read_to_string().unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(value["value"]["error"].is_null(), "{method} {url}: {}", value["value"]);
    value["value"].clone()
}
