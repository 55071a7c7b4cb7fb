//! The folder of a run and its log, whole, torn and foreign.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its folder should stop")]

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tastemaker_run::{
    AlarmRaised, Encode, Event, EventLog, Finish, LrScheduler, Outcome, Overrides, Plan, Probe, Recipe,
    RunDir, RunError, Start, Step, changes, read_events, resolve, split_changes,
};
use tastemaker_store::StoreError;

fn plan(seed: u64) -> Plan {
    let text = format!(
        "output_dir = \"out\"\n[model]\npretrained_model_name_or_path = \"m\"\n[data]\ntrain_data_dir = \"d\"\n\
         [method]\nname = \"sft\"\n[optimizer]\nlearning_rate = 2.0480000000000003e-5\n[train]\nmax_train_steps = 10\nseed = {seed}\n"
    );
    resolve(Recipe::parse(Path::new("r.toml"), &text).unwrap(), Overrides::default()).unwrap()
}

fn step(step: u64, loss: f64) -> Step {
    Step {
        step,
        loss,
        winner_error: 0.2,
        loser_error: Some(0.25),
        ref_winner: None,
        ref_loser: Some(f64::INFINITY),
        logit_mean: None,
        implicit_accuracy: Some(0.5),
        margin: Some(-1e-9),
        grad_norm: 1.5,
        lr: 1e-5,
        pairs_per_second: 12.0,
        ..Step::default()
    }
}

fn one_of_each() -> Vec<Event> {
    let probe = Probe {
        step: 5,
        n_pairs: 64,
        winner_error: 0.2,
        loser_error: None,
        ref_winner: None,
        ref_loser: None,
        implicit_accuracy: None,
        margin: None,
        ..Probe::default()
    };
    let start = Start {
        version: "0.1.0".into(),
        libtorch: None,
        method: "sft".into(),
        device: "cpu".into(),
        n_pairs: 9,
        n_held_out: 1,
        n_ties: 0,
        n_skipped: 0,
        betas: Default::default(),
        step: 0,
        peak_memory_bytes: Some(1 << 30),
    };
    let outcome = Outcome::Failed("out of memory".into());
    let message = "step 39: the loss stays at 0.6931".into();
    vec![
        Event::Encode(Encode { n_done: 10, n_pairs: 10, n_images: 15 }),
        Event::Start(start),
        Event::Step(step(0, 0.7)),
        Event::Probe(probe),
        Event::Alarm(AlarmRaised { step: 39, name: None, message }),
        Event::Finish(Finish {
            step: 10,
            outcome,
            seconds: 3.25,
            peak_memory_bytes: Some(1 << 30),
            peak_reserved_bytes: None,
        }),
    ]
}

mod folder {
    use super::*;

    #[test]
    fn a_new_run_holds_its_plan() {
        let parent = tempfile::tempdir().unwrap();
        let dir = RunDir::create(parent.path().join("a/b"), &plan(0)).unwrap();
        assert_eq!(RunDir::open(dir.path()).unwrap(), (dir, plan(0)));
    }

