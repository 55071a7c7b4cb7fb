//! What votes come to, and that others read what is written.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use tastemaker_data::formats::{OpenSettings, open, open_with};
use tastemaker_data::{PairSource, Side};
use tastemaker_store::tree::Location;
use tastemaker_web::results::{EXPORTS, Export, Matrix, Results, ScorerScores, export, import, page, text};
use tastemaker_web::study::{FolderOfImages, Item, Study, StudySettings, of_folders, of_pairs, of_places};
use tastemaker_web::vote::{Answer, Ballot, Database, Record, Task};

use crate::browser::Browser;
use crate::support::{settings, study};

/// A database in which these voters answered these items, in this order.
fn voted(db: &Path, study: &Study, settings: &StudySettings, votes: &[(&str, u32, Answer)]) -> Record {
    let mut database = Database::open(db, study, settings).unwrap();
    let mut people: Vec<String> = Vec::new();
    for (name, ..) in votes {
        if !people.iter().any(|known| known == name) {
            people.push((*name).to_owned());
        }
    }
    database.voters(&people).unwrap();
    let keys: Vec<String> = settings.questions.iter().map(|question| question.key.clone()).collect();
    let ballots: Vec<Ballot> = votes
        .iter()
        .zip(0..)
        .map(|((name, item, answer), position)| Ballot {
            voter: people.iter().position(|known| known == name).unwrap() as u32,
            task: Task { item: *item, question: 0, round: 0 },
            answer: Some(*answer),
            a_is_left: position % 2 == 0,
            position,
            seconds: 2.0 + f64::from(position),
            at: 1_700_000_000_000 + u64::from(position),
        })
        .collect();
    database.add(&ballots, &keys).unwrap();
    drop(database);
    Record::read(db).unwrap()
}

const ANN_BO_CY: [&str; 3] = ["ann", "bo", "cy"];

/// Four pairs: A by two of three, A by all, a tie by two, B by all.
fn four(db: &Path) -> Record {
    use Answer::{A, B, Bad, Tie};
    let answers = [[A, A, B], [A, A, A], [Tie, Bad, A], [B, B, B]];
    let votes: Vec<(&str, u32, Answer)> = answers
        .iter()
        .zip(0..)
        .flat_map(|(of_item, item)| {
            ANN_BO_CY.into_iter().zip(of_item).map(move |(name, answer)| (name, item, *answer))
        })
        .collect();
    voted(db, &study(4), &settings(1, 3), &votes)
}

#[test]
fn the_same_votes_give_the_same_bytes_each_time() {
    use Answer::{A, B, Bad, Tie};
    let folder = tempfile::tempdir().unwrap();
    let votes: Vec<(&str, u32, Answer)> = (0..60)
        .flat_map(|item| {
            let answer = move |voter: u32| [A, B, Tie, Bad, A, B, A][((item * 31 + voter * 17) % 7) as usize];
            ANN_BO_CY.into_iter().zip(0..2 + item % 2).map(move |(name, voter)| (name, item, answer(voter)))
        })
        .collect();
    let record = voted(&folder.path().join("votes.sqlite"), &study(60), &settings(1, 3), &votes);
    let json = || Results::of(&record, None, &[]).unwrap().json().unwrap();
    let first = json();
    assert!((0..20).all(|_| json() == first));
}

