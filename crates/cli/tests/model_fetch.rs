//! `tastemaker model fetch`, through the real program, from a hub on this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use insta::assert_snapshot;
use support::{Bench, Said, files, mistake};
use tastemaker_testkit::server::{COMMIT, File, Reply, Server, contents, hub, large, listing};

const SECRET: &str = "hf_thisIsSecret";

/// The tiny model as a repository.
fn tiny(bench: &Bench) -> Vec<File> {
    let name = |path: &Path| path.to_str().unwrap().replace('\\', "/");
    files(&bench.path("model")).into_iter().map(|(path, body)| large(&name(&path), body)).collect()
}

/// Runs the program on the cache `cache`; nothing it says holds the token.
#[track_caller]
fn run(bench: &Bench, server: &Server, args: &[&str], more: &[(&str, &str)]) -> Said {
    let threads = ("OMP_NUM_THREADS", "1");
    let variables =
        [("HF_ENDPOINT", server.url.as_str()), ("HF_HUB_CACHE", "cache"), ("HF_TOKEN", SECRET), threads];
    let said = bench.run_in(args, &[&variables, more].concat());
    assert!(!format!("{}{}", said.stdout, said.stderr).contains(SECRET), "{}", said.stderr);
    Said { stderr: said.stderr.replace(&server.url, "HUB"), ..said }
}

#[test]
fn a_fetched_model_is_known_by_its_name() {
    let bench = Bench::new();
    let files = tiny(&bench);
    let n_files = files.len();
    let server = hub(files, |_, _| None);
    fs::remove_dir_all(bench.path("model")).unwrap();
    let generate =
        ["sample", "--model", "org/name", "--prompt", "a fox", "--num_inference_steps", "2", "--out", "out"];
    let before = run(&bench, &server, &generate, &[]);
    assert_snapshot!(mistake(&before));

    let said = run(&bench, &server, &["model", "fetch", "org/name"], &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(said.stdout.trim(), format!("cache/models--org--name/snapshots/{COMMIT}"));
    assert!(said.stderr.starts_with(&format!("fetching {n_files} of {n_files} files")), "{}", said.stderr);
    // What is fetched, a line for each file, and what to type next.
    assert_eq!(said.stderr.lines().count(), n_files + 2, "{}", said.stderr);

    let n_asked = server.asked().len();
    let generated = run(&bench, &server, &generate, &[]);
    assert_eq!(generated.code, 0, "{}", generated.stderr);
    assert!(bench.path("out/0000-0.png").is_file());
    let line = "train --pretrained_model_name_or_path org/name --train_data_dir pairs --resolution 32 \
                --max_train_steps 2 --method mapo --held_out_fraction 0 --output_dir run";
    let trained = run(&bench, &server, &line.split_whitespace().collect::<Vec<_>>(), &[]);
    assert_eq!(trained.code, 0, "{}", trained.stderr);
    let plan = fs::read_to_string(bench.path("run/plan.json")).unwrap();
    assert!(plan.contains(COMMIT), "{plan}");
    assert_eq!(server.asked().len(), n_asked, "something else than fetching went to the network");

    let again = run(&bench, &server, &["model", "fetch", "org/name"], &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((again.code, again.stdout), (0, said.stdout));
    assert_eq!(server.asked().len(), n_asked);
}

/// A SOCKS proxy that counts whom it leads on; whatever is asked for, it leads to `target`.
fn socks(target: String, n_led: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, target, n_led) = (client.unwrap(), target.clone(), Arc::clone(&n_led));
            thread::spawn(move || {
                let mut greeting = [0; 2];
                client.read_exact(&mut greeting).unwrap();
                client.read_exact(&mut vec![0; greeting[1].into()]).unwrap();
                client.write_all(&[5, 0]).unwrap();
                // Version, command, reserved, kind of address, IPv4, port.
                client.read_exact(&mut [0; 10]).unwrap();
                client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
                n_led.fetch_add(1, Ordering::SeqCst);
                let mut server = TcpStream::connect(target).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let back = thread::spawn(move || {
                    drop(io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Write));
                });
                drop(io::copy(&mut server, &mut client));
                drop(client.shutdown(Shutdown::Both));
                drop(back.join());
            });
        }
    });
    address
}

