//! A hub on this machine: one thread, one request per connection, and every request remembered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use sha2::{Digest, Sha256};

/// The one revision of every repository here.
pub const COMMIT: &str = "39593d5650112b4cc580433f6b0435385882d819";

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET`, `HEAD` and so on.
    pub method: String,
    /// With the query.
    pub path: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    /// A header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// `GET /path`.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What the server sends back.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut_after: Option<usize>,
    is_slow: bool,
}

impl Reply {
    /// With this body and its length.
    pub fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref().to_vec();
        let length = ("Content-Length".to_owned(), body.len().to_string());
        Self { status, headers: vec![length], body, cut_after: None, is_slow: false }
    }

    /// To another address.
    pub fn redirect(to: &str) -> Self {
        Self::new(302, "").with("Location", to)
    }

    /// With another header, or with another value for one.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a header.
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        self
    }

    /// The body comes at 50 bytes a second.
    pub fn slowly(mut self) -> Self {
        self.is_slow = true;
        self
    }

    /// The connection is closed after so many bytes of the body.
    pub fn cut_after(mut self, n: usize) -> Self {
        self.cut_after = Some(n);
        self
    }
}

type Handler = dyn Fn(&Asked, usize) -> Reply + Send + Sync;

/// A server on a free port.
pub struct Server {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// The handler also gets how often the same was asked before.
    pub fn start(handler: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let handler: Box<Handler> = Box::new(handler);
        let thread = thread::spawn({
            let (asked, stop) = (Arc::clone(&asked), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    // A client that goes away in the middle is no fault of the server.
                    let _ = serve(&mut stream.expect("a connection"), &asked, handler.as_ref());
                }
            }
        });
        Self { url, asked, stop, thread: Some(thread) }
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no handler panicked").clone()
    }

    /// `GET /path` of every request so far.
    pub fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }

    /// How many requests were of this method.
    pub fn count(&self, method: &str) -> usize {
        self.asked().iter().filter(|asked| asked.method == method).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.url.trim_start_matches("http://")));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn serve(stream: &mut TcpStream, log: &Mutex<Vec<Asked>>, handler: &Handler) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Ok(()) };
    let mut asked = Asked { method: method.to_owned(), path: path.to_owned(), headers: Vec::new() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => asked.headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let before = {
        let mut log = log.lock().expect("no handler panicked");
        log.push(asked.clone());
        log.iter().filter(|other| other.line() == asked.line()).count() - 1
    };
    let reply = handler(&asked, before);
    let mut head = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    let body = &reply.body[..reply.cut_after.unwrap_or(reply.body.len())];
    if method != "HEAD" && reply.is_slow {
        for byte in body {
            thread::sleep(std::time::Duration::from_millis(20));
            stream.write_all(&[*byte])?;
        }
    } else if method != "HEAD" {
        stream.write_all(body)?;
    }
    stream.flush()?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Until the client is done too, so that nothing sent is lost.
    reader.read_to_end(&mut Vec::new()).map(drop)
}

/// A file of a repository.
#[derive(Debug, Clone)]
pub struct File {
    /// Its path in the repository.
    pub name: String,
    /// What is in it.
    pub body: Vec<u8>,
    /// Its entity tag, without quotes.
    pub etag: String,
}

/// A large file, named by its SHA-256.
pub fn large(name: &str, body: impl AsRef<[u8]>) -> File {
    let body = body.as_ref().to_vec();
    File { name: name.to_owned(), etag: sha256(&body), body }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file with this entity tag.
pub fn tagged(name: &str, etag: &str, body: impl AsRef<[u8]>) -> File {
    File { name: name.to_owned(), etag: etag.to_owned(), body: body.as_ref().to_vec() }
}

/// What a hub says about a revision.
pub fn listing(names: &[&str]) -> Reply {
    let siblings: Vec<String> = names.iter().map(|name| format!("{{\"rfilename\": {name:?}}}")).collect();
    Reply::new(
        200,
        format!("{{\"id\": \"org/name\", \"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", siblings.join(",")),
    )
}

/// A file as a hub sends it, the part that was asked for.
pub fn contents(asked: &Asked, file: &File) -> Reply {
    let all = file.body.len();
    let part = asked.header("Range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let part =
        part.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().unwrap_or(all - 1).min(all - 1))));
    let reply = match part {
        Some((from, to)) if from < all => {
            Reply::new(206, &file.body[from..=to]).with("Content-Range", &format!("bytes {from}-{to}/{all}"))
        }
        Some(_) => Reply::new(416, "").with("Content-Range", &format!("bytes */{all}")),
        None => Reply::new(200, &file.body),
    };
    reply.with("ETag", &format!("\"{}\"", file.etag)).with("X-Repo-Commit", COMMIT)
}

/// A web server with these files. Where `trick` answers, it does not.
pub fn files(
    files: Vec<File>,
    trick: impl Fn(&Asked, usize) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    Server::start(move |asked, before| {
        let file = files.iter().find(|file| asked.path.trim_start_matches('/') == file.name);
        trick(asked, before)
            .unwrap_or_else(|| file.map_or_else(|| Reply::new(404, "no"), |file| contents(asked, file)))
    })
}

/// A hub with one model, `org/name`. Where `trick` answers, the hub does not.
pub fn hub(
    files: Vec<File>,
    trick: impl Fn(&Asked, usize) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    Server::start(move |asked, before| {
        if let Some(reply) = trick(asked, before) {
            return reply;
        }
        if ["main", COMMIT].iter().any(|r| asked.path == format!("/api/models/org/name/revision/{r}")) {
            return listing(&files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>());
        }
        let prefix = format!("/org/name/resolve/{COMMIT}/");
        let file =
            asked.path.strip_prefix(&prefix).and_then(|name| files.iter().find(|file| file.name == name));
        file.map_or_else(|| Reply::new(404, "no"), |file| contents(asked, file))
    })
}
