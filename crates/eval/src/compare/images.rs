//! Images side by side.

use super::exhibits::{Choice, Exhibit};
use super::figures::Figures;
use super::model::Contest;
use super::tables::{label, plain, signed};
use crate::report::text::{base64, escape};

/// The section with the images and what chooses among them; nothing when there are none.
pub(super) fn section(contest: &Contest, figures: &Figures) -> String {
    if contest.exhibits.is_empty() {
        return String::new();
    }
    let exhibits: String = contest.exhibits.iter().map(|exhibit| article(contest, exhibit)).collect();
    format!(
        "<section id=\"images\">\n<h2>Images</h2>\n<p>{} Models start from the same noise. Select an image to enlarge \
         it and to flip between contestants.</p>\n{}<div class=\"duels\" style=\"--n:{}\">\n{exhibits}</div>\n\
         <p id=\"none\" hidden>No image fits.</p>\n</section>\n",
        choice_said(contest),
        controls(contest, figures),
        contest.contestants.len()
    )
}

fn choice_said(contest: &Contest) -> String {
    let (shown, all) = (contest.exhibits.len(), contest.questions.len());
    if shown == all {
        return format!("All {all} images of each.");
    }
    let last = &contest.contestants[contest.contestants.len() - 1].name;
    let extremes = match contest.exhibits.iter().any(|exhibit| exhibit.choice == Choice::Gain) {
        true => format!(
            ", and those where <b>{}</b> gains and loses most on <b>{}</b> by {}, marked so",
            escape(last),
            escape(&contest.contestants[0].name),
            escape(&contest.scorers[0].name)
        ),
        false => String::new(),
    };
    format!("{shown} of {all} images of each: every so many, whatever they look like{extremes}.")
}

fn controls(contest: &Contest, figures: &Figures) -> String {
    let option =
        |value: &str, text: &str| format!("<option value=\"{}\">{}</option>", escape(value), escape(text));
    let categories: String = figures.categories.iter().map(|(name, _)| option(name, name)).collect();
    let categories = match figures.categories.is_empty() {
        true => String::new(),
        false => format!(
            "<label>Category <select id=\"category\"><option value=\"\">all</option>{categories}</select></label>\n"
        ),
    };
    let first = &contest.contestants[0].name;
    let sorts: String = (1..contest.contestants.len())
        .map(|one| {
            let name = &contest.contestants[one].name;
            option(&format!("{one} -1"), &format!("{name} gains most on {first}"))
                + &option(&format!("{one} 1"), &format!("{name} loses most to {first}"))
        })
        .collect();
    format!(
        "<form id=\"controls\" hidden>\n<label>Search <input id=\"search\" type=\"search\" placeholder=\"words of a prompt\"></label>\n\
         {categories}<label>Order <select id=\"order\"><option value=\"\">as listed</option>{sorts}</select></label>\n\
         <label>Show <select id=\"choice\"><option value=\"\">all</option><option value=\"spread\">every so many</option>\
         <option value=\"gain\">gains</option><option value=\"loss\">losses</option></select></label>\n\
         <output id=\"count\"></output>\n</form>\n"
    )
}

fn article(contest: &Contest, exhibit: &Exhibit) -> String {
    let question = &contest.questions[exhibit.question];
    let prompt = &contest.prompts[question.prompt];
    let (choice, tag) = match exhibit.choice {
        Choice::Spread => ("spread", ""),
        Choice::Gain => ("gain", "<span class=\"chip better\">great gain</span>"),
        Choice::Loss => ("loss", "<span class=\"chip worse\">great loss</span>"),
    };
    let category = prompt.category.as_deref().unwrap_or_default();
    let chip = match category {
        "" => String::new(),
        category => format!("<span class=\"chip\">{}</span>", escape(category)),
    };
    let scores: Vec<Vec<f64>> = contest
        .scores
        .iter()
        .map(|scores| scores.iter().map(|scores| scores[exhibit.question]).collect())
        .collect();
    let scores: Vec<String> =
        scores.iter().map(|row| row.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")).collect();
    let figures: String = (0..contest.contestants.len()).map(|one| figure(contest, exhibit, one)).collect();
    format!(
        "<article class=\"duel\" data-category=\"{}\" data-choice=\"{choice}\" data-scores=\"{}\">\n\
         <h3>{}</h3><p class=\"chips\">{chip}<span class=\"chip\">seed {}</span>{tag}</p>\n\
         <div class=\"row\">\n{figures}</div>\n</article>\n",
        escape(category),
        scores.join(";"),
        escape(&prompt.text),
        question.seed
    )
}

fn figure(contest: &Contest, exhibit: &Exhibit, one: usize) -> String {
    let image = &exhibit.images[one];
    let prompt = &contest.prompts[contest.questions[exhibit.question].prompt].text;
    let scores: String = (0..contest.scorers.len())
        .map(|scorer| {
            let of = |one: usize| contest.scores[scorer][one][exhibit.question];
            let digits = contest.decimals(scorer);
            let best = (0..contest.contestants.len()).all(|other| other == one || of(other) < of(one));
            let change = match one {
                0 => String::new(),
                one => format!(" <i>{}</i>", signed(of(one) - of(0), digits)),
            };
            let class = if best { "score best" } else { "score" };
            format!(
                "<span class=\"{class}\" data-scorer=\"{scorer}\"><b>{}</b>{change}</span>",
                plain(of(one), digits)
            )
        })
        .collect();
    format!(
        "<figure><button type=\"button\"><img loading=\"lazy\" alt=\"{}: {}\" src=\"data:{};base64,{}\"></button>\
         <figcaption>{}{scores}</figcaption></figure>\n",
        escape(&contest.contestants[one].name),
        escape(prompt),
        image.kind,
        base64(&image.bytes),
        label(contest, one)
    )
}