#[test]
fn a_socks_proxy_is_used_and_one_that_cannot_be_is_refused() {
    let bench = Bench::empty();
    let server = hub(vec![large("README.md", "a page")], |_, _| None);
    let n_led = Arc::new(AtomicUsize::new(0));
    let proxy = socks(server.url.trim_start_matches("http://").to_owned(), Arc::clone(&n_led));
    let fetch = ["model", "fetch", "org/name", "--include", "*.md"];
    let through = format!("socks5://{proxy}");
    let said = run(&bench, &server, &fetch, &[("ALL_PROXY", through.as_str())]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert_eq!(n_led.load(Ordering::SeqCst), server.asked().len(), "nothing is asked for directly");
    let n_asked = server.asked().len();
    let said = run(&bench, &server, &fetch, &[("ALL_PROXY", "quic://u:hush@127.0.0.1:1")]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("ALL_PROXY") && !said.stderr.contains("hush"), "{}", said.stderr);
    assert_eq!(server.asked().len(), n_asked);
}

#[test]
fn a_dry_run_may_name_a_model_that_was_not_fetched() {
    let bench = Bench::new();
    let server = hub(Vec::new(), |_, _| None);
    let line = "train --pretrained_model_name_or_path org/name --train_data_dir pairs --output_dir out --method mapo \
                --learning_rate 1e-4 --max_train_steps 2 --dry-run";
    let said = run(&bench, &server, &line.split_whitespace().collect::<Vec<_>>(), &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains("note: the model org/name does not exist yet"), "{}", said.stderr);
}

#[test]
fn offline_without_the_model_is_a_mistake() {
    let bench = Bench::empty();
    let server = hub(Vec::new(), |_, _| None);
    let said = run(&bench, &server, &["model", "fetch", "org/name"], &[("HF_HUB_OFFLINE", "1")]);
    assert_snapshot!(mistake(&said));
    assert!(server.asked().is_empty());
}

#[test]
fn a_gated_model_is_a_mistake() {
    let server = hub(Vec::new(), |_, _| Some(Reply::new(403, SECRET)));
    assert_snapshot!(mistake(&run(&Bench::empty(), &server, &["model", "fetch", "org/name"], &[])));
}

#[test]
fn a_model_that_does_not_exist_is_a_mistake() {
    let server = hub(Vec::new(), |_, _| None);
    assert_snapshot!(mistake(&run(&Bench::empty(), &server, &["model", "fetch", "org/other"], &[])));
}

#[test]
fn a_damaged_file_is_a_mistake() {
    let file = || large("pytorch_lora_weights.safetensors", "weights");
    let server = hub(vec![file()], move |asked, _| {
        let is_file = asked.method == "GET" && asked.path.ends_with(".safetensors");
        is_file.then(|| contents(asked, &large("", "WEIGHTS")))
    });
    assert_snapshot!(mistake(&run(&Bench::empty(), &server, &["model", "fetch", "org/name"], &[])));
}

#[test]
fn all_fetched_files_are_verified_without_the_network_when_asked() {
    let bench = Bench::empty();
    let server = hub(vec![large("pytorch_lora_weights.safetensors", "weights")], |_, _| None);
    let verify = ["model", "fetch", "org/name", "--verify"];
    let said = run(&bench, &server, &verify, &[]);
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert!(said.stderr.contains("run `tastemaker model fetch org/name`"), "{}", said.stderr);
    assert!(server.asked().is_empty());
    let lora = ["model", "fetch", "org/name", "--include", "*.safetensors"];
    assert_eq!(run(&bench, &server, &lora, &[]).code, 0);
    let n_asked = server.asked().len();
    let said = run(&bench, &server, &verify, &[]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains(": 1 file in "), "{}", said.stdout);
    assert!(said.stdout.contains(", all checksums match"), "{}", said.stdout);
    let file = format!("cache/models--org--name/snapshots/{COMMIT}/pytorch_lora_weights.safetensors");
    fs::write(fs::canonicalize(bench.path(&file)).unwrap(), "Weights").unwrap();
    let said = run(&bench, &server, &verify, &[]);
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert!(said.stderr.contains("pytorch_lora_weights.safetensors is damaged"), "{}", said.stderr);
    assert_eq!(server.asked().len(), n_asked);
}

#[test]
fn names_that_are_no_models_are_mistakes() {
    let server = hub(Vec::new(), |_, _| None);
    let said =
        |args: &[&str]| mistake(&run(&Bench::empty(), &server, &[&["model", "fetch"], args].concat(), &[]));
    assert_snapshot!([said(&["../x"]), said(&["org/name", "--revision", "../x"])].concat());
    assert!(server.asked().is_empty());
}

#[test]
fn a_cache_that_cannot_be_written_is_a_mistake() {
    let bench = Bench::empty();
    bench.write("file", "in the way");
    let server = hub(vec![large("pytorch_lora_weights.safetensors", "weights")], |_, _| None);
    let said = run(&bench, &server, &["model", "fetch", "org/name", "--cache-dir", "file/cache"], &[]);
    assert_snapshot!(mistake(&said));
}

#[test]
fn without_a_home_the_cache_must_be_named() {
    assert_snapshot!(mistake(&Bench::empty().run(&["model", "fetch", "org/name"])));
}

#[test]
fn the_commands_of_the_guide_to_models_work() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/models.md");
    let page = fs::read_to_string(page).unwrap();
    // Every repository is this one.
    let files = [
        large("README.md", "a page"),
        large("model_index.json", "{}"),
        large("vae/config.json", "{}\n"),
        large("vae/diffusion_pytorch_model.fp16.safetensors", "half"),
        large("vae/diffusion_pytorch_model.safetensors", "whole"),
    ];
    let server = Server::start(move |asked, _| match asked.path.strip_prefix("/api/models/") {
        Some(_) => listing(&files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>()),
        None => {
            let name = asked.path.split(&format!("/resolve/{COMMIT}/")).nth(1);
            let file = files.iter().find(|file| Some(file.name.as_str()) == name);
            file.map_or_else(|| Reply::new(404, ""), |file| contents(asked, file))
        }
    });
    let bench = Bench::empty();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in commands {
        let words: Vec<String> = command.split_whitespace().map(|word| word.replace('"', "")).collect();
        let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let said = run(&bench, &server, &args, &[]);
        assert_eq!(said.code, 0, "{command}\n{}", said.stderr);
    }
    let snapshot = bench.path("cache/models--stabilityai--sdxl-turbo/snapshots").join(COMMIT);
    assert!(snapshot.join("README.md").is_file());
    assert!(bench.path("cache/models--stabilityai--sdxl-turbo/refs/refs/pr/1").is_file());
}