    #[test]
    fn what_moves_no_weight_may_change_and_the_folder_then_says_so() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        RunDir::create(&path, &plan(0)).unwrap();
        let mut moved = Plan { output_dir: "elsewhere".into(), ..plan(0) };
        moved.checkpoint.checkpointing_steps = 3;
        moved.logging.tracker_name = "mine".into();
        moved.data.dataloader_num_workers = 7;
        // At a constant rate, how long a run lasts does not change its steps.
        moved.train.max_train_steps = 20;
        RunDir::create(&path, &moved).unwrap();
        assert_eq!(RunDir::open(&path).unwrap().1, moved);
    }

    #[test]
    fn the_pairs_of_a_step_may_be_split_otherwise_unless_the_method_takes_a_mean_over_each_part() {
        let split = |method: &str, n_processes, micro_batch, accumulation| {
            let mut plan = Plan { n_processes, ..plan(0) };
            plan.method.name = "kto".into();
            plan.method.settings = serde_json::json!({"reference_point": method});
            plan.train.train_batch_size = micro_batch;
            plan.train.gradient_accumulation_steps = accumulation;
            serde_json::to_value(plan).unwrap()
        };
        let none: [&str; 0] = [];
        for (method, (n_processes, micro_batch, accumulation), differences) in [
            ("previous-step", (1, 2, 4), &none[..]),
            ("previous-step", (8, 1, 1), &none),
            ("previous-step", (1, 8, 1), &none),
            ("batch", (1, 2, 4), &none),
            ("batch", (1, 8, 1), &["train.train_batch_size: 2 there, 8 here"]),
            ("previous-step", (1, 2, 2), &["train.gradient_accumulation_steps: 1 there, 2 here"]),
        ] {
            let (there, here) =
                (split(method, 4, 2, 1), split(method, n_processes, micro_batch, accumulation));
            let found = changes(&there, &here);
            assert!(found.is_empty() == differences.is_empty(), "{method}: {found:?}");
            assert!(
                differences.iter().all(|one| found.iter().any(|other| other == one)),
                "{method}: {found:?}"
            );
        }
        let found = split_changes(&split("zero", 4, 2, 1), &split("zero", 1, 2, 4));
        assert_eq!(
            found,
            ["n_processes: 4 there, 1 here", "train.gradient_accumulation_steps: 1 there, 4 here"]
        );
    }

    #[test]
    fn the_length_of_a_run_matters_where_the_rate_follows_it() {
        let parent = tempfile::tempdir().unwrap();
        let cosine = |steps| {
            let mut plan = plan(0);
            plan.optimizer.lr_scheduler = LrScheduler::Cosine;
            plan.train.max_train_steps = steps;
            plan
        };
        RunDir::create(parent.path(), &cosine(10)).unwrap();
        let error = RunDir::create(parent.path(), &cosine(20)).unwrap_err();
        let RunError::OtherPlan { differences, .. } = error else { panic!("{error:?}") };
        assert_eq!(differences, ["train.max_train_steps: 10 there, 20 here"]);
    }

    #[test]
    fn another_plan_is_refused_with_what_differs() {
        let parent = tempfile::tempdir().unwrap();
        RunDir::create(parent.path(), &plan(0)).unwrap();
        let error = RunDir::create(parent.path(), &plan(1).with_data(7)).unwrap_err();
        let RunError::OtherPlan { differences, .. } = error else { panic!("{error:?}") };
        assert_eq!(differences, ["n_pairs: null there, 7 here", "train.seed: 0 there, 1 here"]);
        assert_eq!(RunDir::open(parent.path()).unwrap().1, plan(0));
    }

    #[test]
    fn a_folder_of_other_things_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("thesis.tex"), "").unwrap();
        assert!(matches!(RunDir::create(parent.path(), &plan(0)), Err(RunError::NotARun { .. })));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_kill_left_behind_does_not_lock_the_folder() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join(".tmpX1y2Z3"), "{\"for").unwrap();
        RunDir::create(parent.path(), &plan(0)).unwrap();
    }

    #[test]
    fn an_output_that_cannot_be_written_is_an_error_that_names_it() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("run")] {
            let error = RunDir::create(&path, &plan(0)).unwrap_err();
            assert!(matches!(error, RunError::Store(StoreError::Io { action: "create", .. })), "{error:?}");
            assert!(error.to_string().ends_with(&path.display().to_string()), "{error}");
        }
    }

    #[test]
    fn a_damaged_or_foreign_plan_is_an_error() {
        let parent = tempfile::tempdir().unwrap();
        let dir = RunDir::create(parent.path(), &plan(0)).unwrap();
        let text = fs::read_to_string(dir.plan_path()).unwrap();

        fs::write(dir.plan_path(), &text[..text.len() / 2]).unwrap();
        assert!(matches!(RunDir::open(dir.path()), Err(RunError::DamagedPlan { .. })));
        fs::write(dir.plan_path(), text.replace("\"seed\"", "\"sed\"")).unwrap();
        assert!(matches!(RunDir::open(dir.path()), Err(RunError::DamagedPlan { .. })));
        fs::write(dir.plan_path(), text.replace("\"format\": 2", "\"format\": 3")).unwrap();
        let error = RunDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("found plan format 3; wanted format 2"), "{error}");
        fs::remove_file(dir.plan_path()).unwrap();
        assert!(matches!(RunDir::open(dir.path()), Err(RunError::Store(StoreError::Missing { .. }))));
    }
}

mod log {
    use super::*;

