//! One server for all pages: connections with limits, TLS, and the checks that every request passes.

mod connection;
mod guard;
mod images;
mod room;
mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tastemaker_pages::Markup;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::{WebError, assets};
use connection::Impatient;
pub use guard::Hosts;
pub(crate) use images::ImageBudget;
use room::Peers;
pub use tls::{Certificate, acceptor};

/// Connections at once, where the system allows twice as many files; more wait in the kernel's queue.
const CONNECTIONS: usize = 1024;

/// How long a connection may go without a byte moving.
const IDLE: Duration = Duration::from_secs(60);

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(15);

/// Buffers of a connection; the head of a request must fit.
const BUFFER_BYTES: usize = 32 << 10;

/// The largest body of a request.
pub(crate) const BODY_BYTES: usize = 64 << 10;

/// How often it is asked whether to stop.
const POLL: Duration = Duration::from_millis(100);

/// A server that listens already, so that its address is known.
pub struct Server {
    listener: std::net::TcpListener,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    hosts: Vec<String>,
}

impl Server {
    /// Listens on an address; port 0 takes a free one. `hosts` are names that requests may ask for beside addresses.
    ///
    /// # Errors
    /// [`WebError::Bind`], and those of [`acceptor`].
    pub fn bind(
        address: SocketAddr,
        certificate: Option<&Certificate>,
        hosts: Vec<String>,
    ) -> Result<Self, WebError> {
        let tls = certificate.map(acceptor).transpose()?;
        let fail = |source| WebError::Bind { address: address.to_string(), source };
        let listener = std::net::TcpListener::bind(address).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address, tls, hosts })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether only this machine reaches it.
    pub fn is_local(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// Whether it speaks TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// What to type into a browser, without a slash at the end.
    pub fn url(&self) -> String {
        let host = match (self.hosts.first(), self.address.ip()) {
            (Some(host), _) => host.clone(),
            (None, ip) if ip.is_unspecified() => own_address().map_or("localhost".into(), bracketed),
            (None, ip) => bracketed(ip),
        };
        let scheme = if self.is_secure() { "https" } else { "http" };
        format!("{scheme}://{host}:{}", self.address.port())
    }

    /// Serves until `stop` says so.
    ///
    /// # Errors
    /// [`WebError::System`] if the system gives no threads.
    pub fn run(self, router: Router, stop: impl Fn() -> bool) -> Result<(), WebError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .max_blocking_threads(16)
            .enable_all()
            .build()?;
        let hosts = Hosts::new(self.address, &self.hosts, self.is_secure());
        let service = guard::guarded(router.merge(assets::router()), hosts);
        runtime.block_on(async {
            let listener = TcpListener::from_std(self.listener)?;
            let most = room::connections(CONNECTIONS);
            // Nobody on the network keeps all others out.
            let accepting =
                accept(listener, self.tls, service, Arc::new(Semaphore::new(most)), Peers::new(most / 2));
            let stopping = async {
                while !stop() {
                    tokio::time::sleep(POLL).await;
                }
            };
            futures_util::future::select(Box::pin(accepting), Box::pin(stopping)).await;
            Ok::<_, WebError>(())
        })?;
        // A client that is slow must not keep the program.
        runtime.shutdown_timeout(Duration::from_secs(2));
        Ok(())
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: Router,
    room: Arc<Semaphore>,
    peers: Peers,
) {
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of file handles: others end and give theirs back.
            tokio::time::sleep(POLL).await;
            continue;
        };
        let Some(place) = peers.enter(peer.ip()) else { continue };
        let (tls, service) = (tls.clone(), service.clone());
        tokio::spawn(async move {
            // A client that goes away is no error of ours.
            let _ = connect(stream, tls, service).await;
            drop((permit, place));
        });
    }
}

async fn connect(stream: TcpStream, tls: Option<TlsAcceptor>, service: Router) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let stream = Impatient::new(stream, IDLE);
    let mut http = http1::Builder::new();
    // A client that has said all it wants still reads.
    http.half_close(true);
    http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER_BYTES);
    let service = TowerToHyperService::new(service);
    match tls {
        None => http.serve_connection(TokioIo::new(stream), service).await.ok(),
        Some(tls) => {
            let stream = tokio::time::timeout(HEAD, tls.accept(stream)).await.ok()?.ok()?;
            http.serve_connection(TokioIo::new(stream), service).await.ok()
        }
    }
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The address others on the network see, found without sending anything.
fn own_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// A short answer in plain text.
pub(crate) fn plain(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", text.into())
}

/// A page.
pub(crate) fn page(status: StatusCode, page: Markup) -> Response<Body> {
    answer(status, "text/html; charset=utf-8", page.into_string())
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
