//! TLS with a certificate of the user.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tastemaker_web::server::{Certificate, Server};
use tastemaker_web::vote::{Access, Booth, Database, router};
use ureq::tls::{RootCerts, TlsConfig};

use crate::support::{names, settings, study};

#[test]
fn links_open_over_tls_and_the_cookie_stays_there() {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
    let files =
        Certificate { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    std::fs::write(&files.certificate, own.cert.pem()).unwrap();
    std::fs::write(&files.key, own.signing_key.serialize_pem()).unwrap();

    let database = Database::open(&folder.path().join("v.sqlite"), &study(2), &settings(1, 1)).unwrap();
    let booth = Booth::open(database, study(2), settings(1, 1), &names(&["ann"])).unwrap();
    let secret = booth.voters()[0].secret.clone();
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), Some(&files), Vec::new()).unwrap();
    let url = server.url();
    assert!(url.starts_with("https://127.0.0.1:"));
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let router = router(booth, Access::Invited, true);
    let thread = std::thread::spawn(move || server.run(router, || asked.load(Ordering::Relaxed)).unwrap());

    let root = ureq::tls::Certificate::from_pem(own.cert.pem().as_bytes()).unwrap();
    let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[root])).build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(20)))
        .build();
    let agent: ureq::Agent = config.into();
    let answer = agent.get(format!("{url}/invite/{secret}")).call().unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert_eq!(answer.status().as_u16(), 303);
    for part in ["HttpOnly", "SameSite=Lax", "Secure", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap();
    let answer = agent.get(format!("{url}/api/state")).header("cookie", cookie).call().unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let plain: ureq::Agent =
        ureq::Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(5))).build().into();
    assert!(plain.get(url.replace("https", "http")).call().is_err(), "nothing is said in plain text");
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

#[test]
fn what_is_no_certificate_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = [0, 1].map(|_| rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap());
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certificate = write("cert.pem", &one.cert.pem());
    let key = write("key.pem", &one.signing_key.serialize_pem());
    let refused = |certificate: &std::path::Path, key: &std::path::Path| {
        let files = Certificate { certificate: certificate.into(), key: key.into() };
        Server::bind("127.0.0.1:0".parse().unwrap(), Some(&files), Vec::new())
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(refused(&certificate, &key), None);
    let text = write("text.pem", "hello");
    assert!(refused(&text, &key).unwrap().contains("there is no certificate in it"));
    assert!(refused(&certificate, &text).unwrap().contains("there is no private key in it"));
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIC\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(refused(&certificate, &write("locked.pem", locked)).unwrap().contains("the key has a password"));
    let strange = write("other.pem", &other.signing_key.serialize_pem());
    assert!(
        refused(&certificate, &strange).unwrap().contains("other.pem cannot be used: it is not the key of")
    );
    assert!(refused(&folder.path().join("none.pem"), &key).unwrap().contains("none.pem cannot be used"));
}