    fn logged(events: &[Event]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut log = EventLog::open(&path).unwrap();
        events.iter().for_each(|event| log.append(event).unwrap());
        (folder, path)
    }

    #[test]
    fn what_is_appended_is_read_back_before_the_log_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut log = EventLog::open(&path).unwrap();
        for (n, event) in one_of_each().iter().enumerate() {
            log.append(event).unwrap();
            let recorded = read_events(&path).unwrap();
            assert_eq!(recorded.events, one_of_each()[..=n]);
            assert!(!recorded.is_torn);
        }
    }

    #[test]
    fn lines_are_plain_json_with_the_version_first() {
        let (_folder, path) = logged(&[Event::Step(step(3, f64::NAN))]);
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            "{\"tastemaker_events\":1}\n\
             {\"event\":\"step\",\"step\":3,\"loss\":\"NaN\",\"winner_error\":0.2,\"loser_error\":0.25,\"ref_loser\":\"inf\",\
             \"implicit_accuracy\":0.5,\"margin\":-1e-9,\"grad_norm\":1.5,\"lr\":0.00001,\"pairs_per_second\":12.0}\n"
        );
    }

    #[test]
    fn a_log_goes_on_where_it_stopped() {
        let (_folder, path) = logged(&one_of_each());
        EventLog::open(&path).unwrap().append(&one_of_each()[1]).unwrap();
        let events = read_events(&path).unwrap().events;
        assert_eq!((events.len(), &events[6]), (7, &one_of_each()[1]));
    }

    #[test]
    fn a_kill_at_any_byte_loses_at_most_the_line_being_written() {
        let (_folder, path) = logged(&one_of_each());
        let bytes = fs::read(&path).unwrap();
        for n in 0..bytes.len() {
            fs::write(&path, &bytes[..n]).unwrap();
            let n_whole = bytes[..n].iter().filter(|&&byte| byte == b'\n').count().saturating_sub(1);
            let recorded = read_events(&path).unwrap();
            assert_eq!(recorded.events, one_of_each()[..n_whole], "cut at {n}");
            assert_eq!(recorded.is_torn, n > 0 && bytes[n - 1] != b'\n', "cut at {n}");

            EventLog::open(&path).unwrap().append(&one_of_each()[0]).unwrap();
            let recorded = read_events(&path).unwrap();
            assert_eq!((recorded.events.len(), recorded.is_torn), (n_whole + 1, false), "cut at {n}");
        }
    }

    #[test]
    fn another_file_is_neither_read_nor_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        for (contents, complaint) in [
            ("dear diary\n", "line 1: found another kind of file"),
            ("{\"tastemaker_events\":2}\n", "line 1: found version 2"),
            ("{\"tastemaker_events\":1}\n{\"event\":\"party\"}\n", "line 2: found unknown variant `party`"),
            ("{\"tastemaker_events\":1}\n\n", "line 2"),
        ] {
            fs::write(&path, contents).unwrap();
            for error in [read_events(&path).unwrap_err(), EventLog::open(&path).unwrap_err()] {
                assert!(matches!(error, RunError::Format { .. }), "{error:?}");
                assert!(error.to_string().contains(complaint), "{error}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        fs::write(&path, b"{\"tastemaker_events\":1}\n{\"event\":\"\xe9\"}\n").unwrap();
        assert!(matches!(read_events(&path), Err(RunError::Format { line: 2, .. })));
    }

    #[test]
    fn a_log_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = EventLog::open(folder.path().join("none/events.jsonl")).unwrap_err();
        assert!(matches!(error, RunError::Store(StoreError::Io { action: "write", .. })), "{error:?}");
    }

    proptest! {
        #[test]
        fn every_figure_survives_the_log_to_the_bit(bits: u64, other: Option<u64>) {
            let figure = f64::from_bits(bits);
            let event = Event::Step(Step { loss: figure, margin: other.map(f64::from_bits), ..step(1, 0.0) });
            let text = serde_json::to_string(&event).unwrap();
            let Event::Step(read) = serde_json::from_str(&text).unwrap() else { panic!() };
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            prop_assert!(same(read.loss, figure), "{} became {}", figure, read.loss);
            prop_assert_eq!(read.margin.is_some(), other.is_some());
            prop_assert!(other.is_none_or(|bits| same(read.margin.unwrap(), f64::from_bits(bits))));
        }
    }
}