#[test]
fn majorities_win_rates_and_agreement_follow_from_the_votes() {
    let folder = tempfile::tempdir().unwrap();
    let record = four(&folder.path().join("votes.sqlite"));
    let results = Results::of(&record, None, &[]).unwrap();
    let question = &results.questions[0];
    let all = &question.comparisons[0];
    assert_eq!((all.a.as_str(), all.b.as_str(), all.n), ("trained", "base", 4));
    assert_eq!((all.wins, all.ties, all.losses, all.votes, all.both_bad), (2, 1, 1, [6, 2, 4], 1));
    assert_eq!(all.win_rate.rate, 0.625);
    // statsmodels.stats.proportion.proportion_confint(2.5, 4, method="wilson")
    assert!(
        (all.win_rate.low - 0.219_427).abs() < 1e-5 && (all.win_rate.high - 0.908_101).abs() < 1e-5,
        "{all:?}"
    );
    assert!(all.by_prompt.low < all.by_prompt.rate && all.by_prompt.rate < all.by_prompt.high);
    let of = |category: &str| {
        question
            .comparisons
            .iter()
            .find(|one| one.category.as_deref() == Some(category))
            .unwrap()
            .win_rate
            .rate
    };
    assert_eq!((of("people"), of("animals")), (0.75, 0.5));
    let agreement = &question.agreement;
    // statsmodels.stats.inter_rater.fleiss_kappa and krippendorff.alpha of [2,0,1], [3,0,0], [1,2,0], [0,0,3]
    assert!((agreement.fleiss_kappa.unwrap() - 0.454_545).abs() < 1e-5, "{agreement:?}");
    assert!((agreement.krippendorff_nominal.unwrap() - 0.5).abs() < 1e-9, "{agreement:?}");
    assert_eq!((agreement.n, agreement.unanimous), (4, Some(0.5)));
    assert_eq!((question.n_complete, results.n_items, results.n_votes), (4, 4, 12));
    let people = Results::of(&record, Some("people"), &[]).unwrap();
    assert_eq!((people.n_items, people.n_votes, people.questions[0].comparisons.len()), (2, 6, 1));
    let error = Results::of(&record, Some("food"), &[]).unwrap_err().to_string();
    assert_eq!(error, "no prompt is of category \"food\"; there are people, animals");
    assert!(text(&results).contains("trained against base: 62.5% [21.9% to 90.8%] (2 won, 1 tied, 1 lost)"));
}

#[test]
fn voters_are_measured_and_none_is_dropped() {
    use Answer::{A, B};
    let folder = tempfile::tempdir().unwrap();
    let mut made = study(6);
    made.items[5] = Item { known: Some(0), ..made.items[5].clone() };
    let votes =
        [("ann", 0, A), ("bo", 0, A), ("cy", 0, B), ("ann", 5, A), ("cy", 5, B), ("cy", 1, Answer::Skip)];
    let record = voted(&folder.path().join("v.sqlite"), &made, &settings(1, 3), &votes);
    let results = Results::of(&record, None, &[]).unwrap();
    let [ann, bo, cy] = &results.voters[..] else { panic!() };
    assert_eq!([ann.votes, bo.votes, cy.votes, cy.skipped], [1, 1, 1, 1]);
    assert_eq!(
        [ann.with_others.n, bo.with_others.n, cy.with_others.n],
        [0, 0, 0],
        "one to one is no answer of most"
    );
    assert_eq!((cy.with_others.of, cy.known.n, cy.known.of), (1, 0, 1));
    assert_eq!([ann, bo, cy].map(|voter| voter.below_threshold), [false, false, true]);
    assert_eq!(results.questions[0].comparisons[0].votes, [2, 0, 1], "known answers count for no model");
}

#[test]
fn scorers_are_held_against_people() {
    let folder = tempfile::tempdir().unwrap();
    let record = four(&folder.path().join("votes.sqlite"));
    let scores = |of: [f64; 8]| -> HashMap<(u32, u32, u64), f64> {
        (0..8).map(|i| ((i % 2, i / 2, 7), of[i as usize])).collect()
    };
    let scorer = |name: &str, of| ScorerScores { name: name.into(), scores: scores(of) };
    let scorers = [
        scorer("like people", [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0]),
        scorer("unlike", [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]),
    ];
    let results = Results::of(&record, None, &scorers).unwrap();
    let found: Vec<_> = results.questions[0].scorers.iter().map(|one| (one.agree, one.n)).collect();
    assert_eq!(found, [(3, 3), (0, 3)], "a tie of people says nothing about a scorer");
    let report = page(&record, &results, 0);
    assert!(report.contains("like people") && report.contains("default-src 'none'"));
}

fn layout(name: &str) -> &'static Export {
    EXPORTS.iter().find(|export| export.name == name).unwrap()
}

