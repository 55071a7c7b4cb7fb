//! Pairs in object storage, on a web server and in the Hub's cache, through the real program; all servers are on this machine.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use support::{Bench, Said, files, mistake};
use tastemaker_data::set::PairSet;
use tastemaker_data::{PairSource, Side, formats};
use tastemaker_hub::remote::{Settings, locate};
use tastemaker_testkit::server::{self, Asked, COMMIT, File, Reply, Server, contents, large, listing};

/// The files of a folder of the bench, below another folder.
fn served(bench: &Bench, folder: &str, below: &str) -> Vec<File> {
    let name = |path: &Path| format!("{below}{}", path.to_str().unwrap().replace('\\', "/"));
    files(&bench.path(folder)).into_iter().map(|(path, body)| large(&name(&path), body)).collect()
}

/// What S3 answers, where the bucket's name is a folder.
fn s3(files: Vec<File>) -> Server {
    Server::start(move |asked, _| match asked.path.strip_prefix("/bucket?") {
        Some(query) => {
            assert!(query.contains("list-type=2"), "{query}");
            let object = |file: &File| {
                let (name, size) = (&file.name, file.body.len());
                format!(
                    "<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
                     <ETag>&quot;{}&quot;</ETag><Size>{size}</Size></Contents>",
                    file.etag
                )
            };
            let objects: String = files.iter().map(object).collect();
            Reply::new(
                200,
                format!("<ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>"),
            )
        }
        None => {
            let file = files.iter().find(|file| asked.path == format!("/bucket/{}", file.name));
            file.map_or_else(|| Reply::new(404, ""), |file| dated(asked, file))
        }
    })
}

