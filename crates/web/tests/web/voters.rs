//! The pages of voters in a real browser.

use std::sync::Arc;

use tastemaker_web::WebError;
use tastemaker_web::study::{ImageSource, Study, StudySettings};
use tastemaker_web::vote::{Access, Answer, Record};

use crate::browser::{Browser, DOWN, LEFT, RIGHT, UP};
use crate::support::{Running, scenes, settings, study};

/// Waits for a task other than the one before; its name, or the end.
fn next(browser: &Browser, before: &str) -> String {
    let script = format!(
        "const task = document.body.dataset.task; if (!document.getElementById('done')) return false; \
         return !document.getElementById('done').hidden ? 'done' : \
         document.querySelector('[data-answer]').disabled || !task || task === '{before}' ? false : task"
    );
    browser.wait(&script).as_str().unwrap().to_owned()
}

#[test]
fn people_vote_by_keyboard_take_back_reload_and_finish() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let server = Running::start(&db, scenes(5), settings(3, 1), &["me"], Access::Open);
    let Some(browser) = Browser::start(&server.url) else { return };
    browser.open("/");
    let first = next(&browser, "");
    browser.photograph("vote");
    browser.check("vote");
    browser.press(LEFT);
    let second = next(&browser, &first);
    browser.press("u");
    assert_eq!(next(&browser, &second), first);
    let mut task = first;
    for key in [LEFT, UP, DOWN, RIGHT, "s"] {
        browser.press(key);
        task = next(&browser, &task);
    }
    browser.reload();
    assert_eq!(next(&browser, ""), task, "the same task after a reload");
    assert_eq!(browser.run("return document.getElementById('bar-done').value"), 5);
    browser.press("z");
    browser.wait("return document.getElementById('stage').classList.contains('zoomed')");
    let transforms = browser
        .run("return [...document.querySelectorAll('.pane img')].map((i) => getComputedStyle(i).transform)");
    assert!(transforms[0] == transforms[1] && transforms[0] != "none", "both zoom alike: {transforms}");
    browser.photograph("vote-zoomed");
    while task != "done" {
        browser.press(RIGHT);
        task = next(&browser, &task);
    }
    browser.photograph("vote-done");
    browser.check("vote-done");
    browser.open("/votes");
    browser.wait("return document.querySelectorAll('.votes li').length === 15");
    browser.photograph("votes");
    browser.check("votes");
    let answers: Vec<Option<Answer>> =
        Record::read(&db).unwrap().ballots.iter().map(|ballot| ballot.answer).collect();
    assert_eq!(answers.len(), 15);
    let count = |answer| answers.iter().filter(|found| **found == Some(answer)).count();
    assert_eq!([Answer::Tie, Answer::Bad, Answer::Skip].map(count), [1, 1, 1]);
    let change = "const select = document.querySelector('select[data-task]'); select.value = 'tie'; \
                  select.dispatchEvent(new Event('change')); return true";
    browser.run(change);
    browser.wait("return document.getElementById('status').textContent === 'Saved.'");
    let record = Record::read(&db).unwrap();
    assert_eq!(record.ballots.iter().filter(|ballot| ballot.answer == Some(Answer::Tie)).count(), 2);
}

#[test]
fn two_people_vote_at_once_by_touch() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let server = Running::start(&db, study(4), settings(1, 2), &["ann", "bo"], Access::Open);
    let (Some(ann), Some(bo)) = (Browser::start(&server.url), Browser::start(&server.url)) else { return };
    ann.open("/");
    ann.photograph("who");
    ann.check("who");
    for (browser, number) in [(&ann, 1), (&bo, 2)] {
        browser.appear((390, 844), false);
        browser.open("/");
        browser.wait("return document.querySelectorAll('.who button').length === 2");
        browser.tap(&format!(".who button:nth-child({number})"));
    }
    let mut tasks = [next(&ann, ""), next(&bo, "")];
    while tasks.iter().any(|task| task != "done") {
        for (browser, task) in [&ann, &bo].into_iter().zip(&mut tasks) {
            if task != "done" {
                browser.tap("[data-answer=left]");
                *task = next(browser, task);
            }
        }
    }
    let record = Record::read(&db).unwrap();
    let of = |voter: u32| record.ballots.iter().filter(|ballot| ballot.voter == voter).count();
    assert_eq!([of(0), of(1)], [4, 4]);
    assert!(record.ballots.iter().all(|ballot| ballot.seconds > 0.0));
}