#[test]
fn exported_pairs_are_read_with_labels_and_soft_labels() {
    let folder = tempfile::tempdir().unwrap();
    let record = four(&folder.path().join("votes.sqlite"));
    let images = study(4).images;
    for name in ["pick-a-pic", "jsonl"] {
        let out = folder.path().join(name);
        assert_eq!(export(layout(name), &record, 0, images.as_ref(), &out).unwrap(), 4);
        let set = open(&out).unwrap();
        assert_eq!((set.len(), set.n_ties()), (3, 1), "{name}");
        let soft: Vec<f64> = (0..3).map(|i| (set.soft_label(i).unwrap() * 1000.0).round()).collect();
        assert_eq!(soft, [667.0, 1000.0, 1000.0], "{name}");
        assert_eq!([0, 1, 2].map(|i| set.caption(i)), ["prompt 0", "prompt 1", "prompt 3"]);
        // Of the last pair B won: its image is the winner's.
        assert_eq!(set.encoded(2, Side::Winner).unwrap(), images.read(7).unwrap());
        let settings = OpenSettings { ties: true, ..OpenSettings::default() };
        let with_ties = open_with(&Location::local(&out).unwrap(), &settings).unwrap();
        assert_eq!((with_ties.len(), with_ties.is_tie(2)), (4, true));
    }
}

#[test]
#[ignore = "installs the datasets package from PyPI; run by hand"]
fn exported_parquet_is_read_by_the_datasets_package() {
    const READ: &str = "import sys, datasets\n\
        rows = datasets.load_dataset('parquet', data_files=sys.argv[1] + '/data/*.parquet', split='train')\n\
        print(len(rows), list(rows['label_0']), list(rows['caption']), [round(p, 3) for p in rows['soft_label']])\n\
        rows = rows.cast_column('jpg_0', datasets.Image())\n\
        print(rows.column_names, rows[3]['jpg_0'].size)\n";
    let folder = tempfile::tempdir().unwrap();
    let record = four(&folder.path().join("votes.sqlite"));
    let out = folder.path().join("out");
    export(layout("pick-a-pic"), &record, 0, study(4).images.as_ref(), &out).unwrap();
    let run = |program: &Path, args: &[&str]| {
        let done = std::process::Command::new(program).args(args).output().unwrap();
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let venv = folder.path().join("venv");
    run(Path::new("python3"), &["-m", "venv", venv.to_str().unwrap()]);
    run(&venv.join("bin/pip"), &["install", "--quiet", "datasets==4.0.0", "pillow"]);
    let said = run(&venv.join("bin/python"), &["-c", READ, out.to_str().unwrap()]);
    println!("{said}");
    let wanted =
        "4 [1.0, 1.0, 0.5, 1.0] ['prompt 0', 'prompt 1', 'prompt 2', 'prompt 3'] [0.667, 1.0, 0.667, 1.0]";
    assert!(said.starts_with(wanted) && said.contains("(256, 256)"), "{said}");
}

#[test]
fn rankings_and_scores_are_read_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let record = four(&folder.path().join("votes.sqlite"));
    let images = study(4).images;
    let out = folder.path().join("hpd");
    assert_eq!(export(layout("hpd"), &record, 0, images.as_ref(), &out).unwrap(), 4);
    let set = open(&out).unwrap();
    assert_eq!(set.len(), 4, "the tie has a side too: two of three votes are ties, one is for A");
    assert_eq!(set.encoded(0, Side::Winner).unwrap(), images.read(0).unwrap());
    let out = folder.path().join("scores");
    export(layout("scores"), &record, 0, images.as_ref(), &out).unwrap();
    let lines = std::fs::read_to_string(out.join("scores.jsonl")).unwrap();
    assert!(
        lines.lines().count() == 8 && lines.contains("\"model\":\"trained\",\"seed\":7,\"score\":1.0"),
        "{lines}"
    );
}

#[test]
fn exported_votes_continue_in_another_database() {
    let folder = tempfile::tempdir().unwrap();
    let record = four(&folder.path().join("votes.sqlite"));
    let file = folder.path().join("votes.jsonl");
    assert_eq!(export(layout("votes"), &record, 0, study(4).images.as_ref(), &file).unwrap(), 12);
    let other = folder.path().join("other.sqlite");
    let mut database = Database::open(&other, &study(4), &settings(1, 3)).unwrap();
    assert_eq!(import(&file, &mut database, &study(4), &settings(1, 3)).unwrap(), 12);
    let again = import(&file, &mut database, &study(4), &settings(1, 3)).unwrap_err().to_string();
    assert_eq!(
        again,
        "the database has 12 votes already; wanted a new one to import into, or the command without --import to go on with \
         these"
    );
    drop(database);
    assert_eq!(Record::read(&other).unwrap().ballots, record.ballots);
    let mut database =
        Database::open(&folder.path().join("less.sqlite"), &study(2), &settings(1, 3)).unwrap();
    let error = import(&file, &mut database, &study(2), &settings(1, 3)).unwrap_err().to_string();
    assert!(error.contains("a vote on a pair that this study does not have"), "{error}");
}

