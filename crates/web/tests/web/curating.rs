//! Curating a set in a real browser, and what becomes of the list.

use std::collections::BTreeMap;
use std::path::Path;

use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use tastemaker_data::formats::open;
use tastemaker_data::{PairId, PairSource, Side, exclusions};
use tastemaker_web::curate::{Desk, Findings, read_margins, router};

use crate::browser::{Browser, DOWN};
use crate::support::{Client, Serving};

/// A set of so many pairs of few images.
fn set(folder: &Path, n: usize) {
    for number in 0..20_u8 {
        let color = Rgb([number * 12, 200 - number * 8, 90]);
        RgbImage::from_pixel(64, 48, color).save(folder.join(format!("{number}.png"))).unwrap();
    }
    let row = |i: usize| {
        json!({ "image_0": format!("{}.png", i % 20), "image_1": format!("{}.png", (i + 7) % 20), "prefer_0": true,
                "prefer_1": false, "prompt": format!("a fox number {i}"), "soft_label": 0.5 + (i % 50) as f64 / 100.0 })
    };
    let lines: Vec<String> = (0..n).map(|i| row(i).to_string()).collect();
    std::fs::write(folder.join("metadata.jsonl"), lines.join("\n")).unwrap();
}

/// The desk of a set, served.
fn served(folder: &Path, list: &Path, findings: Findings) -> Serving {
    let desk = Desk::open(open(folder).unwrap(), folder, list, findings).unwrap();
    Serving::start(router(desk), 0)
}

fn findings(rows: &[(u64, &str)]) -> Findings {
    let mut found: BTreeMap<PairId, Vec<_>> = BTreeMap::new();
    for (row, check) in rows {
        let line = json!({ "check": check, "detail": "both images are the same" });
        found.entry(PairId(*row)).or_default().push(serde_json::from_value(line).unwrap());
    }
    found
}

#[test]
fn two_thousand_rows_are_curated_by_keyboard() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path(), 2000);
    let lists = tempfile::tempdir().unwrap();
    let list = lists.path().join("curated.jsonl");
    let server =
        served(folder.path(), &list, findings(&[(4, "identical-images"), (1990, "identical-images")]));
    let Some(browser) = Browser::start(&server.url) else { return };
    let at = |position: usize| {
        browser.wait(&format!("return document.body.dataset.position === '{position}'"));
    };
    browser.open("/");
    at(0);
    for (key, next) in [("k", 1), ("x", 2), ("s", 3), ("t", 4), (DOWN, 5)] {
        browser.press(key);
        at(next);
    }
    browser.wait("return [...document.querySelectorAll('.entry img')].every((image) => image.complete)");
    browser.photograph("curate");
    browser.check("curate");
    let options = browser.run("return document.getElementById('check').textContent");
    assert!(options.as_str().unwrap().contains("identical-images (2)"), "{options}");
    browser.appear((390, 844), false);
    let apart = "document.querySelector('.stage').getBoundingClientRect().bottom <= document.querySelector('.actions').getBoundingClientRect().top";
    assert_eq!(browser.run(&format!("return {apart}")), true, "buttons are not under images on a phone");
    browser.appear((1280, 800), false);
    browser.press("x");
    at(6);
    browser.press("u");
    at(5);
    browser.wait("return document.getElementById('counts').textContent === '4 decided, 3 changed'");
    browser.run("const box = document.getElementById('caption'); box.value = 'a vixen'; box.dispatchEvent(new Event('change')); return 1");
    browser.wait("return document.getElementById('counts').textContent === '5 decided, 4 changed'");
    browser.press("\u{e010}");
    at(1999);
    let shown = browser.run("return document.querySelectorAll('.entry').length");
    assert!(shown.as_u64().unwrap() < 60, "only what is seen is there: {shown}");
    browser.run("const list = document.getElementById('list'); for (let i = 0; i < 50; i += 1) list.scrollTop = i * 3000; return 1");
    browser.wait("return document.querySelectorAll('.entry p').length > 3");
    browser.run(
        "const check = document.getElementById('check'); check.value = 'identical-images'; \
                 check.dispatchEvent(new Event('input', { bubbles: true })); return 1",
    );
    browser.wait("return document.getElementById('found').textContent === '2 pairs'");
    at(4);
    drop(browser);
    drop(server);

    let mut pairs = open(folder.path()).unwrap();
    let before = pairs.fingerprint();
    exclusions::apply(&list, &mut pairs).unwrap();
    assert_ne!(pairs.fingerprint(), before);
    let ids: Vec<u64> = (0..5).map(|position| pairs.id(position).0).collect();
    assert_eq!((pairs.len(), ids), (1998, vec![0, 2, 4, 5, 6]), "one is excluded, one a tie");
    let original = open(folder.path()).unwrap();
    assert_eq!(pairs.encoded(1, Side::Winner).unwrap(), original.encoded(2, Side::Loser).unwrap(), "swapped");
    assert_eq!((pairs.caption(3), pairs.caption(4)), ("a vixen", "a fox number 6"));
    assert_eq!((pairs.soft_label(1), pairs.n_ties()), (original.soft_label(2), 1));
}