#[test]
fn a_page_waits_for_a_server_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let start = |port: u16| {
        Running::start_at(
            &db,
            study(3),
            StudySettings { seed: 3, ..settings(1, 1) },
            &["me"],
            Access::Open,
            port,
        )
    };
    let server = start(0);
    let Some(browser) = Browser::start(&server.url) else { return };
    let port = server.address.port();
    browser.open("/");
    let first = next(&browser, "");
    drop(server);
    browser.press(LEFT);
    browser.wait("return document.getElementById('status').textContent.startsWith('Not saved')");
    let server = start(port);
    let second = next(&browser, &first);
    assert_ne!(second, first);
    assert_eq!(Record::read(&db).unwrap().ballots.len(), 1);
    drop(server);
}

#[test]
fn keys_stay_where_they_were_and_somebody_else_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let mut long = scenes(4);
    long.prompts.iter_mut().for_each(|prompt| prompt.text = "a very long prompt, ".repeat(200));
    let server = Running::start(&db, long, settings(1, 2), &["ann", "bo"], Access::Open);
    let Some(browser) = Browser::start(&server.url) else { return };
    browser.open("/");
    browser.run("document.querySelector('.who button').click(); return 1");
    browser.wait("return document.getElementById('prompt')?.textContent.length > 1000");
    let mut task = next(&browser, "");
    browser.check("a long prompt");
    // A prompt that has the focus is scrolled; a button that has it is there for the next pair.
    browser.run("document.getElementById('prompt').focus(); return 1");
    browser.press(DOWN);
    assert_eq!(browser.run("return document.body.dataset.task"), task.as_str());
    browser.run("document.querySelector('[data-answer=right]').focus(); return 1");
    for _ in 0..2 {
        browser.press("\u{e007}");
        task = next(&browser, &task);
        assert_eq!(browser.run("return document.activeElement.dataset.answer"), "right");
    }
    browser.open("/who");
    browser.run("document.querySelector('.who button:nth-child(2)').click(); return 1");
    browser.wait("return document.querySelector('.voter')?.textContent === 'bo'");
    // On a phone that lies on its side every button is there.
    browser.appear((844, 390), false);
    next(&browser, "");
    let seen = "return ['undo', 'zoom', 'skip'].every((id) => document.getElementById(id).getBoundingClientRect().bottom <= innerHeight \
                && document.getElementById(id).offsetHeight >= 24) && document.getElementById('stage').offsetHeight > 150";
    browser.wait(seen);
}

#[test]
fn nobody_votes_on_an_image_that_is_not_seen() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("votes.sqlite");
    let gone = Study { images: Arc::new(Gone), ..study(2) };
    let server = Running::start(&db, gone, settings(1, 1), &["me"], Access::Open);
    let Some(browser) = Browser::start(&server.url) else { return };
    browser.open("/");
    browser
        .wait("return document.getElementById('status').textContent.startsWith('An image cannot be shown')");
    browser.press(LEFT);
    browser.press("s");
    browser.wait("return document.getElementById('bar-done').value === 1");
    let record = Record::read(&db).unwrap();
    assert_eq!(record.ballots.iter().map(|ballot| ballot.answer).collect::<Vec<_>>(), [Some(Answer::Skip)]);
}

/// Images that somebody removed.
struct Gone;

impl ImageSource for Gone {
    fn len(&self) -> usize {
        4
    }

    fn read(&self, _: u32) -> Result<Vec<u8>, WebError> {
        Err(WebError::Study("it is gone".into()))
    }

    fn name(&self, image: u32) -> String {
        image.to_string()
    }
}