#[test]
fn a_set_of_pairs_is_labeled_anew() {
    let folder = tempfile::tempdir().unwrap();
    let record = four(&folder.path().join("votes.sqlite"));
    let out = folder.path().join("pairs");
    export(layout("jsonl"), &record, 0, study(4).images.as_ref(), &out).unwrap();
    let made = of_pairs("pairs", Arc::new(open(&out).unwrap())).unwrap();
    assert_eq!((made.models.join(" "), made.items.len()), ("winner loser".into(), 3));
    let record = voted(&folder.path().join("again.sqlite"), &made, &settings(1, 1), &[("me", 1, Answer::B)]);
    let images = of_places(&record.places).expect("its images are files");
    assert_eq!(images.read(2).unwrap(), made.images.read(2).unwrap());
    let again = folder.path().join("again");
    export(layout("jsonl"), &record, 0, images.as_ref(), &again).unwrap();
    let set = open(&again).unwrap();
    assert_eq!(set.encoded(0, Side::Winner).unwrap(), made.images.read(3).unwrap(), "the loser won");
}

#[test]
fn the_page_of_results_is_one_file_without_barriers() {
    use Answer::{A, B, Tie};
    let folder = tempfile::tempdir().unwrap();
    for (model, name) in ["base", "ddim-inpo", "diffusion-dpo"].into_iter().enumerate() {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
        for prompt in 0..6_u8 {
            let shade =
                |x: u32, y: u32| image::Rgb([x as u8 * 2, y as u8 * 2, 40 * prompt + 20 * model as u8]);
            let path = folder.path().join(name).join(format!("{prompt:04}-1.png"));
            image::RgbImage::from_fn(120, 120, shade).save(path).unwrap();
        }
    }
    let folders = ["base", "ddim-inpo", "diffusion-dpo"]
        .map(|name| FolderOfImages { name: name.into(), folder: folder.path().join(name) });
    let made = of_folders("compared", &folders, Some(&study(6).prompts)).unwrap();
    let answers = [A, A, B, A, Tie, A, A, B, A];
    let votes: Vec<(&str, u32, Answer)> = (0..made.items.len() as u32)
        .flat_map(|item| {
            let answer = move |voter: usize| answers[(item as usize * 2 + voter * 3) % answers.len()];
            ANN_BO_CY.into_iter().enumerate().map(move |(voter, name)| (name, item, answer(voter)))
        })
        .collect();
    let record = voted(&folder.path().join("v.sqlite"), &made, &settings(1, 3), &votes);
    let results = Results::of(&record, None, &[]).unwrap();
    assert_eq!(results.questions[0].comparisons.iter().filter(|one| one.category.is_none()).count(), 3);
    let matrix = Matrix::of(&results.questions[0]).unwrap();
    for (number, (a, rates, mean)) in matrix.rows().enumerate() {
        assert!(rates[number].is_none() && rates.iter().flatten().count() == 2, "{a}");
        for (other, rate) in rates.iter().enumerate().filter_map(|(other, rate)| Some((other, (*rate)?))) {
            let back = matrix.rates[other][number].unwrap();
            assert!(
                (rate.rate + back.rate - 1.0).abs() < 1e-12 && (rate.low + back.high - 1.0).abs() < 1e-12
            );
        }
        let next = matrix.rows().nth(number + 1).and_then(|(.., mean)| mean);
        assert!(next.is_none_or(|next| next <= mean.unwrap()), "the one that wins most is first");
    }
    assert!(text(&results).contains("row against column"), "{}", text(&results));
    let report = page(&record, &results, 8);
    assert!(report.contains("Win rate of"));
    assert!(report.matches("<article").count() == 8 && report.contains("data:image/png;base64"));
    std::fs::write(folder.path().join("report.html"), report).unwrap();
    let Some(browser) = Browser::start(&format!("file://{}", folder.path().display())) else { return };
    browser.open("/report.html");
    let first = browser
        .run("return [...document.querySelectorAll('section')].map((section) => section.id).slice(0, 2)");
    assert_eq!(first, serde_json::json!(["images", "win-rates"]), "images come first");
    browser.photograph("results");
    browser.check("results");
}