#[test]
fn a_list_by_hand_swaps_ties_and_edits() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path(), 6);
    let original = open(folder.path()).unwrap();
    let applied = |lines: &[&str]| {
        let list = folder.path().join("list.txt");
        let header = exclusions::corrections_header(&original, folder.path());
        std::fs::write(&list, [&[header.as_str()], lines].concat().join("\n")).unwrap();
        let mut pairs = open(folder.path()).unwrap();
        exclusions::apply(&list, &mut pairs).map(|()| pairs)
    };
    let nothing = applied(&[]).unwrap();
    assert_eq!(nothing.fingerprint(), original.fingerprint(), "a list that says nothing makes no other set");
    let kept = applied(&["{\"row\": 1, \"do\": \"exclude\"}", "{\"row\": 1, \"do\": \"keep\"}"]).unwrap();
    assert_eq!(kept.fingerprint(), original.fingerprint(), "the last line about a row counts");
    let lines = [
        "{\"row\": 0}",
        "{\"row\": 2, \"do\": \"tie\"}",
        "{\"row\": 3, \"do\": \"swap\", \"caption\": \"a vixen\", \"note\": \"the fox is a vixen\"}",
        "{\"row\": 4, \"do\": \"keep\", \"caption\": \"a cub\"}",
        "{\"row\": 99, \"do\": \"swap\"}",
    ];
    let pairs = applied(&lines).unwrap();
    let captions: Vec<&str> = (0..pairs.len()).map(|position| pairs.caption(position)).collect();
    assert_eq!(captions, ["a fox number 1", "a vixen", "a cub", "a fox number 5"]);
    assert_eq!(pairs.texts().get(pairs.text_number(1) as usize), "a vixen");
    for side in Side::BOTH {
        let other = if side == Side::Winner { Side::Loser } else { Side::Winner };
        assert_eq!(pairs.encoded(1, side).unwrap(), original.encoded(3, other).unwrap());
        assert_eq!(pairs.encoded(2, side).unwrap(), original.encoded(4, side).unwrap());
    }
    assert_eq!((pairs.n_ties(), pairs.skipped().len()), (1, 2));
    assert_eq!(pairs.winner_is_listed_first(1), original.winner_is_listed_first(3).map(|first| !first));
    let wrong = applied(&["{\"row\": 1, \"do\": \"burn\"}"]).unwrap_err().to_string();
    assert!(wrong.contains("line 2"), "{wrong}");
}

