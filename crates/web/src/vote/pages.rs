//! The pages of voters.

use tastemaker_pages::{Markup, html};

use super::answer::{Answer, Task};
use super::booth::Booth;
use crate::page::{message, shell, theme_button};

/// Votes on one page of one's own votes.
pub const LISTED: usize = 50;

/// Answers as voters read them: name, words, key.
const ANSWERS: [(&str, &str); 5] = [
    ("left", "A is better"),
    ("tie", "Equal"),
    ("bad", "Both bad"),
    ("right", "B is better"),
    ("skip", "Skipped"),
];

/// The page to vote on. What is shown comes by the script. `may_change` is whether somebody else may vote here next.
pub fn vote(booth: &Booth, voter: u32, may_change: bool) -> Markup {
    let name = &booth.voters()[voter as usize].name;
    let several = booth.voters().len() > 1;
    let body = html! {
        header.top {
            div.progress {
                progress #bar-done max="1" value="0" aria-label="Progress" {}
                span #progress {}
            }
            nav aria-label="Pages" {
                a href="/votes" { "My votes" }
                button #help type="button" aria-haspopup="dialog" { "Keys" }
                (theme_button())
                @if several { span.voter title="Who votes" dir="auto" { (name) } }
                @if several && may_change { a href="/who" { "Not you?" } }
            }
        }
        main #main hidden {
            div.ask aria-live="polite" {
                p #prompt dir="auto" {}
                h1 #question dir="auto" {}
            }
            div.stage #stage {
                (side("left", "A"))
                (side("right", "B"))
            }
            div.answers role="group" aria-labelledby="question" {
                (answer("left", "A is better", "\u{2190}", "ArrowLeft"))
                (answer("tie", "Equal", "\u{2191}", "ArrowUp"))
                (answer("bad", "Both bad", "\u{2193}", "ArrowDown"))
                (answer("right", "B is better", "\u{2192}", "ArrowRight"))
            }
            div.tools {
                button #undo type="button" aria-keyshortcuts="U" { kbd { "U" } " Undo" }
                button #zoom type="button" aria-pressed="false" aria-keyshortcuts="Z" { kbd { "Z" } " Zoom" }
                button #skip type="button" data-answer="skip" aria-keyshortcuts="S" { kbd { "S" } " Skip" }
            }
        }
        main #done hidden {
            h1 { "Thank you." }
            p { span #n-done {} " All pairs that wait for you are done." }
            p { a href="/votes" { "Look at your votes" } ", or " button.link #undo-last type="button" { "take the last one back" } "." }
        }
        p #status role="status" {}
        noscript { p.message { "This page needs JavaScript, from this server alone." } }
        dialog #keys aria-labelledby="keys-title" {
            h2 #keys-title { "Keys" }
            dl.keys-list {
                (key(&["\u{2190}"], "A is better"))
                (key(&["\u{2192}"], "B is better"))
                (key(&["\u{2191}"], "they are equal"))
                (key(&["\u{2193}"], "both are bad"))
                (key(&["U", "Backspace"], "undo the last vote"))
                (key(&["S"], "skip: somebody else decides"))
                (key(&["Z", "Space"], "zoom both images at the pointer"))
                (key(&["+", "\u{2212}"], "zoom in and out"))
                (key(&["?"], "this list"))
            }
            p.small { "Wheel, pinch or tap an image to zoom; both move together." }
            form method="dialog" { button.primary { "Close" } }
        }
    };
    shell("Vote", "vote", &["vote.css"], Some("vote.js"), &body)
}

fn side(id: &str, letter: &str) -> Markup {
    html! {
        figure.side id=(id) {
            div.pane { img alt={ "Image " (letter) } draggable="false"; }
            figcaption { (letter) }
        }
    }
}

fn answer(name: &str, words: &str, sign: &str, key: &str) -> Markup {
    html! {
        button type="button" data-answer=(name) aria-keyshortcuts=(key) { kbd { (sign) } span { (words) } }
    }
}

fn key(keys: &[&str], words: &str) -> Markup {
    html! { div { dt { @for key in keys { kbd { (key) } " " } } dd { (words) } } }
}

/// The page where several people at one machine say who they are.
pub fn who(booth: &Booth) -> Markup {
    let text = html! {
        form.who method="post" action="/enter" {
            @for (number, voter) in booth.voters().iter().enumerate() {
                button name="voter" value=(number) dir="auto" { (voter.name) }
            }
        }
    };
    message("Who are you?", &text)
}

/// The page of whoever has no link.
pub fn uninvited() -> Markup {
    let text = html! { p { "This study is by invitation. Open the link that you were sent; it ends with a long word of your own." } };
    message("Not invited", &text)
}

/// One's own votes, to change, the last ones first.
pub fn votes(booth: &Booth, voter: u32, from: usize) -> Markup {
    let answers = booth.answers(voter);
    let n = answers.len();
    let shown: Vec<(usize, &(Task, Answer))> =
        answers.iter().enumerate().rev().skip(from).take(LISTED).collect();
    let body = html! {
        header.top {
            nav aria-label="Pages" { a href="/" { "\u{2190} Vote" } }
            nav aria-label="Settings" { (theme_button()) }
        }
        main.list {
            h1 { "My votes" }
            p.lede { (n) " so far. Change an answer here; it is saved at once." }
            @if n == 0 { p { "There is none yet." } }
            ol.votes {
                @for (index, (task, answer)) in &shown { (one_vote(booth, voter, *index, *task, *answer)) }
            }
            nav.pager aria-label="More votes" {
                @if from > 0 { a href={ "/votes?from=" (from.saturating_sub(LISTED)) } { "Later votes" } }
                @if from < n.saturating_sub(LISTED) { a href={ "/votes?from=" (from + LISTED) } { "Earlier votes" } }
            }
            p #status role="status" {}
        }
    };
    shell("My votes", "plain", &["vote.css"], Some("votes.js"), &body)
}

fn one_vote(booth: &Booth, voter: u32, index: usize, task: Task, answer: Answer) -> Markup {
    let (item, question) = (booth.item(task), &booth.settings().questions[task.question as usize]);
    let a_is_left = booth.a_is_left(voter, task);
    let [a, b] = item.images.map(|image| format!("/image/{}", booth.image_name(image)));
    let [left, right] = if a_is_left { [a, b] } else { [b, a] };
    let standing = answer.side(a_is_left);
    let label = format!("answer-{index}");
    html! {
        li {
            div.thumbs {
                img src=(left) alt="Image A" loading="lazy";
                img src=(right) alt="Image B" loading="lazy";
            }
            div {
                @if question.shows_prompt { p.prompt dir="auto" { (booth.study().prompts[item.prompt as usize].text) } }
                label for=(label) { (question.text) }
                select id=(label) data-task=(task) {
                    @for (name, words) in ANSWERS { option value=(name) selected[name == standing] { (words) } }
                }
            }
        }
    }
}
