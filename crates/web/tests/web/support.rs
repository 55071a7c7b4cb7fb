//! A study of small images, its server, and voters who talk to it.

use std::io::Cursor;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use axum::Router;
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use tastemaker_web::WebError;
use tastemaker_web::server::Server;
use tastemaker_web::study::{ImageSource, Item, Study, StudyPrompt, StudySettings};
use tastemaker_web::vote::{Access, Booth, Database, router};

struct Plain(usize);

impl ImageSource for Plain {
    fn len(&self) -> usize {
        self.0
    }

    fn read(&self, image: u32) -> Result<Vec<u8>, WebError> {
        let mut bytes = Cursor::new(Vec::new());
        scene(image).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        Ok(bytes.into_inner())
    }

    fn name(&self, image: u32) -> String {
        format!("image-{image}.png")
    }
}

/// A sun over hills: even numbers are in flat colors, odd ones have a grain.
fn scene(number: u32) -> RgbImage {
    let (place, grainy) = (number / 2, number % 2 == 1);
    let sky = [[250, 200, 140], [150, 200, 240], [240, 150, 160], [60, 70, 130], [180, 220, 210]]
        [place as usize % 5];
    let hill = [[60, 90, 80], [70, 130, 70], [90, 60, 90], [20, 30, 60], [120, 110, 60]][place as usize % 5];
    let sun = (70.0 + f64::from(place * 53 % 120), 60.0 + f64::from(place * 31 % 50));
    RgbImage::from_fn(256, 256, |x, y| {
        let (fx, fy) = (f64::from(x), f64::from(y));
        let ridge = 150.0 + 28.0 * (fx / 41.0 + f64::from(place)).sin() + 12.0 * (fx / 17.0).cos();
        let near = 200.0 + 18.0 * (fx / 60.0 - f64::from(place)).cos();
        let base = match () {
            () if fy > near => hill.map(|c| c * 3 / 5),
            () if fy > ridge => hill,
            () if (fx - sun.0).hypot(fy - sun.1) < 26.0 => [255, 240, 200],
            () => sky.map(|c| c + y as i32 / 8),
        };
        let grain = if grainy {
            (((x * 7919) ^ (y * 104_729)).wrapping_mul(2_654_435_761) >> 26) as i32 - 32
        } else {
            0
        };
        Rgb(base.map(|c| (c + grain).clamp(0, 255) as u8))
    })
}

/// Two models on so many prompts, as somebody would write them.
pub fn scenes(n: usize) -> Study {
    let mut made = study(n);
    let words = [
        "the sun over green hills, early summer, in flat colors",
        "a warm evening in the mountains, screen print",
        "hills at night, a pale moon, quiet",
        "rolling hills under a clear sky",
        "dusk over the dunes, minimal poster",
    ];
    made.prompts
        .iter_mut()
        .zip(words.iter().cycle())
        .for_each(|(prompt, words)| prompt.text = (*words).into());
    made
}

/// Two models on so many prompts.
pub fn study(n: usize) -> Study {
    let prompt = |number: usize| StudyPrompt {
        text: format!("prompt {number}"),
        category: Some(if number.is_multiple_of(2) { "people" } else { "animals" }.to_owned()),
    };
    let item = |number: u32| Item {
        prompt: number,
        models: [0, 1],
        images: [2 * number, 2 * number + 1],
        seed: 7,
        known: None,
    };
    Study {
        name: "made".into(),
        prompts: (0..n).map(prompt).collect(),
        models: vec!["trained".into(), "base".into()],
        items: (0..n as u32).map(item).collect(),
        images: Arc::new(Plain(2 * n)),
        skipped: Vec::new(),
    }
}

/// Settings with so many questions and votes.
pub fn settings(n_questions: usize, votes_per_item: u32) -> StudySettings {
    let mut settings = StudySettings { votes_per_item, ..StudySettings::default() };
    let names = ["general", "appeal", "alignment"][..n_questions].iter().map(|name| (*name).to_owned());
    settings.ask(&names.collect::<Vec<_>>(), None).unwrap();
    settings
}

pub fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A server in this process, until it is dropped.
pub struct Serving {
    pub url: String,
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    /// At a port of this machine; 0 is any that is free.
    pub fn start(router: Router, port: u16) -> Self {
        let server = Server::bind(([127, 0, 0, 1], port).into(), None, Vec::new()).unwrap();
        let (url, address) = (server.url(), server.address());
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread =
            std::thread::spawn(move || server.run(router, || asked.load(Ordering::Relaxed)).unwrap());
        Self { url, address, stop, thread: Some(thread) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A study that is served.
pub struct Running {
    pub url: String,
    pub address: SocketAddr,
    pub secrets: Vec<String>,
    pub tag: String,
    _serving: Serving,
}

impl Running {
    pub fn start(db: &Path, study: Study, settings: StudySettings, voters: &[&str], access: Access) -> Self {
        Self::start_at(db, study, settings, voters, access, 0)
    }

    /// At a port of this machine.
    pub fn start_at(
        db: &Path,
        study: Study,
        settings: StudySettings,
        voters: &[&str],
        access: Access,
        port: u16,
    ) -> Self {
        let database = Database::open(db, &study, &settings).unwrap();
        let booth = Booth::open(database, study, settings, &names(voters)).unwrap();
        let secrets = booth.voters().iter().map(|voter| voter.secret.clone()).collect();
        let tag = booth.tag().to_owned();
        let serving = Serving::start(router(booth, access, false), port);
        Self { url: serving.url.clone(), address: serving.address, secrets, tag, _serving: serving }
    }

    pub fn voter(&self, number: usize) -> Client {
        Client::new(&self.url, &self.tag, &self.secrets[number])
    }
}

/// A voter's browser.
pub struct Client {
    agent: ureq::Agent,
    url: String,
    cookie: String,
}

impl Client {
    pub fn new(url: &str, tag: &str, secret: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(std::time::Duration::from_secs(20)))
            .build();
        Self { agent: config.into(), url: url.into(), cookie: format!("tastemaker-{tag}={secret}") }
    }

    /// Status and body; `None` where the server is not there.
    pub fn get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        let mut response =
            self.agent.get(format!("{}{path}", self.url)).header("cookie", &self.cookie).call().ok()?;
        Some((response.status().as_u16(), response.body_mut().read_to_vec().ok()?))
    }

    pub fn post(&self, path: &str, body: &Value) -> Option<(u16, Value)> {
        let mut response = self
            .agent
            .post(format!("{}{path}", self.url))
            .header("cookie", &self.cookie)
            .header("content-type", "application/json")
            .send(body.to_string())
            .ok()?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::Null)))
    }

    pub fn state(&self) -> Option<Value> {
        let (status, body) = self.get("/api/state")?;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).ok()
    }

    pub fn vote(&self, task: &str, answer: &str) -> Option<(u16, Value)> {
        self.post("/api/vote", &json!({ "task": task, "answer": answer, "seconds": 1.5 }))
    }
}

/// The first task of what a page shows; `None` at the end.
pub fn task(shown: &Value) -> Option<String> {
    shown["tasks"][0]["task"].as_str().map(str::to_owned)
}