#[test]
fn a_list_is_continued_and_a_torn_line_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path(), 5);
    let lists = tempfile::tempdir().unwrap();
    let list = lists.path().join("curated.jsonl");
    let post =
        |server: &Serving, body: Value| Client::new(&server.url, "", "").post("/api/correct", &body).unwrap();
    {
        let server = served(folder.path(), &list, Findings::new());
        assert_eq!(post(&server, json!({ "position": 1, "do": "exclude", "note": "a watermark" })).0, 200);
        assert_eq!(post(&server, json!({ "position": 2, "do": "exclude" })).0, 200);
        assert_eq!(post(&server, json!({ "position": 2, "do": "keep" })).0, 200);
        assert_eq!(post(&server, json!({ "position": 5, "do": "keep" })).0, 400);
        assert_eq!(post(&server, json!({ "position": 0, "do": "burn" })).0, 422);
        let other = Desk::open(open(folder.path()).unwrap(), folder.path(), &list, Findings::new());
        assert!(other.err().unwrap().to_string().contains("another process is writing it"));
    }
    let whole = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, format!("{whole}{{\"row\": 3, \"do\"")).unwrap();
    {
        let server = served(folder.path(), &list, Findings::new());
        assert_eq!(post(&server, json!({ "position": 4, "do": "swap" })).0, 200);
        let (status, rows) = Client::new(&server.url, "", "").get("/api/rows?state=exclude").unwrap();
        let rows: Value = serde_json::from_slice(&rows).unwrap();
        assert_eq!(
            (status, &rows["total"], &rows["rows"][0]["correction"]["note"]),
            (200, &json!(1), &json!("a watermark"))
        );
        for path in [
            "/image/5/winner",
            "/image/0/both",
            "/image/../../etc/passwd",
            "/thumbnail/99999999999999999999/winner",
        ] {
            assert_eq!(Client::new(&server.url, "", "").get(path).unwrap().0 / 100, 4, "{path}");
        }
    }
    let mut pairs = open(folder.path()).unwrap();
    exclusions::apply(&list, &mut pairs).unwrap();
    let ids: Vec<u64> = (0..pairs.len()).map(|position| pairs.id(position).0).collect();
    assert_eq!(ids, [0, 2, 3, 4]);
    let original = open(folder.path()).unwrap();
    assert_eq!(pairs.encoded(3, Side::Winner).unwrap(), original.encoded(4, Side::Loser).unwrap());
    assert_ne!(pairs.fingerprint(), original.fingerprint());
    let other = tempfile::tempdir().unwrap();
    set(other.path(), 6);
    let error = Desk::open(open(other.path()).unwrap(), other.path(), &list, Findings::new()).err().unwrap();
    assert!(
        error.to_string().contains("another set") || error.to_string().contains("fingerprint"),
        "{error}"
    );
}

#[test]
fn a_page_does_not_decide_over_what_another_page_said() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path(), 5);
    let lists = tempfile::tempdir().unwrap();
    let list = lists.path().join("curated.jsonl");
    let server = served(folder.path(), &list, Findings::new());
    let client = Client::new(&server.url, "", "");
    let post = |body: Value| client.post("/api/correct", &body).unwrap();
    let exclude = json!({ "position": 1, "do": "exclude", "before": null });
    assert_eq!(post(exclude.clone()).0, 200);
    assert_eq!(post(exclude).0, 200, "asked again, for the answer was lost");
    let (status, answer) = post(json!({ "position": 1, "do": "keep", "note": "blurry", "before": null }));
    assert_eq!((status, &answer["row"]["correction"]["do"]), (409, &json!("exclude")));
    let (status, answer) = post(json!({ "position": 1, "do": "open", "before": { "do": "exclude" } }));
    assert_eq!((status, &answer["row"]["correction"], &answer["said"]), (200, &Value::Null, &json!(0)));
    let read = exclusions::read(&list, &open(folder.path()).unwrap()).unwrap();
    assert!(read.is_empty(), "{read:?}");
    assert_eq!(post(json!({ "position": 1, "do": "keep", "tag": "of another set" })).0, 410);
}

#[test]
fn a_list_that_others_write_to_is_followed_and_one_that_is_gone_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path(), 5);
    let lists = tempfile::tempdir().unwrap();
    let list = lists.path().join("curated.jsonl");
    let server = served(folder.path(), &list, Findings::new());
    let client = Client::new(&server.url, "", "");
    let post = |position: usize| {
        client.post("/api/correct", &json!({ "position": position, "do": "exclude" })).unwrap()
    };
    assert_eq!(post(0).0, 200);
    // By a script, which does not end its last line.
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, format!("{text}{{\"row\": 3, \"do\": \"tie\"}}")).unwrap();
    assert_eq!(post(1).1["said"], 3);
    let original = open(folder.path()).unwrap();
    assert_eq!(exclusions::read(&list, &original).unwrap().len(), 3);
    // As most editors save.
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::remove_file(&list).unwrap();
    assert_eq!(post(2).0, 410);
    std::fs::write(&list, text).unwrap();
    assert_eq!(post(2).0, 410);
    assert_eq!(exclusions::read(&list, &original).unwrap().len(), 3);
}