fn dated(asked: &Asked, file: &File) -> Reply {
    contents(asked, file).with("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
}

/// How to reach that S3, as variables.
fn variables(server: &Server) -> [(&str, &str); 5] {
    [
        ("AWS_ENDPOINT_URL", server.url.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hush"),
        ("OMP_NUM_THREADS", "1"),
    ]
}

fn opened(address: &str, server: &Server) -> PairSet {
    let options = variables(server).map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let settings = Settings { options, ..Settings::default() };
    formats::open_at(&locate(address, &settings).unwrap()).unwrap()
}

#[track_caller]
fn assert_same(one: &PairSet, other: &PairSet) {
    assert_eq!(one.fingerprint(), other.fingerprint());
    assert_eq!(one.len(), other.len());
    for position in 0..one.len() {
        assert_eq!(one.caption(position), other.caption(position));
        for side in Side::BOTH {
            assert_eq!(one.encoded(position, side).unwrap(), other.encoded(position, side).unwrap());
        }
    }
}

#[test]
fn a_set_is_the_same_wherever_it_lies() {
    let bench = Bench::empty();
    bench.pairs("pairs", 40);
    fs::write(bench.path("pairs/.hidden.png"), "x").unwrap();
    for (side, file) in [("w", "warm"), ("l", "cold")] {
        for i in 0..3 {
            let image = fs::read(bench.path(&format!("pairs/{file}{i}.png"))).unwrap();
            bench.write(&format!("folders/{side}/{i}.png"), image);
            bench.write(&format!("folders/{side}/{i}.txt"), "a fox");
        }
    }
    for folder in ["pairs", "folders"] {
        let server = s3(served(&bench, folder, "a/set/"));
        let here = formats::open(bench.path(folder)).unwrap();
        assert_same(&opened("s3://bucket/a/set/", &server), &here);
        assert_same(&opened("s3://bucket/a/set", &server), &here);
    }
    let server = s3(served(&bench, "pairs", "a/set/"));
    let here = formats::open(bench.path("pairs/metadata.jsonl")).unwrap();
    assert_same(&opened("s3://bucket/a/set/metadata.jsonl", &server), &here);
    let web = server::files(served(&bench, "pairs", "a/set/"), |_, _| None);
    assert_same(&opened(&format!("{}/a/set/metadata.jsonl", web.url), &server), &here);
}

const TRAIN: &str = "train --pretrained_model_name_or_path model --resolution 32 --max_train_steps 2 --method mapo \
                     --held_out_fraction 0 --learning_rate 1e-3";

fn train(bench: &Bench, output: &str, more: &[&str], variables: &[(&str, &str)]) -> Said {
    let args: Vec<&str> =
        TRAIN.split_whitespace().chain(["--output_dir", output]).chain(more.iter().copied()).collect();
    bench.run_in(&args, variables)
}

fn weights(bench: &Bench, output: &str) -> Vec<u8> {
    fs::read(bench.path(output).join("pytorch_lora_weights.safetensors")).unwrap()
}

#[test]
fn training_on_pairs_elsewhere_is_training_on_the_same_pairs() {
    let bench = Bench::new();
    let server = s3(served(&bench, "pairs", "set/"));
    let variables = variables(&server);
    for (output, pairs) in [("here", "pairs"), ("there", "s3://bucket/set/")] {
        let said = train(&bench, output, &["--train_data_dir", pairs], &variables);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(!format!("{}{}", said.stdout, said.stderr).contains("hush"), "{}", said.stderr);
    }
    assert!(weights(&bench, "here") == weights(&bench, "there"));
    let plan = fs::read_to_string(bench.path("there/plan.json")).unwrap();
    assert!(plan.contains("s3://bucket/set/") && !plan.contains("hush"), "{plan}");
}

/// A dataset on a hub: two splits in folders, a card and a script.
fn dataset(bench: &Bench) -> Server {
    let mut files = served(bench, "pairs", "train/");
    files.extend(served(bench, "others", "test/"));
    files.extend([large("README.md", "a card"), large("load.py", "a script")]);
    Server::start(move |asked, _| {
        if asked.path.starts_with("/api/datasets/org/name/revision/") {
            return listing(&files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>());
        }
        let prefix = format!("/datasets/org/name/resolve/{COMMIT}/");
        let file =
            asked.path.strip_prefix(&prefix).and_then(|name| files.iter().find(|file| file.name == name));
        file.map_or_else(|| Reply::new(404, "no"), |file| contents(asked, file))
    })
}

fn hub_variables(server: &Server) -> [(&str, &str); 3] {
    [("HF_ENDPOINT", &server.url), ("HF_HUB_CACHE", "cache"), ("OMP_NUM_THREADS", "1")]
}

#[test]
fn a_fetched_dataset_is_known_by_its_name() {
    let bench = Bench::new();
    bench.pairs("others", 2);
    let server = dataset(&bench);
    let variables = hub_variables(&server);
    let name = ["--dataset_name", "org/name", "--dataset_split_name", "train"];
    assert_snapshot!(mistake(&train(&bench, "out", &name, &variables)));

    let said = bench.run_in(&["data", "fetch", "org/name"], &variables);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let folder = format!("cache/datasets--org--name/snapshots/{COMMIT}");
    assert_eq!(said.stdout.trim(), folder);
    assert!(bench.path(&folder).join("README.md").is_file() && !bench.path(&folder).join("load.py").exists());

    let n_asked = server.asked().len();
    let trained = train(&bench, "by-name", &name, &variables);
    assert_eq!(trained.code, 0, "{}", trained.stderr);
    assert_eq!(train(&bench, "by-path", &["--train_data_dir", "pairs"], &variables).code, 0);
    assert!(weights(&bench, "by-name") == weights(&bench, "by-path"));
    let plan = fs::read_to_string(bench.path("by-name/plan.json")).unwrap();
    assert!(plan.contains(COMMIT) && plan.contains("\"dataset_split_name\": \"train\""), "{plan}");
    assert_eq!(server.asked().len(), n_asked, "something else than fetching went to the network");

    assert_snapshot!(mistake(&train(
        &bench,
        "out",
        &["--train_data_dir", "org/name", "--dataset_split_name", "dev"],
        &variables
    )));
}

#[test]
fn a_split_is_fetched_alone() {
    let bench = Bench::empty();
    bench.pairs("pairs", 1);
    bench.pairs("others", 1);
    let server = dataset(&bench);
    let said = bench.run_in(&["data", "fetch", "org/name", "--split", "test"], &hub_variables(&server));
    assert_eq!(said.code, 0, "{}", said.stderr);
    let fetched: Vec<String> = files(&bench.path("cache/datasets--org--name/snapshots").join(COMMIT))
        .into_iter()
        .map(|(path, _)| path.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(fetched, ["README.md", "test/cold0.png", "test/metadata.jsonl", "test/warm0.png"]);
}

#[test]
fn offline_without_the_dataset_is_a_mistake() {
    let server = Server::start(|_, _| Reply::new(500, ""));
    let variables = [&hub_variables(&server)[..], &[("HF_HUB_OFFLINE", "1")]].concat();
    assert_snapshot!(mistake(&Bench::empty().run_in(&["data", "fetch", "org/name"], &variables)));
    assert!(server.asked().is_empty());
}

#[test]
fn pairs_elsewhere_that_cannot_be_read_are_mistakes() {
    let bench = Bench::new();
    let server = s3(Vec::new());
    let closed = Server::start(|_, _| Reply::new(403, "no"));
    let said = |server: &Server, pairs: &str| {
        let pairs = pairs.replace("HOST", &server.url);
        let said = train(&bench, "out", &["--train_data_dir", &pairs], &variables(server));
        mistake(&Said { stderr: said.stderr.replace(&server.url, "HOST"), ..said })
    };
    let all = [
        said(&server, "s3://bucket/set/"),
        said(&closed, "s3://bucket/set/"),
        said(&closed, "HOST/metadata.jsonl"),
        said(&server, "HOST/nothing.jsonl"),
        said(&server, "HOST/set/"),
        said(&server, "https://host/pairs.tar?X-Amz-Signature=hush"),
        said(&server, "s3://bucket/../set/"),
        said(&server, "az://container/set/"),
    ];
    assert_snapshot!(all.concat());
}

#[test]
fn what_a_network_does_has_its_own_exit_code_in_every_layout() {
    let bench = Bench::new();
    bench.succeed(&["data", "convert", "pairs", "parquet"]);
    for folder in ["pairs", "parquet"] {
        let files = served(&bench, folder, "");
        let list =
            files.iter().find(|file| !file.name.ends_with(".png") && !file.name.ends_with(".md")).unwrap();
        let name = list.name.clone();
        // It is another one whenever something of it is asked for.
        let server = Server::start(move |asked, _| {
            let file = files.iter().find(|file| asked.path == format!("/{}", file.name));
            match file {
                None => Reply::new(404, ""),
                Some(file) if asked.method == "GET" => dated(asked, file).with("ETag", "\"another\""),
                Some(file) => dated(asked, file),
            }
        });
        let address = format!("{}/{name}", server.url);
        let said = train(&bench, "out", &["--train_data_dir", &address], &variables(&server));
        assert_eq!(said.code, 7, "{folder}: {}", said.stderr);
    }
}

#[test]
fn the_commands_of_the_guide_to_remote_pairs_work() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/remote-pairs.md");
    let page = fs::read_to_string(page).unwrap();
    let names =
        ["README.md", "data/train-00000-of-00001.parquet", "default/validation-00000-of-00001.parquet"];
    let server = Server::start(move |asked, _| match asked.path.strip_prefix("/api/datasets/") {
        Some(_) => listing(&names),
        None => contents(asked, &large("", "rows")),
    });
    let bench = Bench::empty();
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands: Vec<&str> = blocks.flat_map(str::lines).collect();
    assert_eq!(commands.len(), 4, "{commands:?}");
    for command in commands {
        let words: Vec<String> =
            command.split_whitespace().skip(1).map(|word| word.replace('"', "")).collect();
        let args: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = bench.run_in(&args, &hub_variables(&server));
        assert_eq!(said.code, 0, "{command}\n{}", said.stderr);
    }
    assert!(bench.path("cache/datasets--org--name/refs/refs/convert/parquet").is_file());
}