#[test]
fn another_set_at_the_same_address_is_seen_with_its_own_images() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, red) in [(&one, 0), (&two, 255)] {
        set(folder.path(), 3);
        RgbImage::from_pixel(64, 48, Rgb([red, 0, 0])).save(folder.path().join("0.png")).unwrap();
    }
    let serve = |folder: &Path, port: u16| {
        let desk =
            Desk::open(open(folder).unwrap(), folder, &folder.join("list.txt"), Findings::new()).unwrap();
        Serving::start(router(desk), port)
    };
    let server = serve(one.path(), 0);
    let Some(browser) = Browser::start(&server.url) else { return };
    let red = "const image = document.querySelector('#winner img'); if (!image.complete || !image.naturalWidth) return null; \
               const one = document.createElement('canvas').getContext('2d'); one.drawImage(image, 0, 0); \
               return String(one.getImageData(5, 5, 1, 1).data[0])";
    browser.open("/");
    assert_eq!(browser.wait(red), "0");
    let port = server.address.port();
    drop(server);
    let _server = serve(two.path(), port);
    // The page of the first set is still open, and decides nothing about the second.
    browser.press("x");
    browser
        .wait("return document.getElementById('status').textContent.includes('this page is of another set')");
    browser.reload();
    assert_eq!(browser.wait(red), "255");
}

#[test]
fn pairs_are_ordered_by_scores_of_the_set_or_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    set(folder.path(), 5);
    // Of the first row nothing is known, and the third has a label that scores are against.
    let metadata = folder.path().join("metadata.jsonl");
    let mut rows: Vec<Value> = std::fs::read_to_string(&metadata)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (row, soft) in rows.iter_mut().zip([json!(null), json!(0.9), json!(0.1), json!(0.55), json!(1.0)]) {
        row["soft_label"] = soft;
    }
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(&metadata, lines.join("\n")).unwrap();
    let pairs = open(folder.path()).unwrap();
    let scores = folder.path().join("scores.txt");
    let line = |name: usize, score: f64| json!({ "image": folder.path().join(format!("{name}.png")), "prompt": "a fox", "taste": score });
    // Winners are 0 to 4, losers 7 to 11; one has no score.
    let scored = [(0, 3.0), (1, 1.0), (2, 5.0), (3, 2.0), (7, 1.0), (8, 1.5), (9, 0.0), (10, 9.0)];
    std::fs::write(&scores, scored.map(|(name, score)| line(name, score).to_string()).join("\n")).unwrap();
    let margins = read_margins(&scores, &pairs).unwrap();
    assert_eq!(margins[0].values, [Some(2.0), Some(-0.5), Some(5.0), Some(-7.0), None]);
    let list = folder.path().join("list.txt");
    let desk = Desk::open(pairs, folder.path(), &list, Findings::new()).unwrap().with_margins(margins);
    let names: Vec<String> = desk.orders().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["unsure", "against", "unsure taste", "against taste"]);
    let server = Serving::start(router(desk), 0);
    let order = |order: &str| {
        let (_, body) = Client::new(&server.url, "", "").get(&format!("/api/rows?order={order}")).unwrap();
        let rows: Value = serde_json::from_slice(&body).unwrap();
        rows["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["position"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(order(""), [0, 1, 2, 3, 4]);
    assert_eq!(order("unsure"), [3, 1, 2, 4, 0]);
    assert_eq!(order("against"), [2, 3, 1, 4, 0]);
    assert_eq!(order("unsure%20taste"), [1, 0, 2, 3, 4]);
    assert_eq!(order("against%20taste"), [3, 1, 0, 2, 4]);
    std::fs::write(&scores, line(15, 1.0).to_string()).unwrap();
    let error = read_margins(&scores, &open(folder.path()).unwrap()).unwrap_err().to_string();
    assert!(error.contains("it has both scores of no pair"), "{error}");
}
