//! Images side by side.

use super::exhibits::{Choice, Exhibit};
use super::figures::Figures;
use super::model::Comparison;
use super::tables::{label, plain, signed};
use crate::report::text::{base64, escape};

/// The section with the images and what chooses among them; nothing when there are none.
pub(super) fn section(comparison: &Comparison, figures: &Figures) -> String {
    if comparison.exhibits.is_empty() {
        return String::new();
    }
    let exhibits: String = comparison.exhibits.iter().map(|exhibit| article(comparison, exhibit)).collect();
    format!(
        "<section id=\"images\">\n<h2>Images</h2>\n<p>{} Models start from the same noise. Select an image to enlarge \
         it and to flip between models.</p>\n{}<div class=\"duels\" style=\"--n:{}\">\n{exhibits}</div>\n\
         <p id=\"none\" hidden>No image fits.</p>\n</section>\n",
        choice_said(comparison),
        controls(comparison, figures),
        comparison.models.len()
    )
}

fn choice_said(comparison: &Comparison) -> String {
    let (shown, all) = (comparison.exhibits.len(), comparison.samples.len());
    if shown == all {
        return format!("All {all} images of each.");
    }
    let last = &comparison.models[comparison.models.len() - 1].name;
    let extremes = match comparison.exhibits.iter().any(|exhibit| exhibit.choice == Choice::Gain) {
        true => format!(
            ", and those where <b>{}</b> gains and loses most on <b>{}</b> by {}, marked so",
            escape(last),
            escape(&comparison.models[0].name),
            escape(&comparison.scorers[0].name)
        ),
        false => String::new(),
    };
    format!("{shown} of {all} images of each: every so many, whatever they look like{extremes}.")
}

fn controls(comparison: &Comparison, figures: &Figures) -> String {
    let option =
        |value: &str, text: &str| format!("<option value=\"{}\">{}</option>", escape(value), escape(text));
    let categories: String = figures.categories.iter().map(|(name, _)| option(name, name)).collect();
    let categories = match figures.categories.is_empty() {
        true => String::new(),
        false => format!(
            "<label>Category <select id=\"category\"><option value=\"\">all</option>{categories}</select></label>\n"
        ),
    };
    let first = &comparison.models[0].name;
    let sorts: String = (1..comparison.models.len())
        .map(|one| {
            let name = &comparison.models[one].name;
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

fn article(comparison: &Comparison, exhibit: &Exhibit) -> String {
    let sample = &comparison.samples[exhibit.sample];
    let prompt = &comparison.prompts[sample.prompt];
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
    let scores: Vec<Vec<f64>> = comparison
        .scores
        .iter()
        .map(|scores| scores.iter().map(|scores| scores[exhibit.sample]).collect())
        .collect();
    let scores: Vec<String> =
        scores.iter().map(|row| row.iter().map(f64::to_string).collect::<Vec<_>>().join(" ")).collect();
    let figures: String = (0..comparison.models.len()).map(|one| figure(comparison, exhibit, one)).collect();
    format!(
        "<article class=\"duel\" data-category=\"{}\" data-choice=\"{choice}\" data-scores=\"{}\">\n\
         <h3>{}</h3><p class=\"chips\">{chip}<span class=\"chip\">seed {}</span>{tag}</p>\n\
         <div class=\"row\">\n{figures}</div>\n</article>\n",
        escape(category),
        scores.join(";"),
        escape(&prompt.text),
        sample.seed
    )
}

fn figure(comparison: &Comparison, exhibit: &Exhibit, one: usize) -> String {
    let image = &exhibit.images[one];
    let prompt = &comparison.prompts[comparison.samples[exhibit.sample].prompt].text;
    let scores: String = (0..comparison.scorers.len())
        .map(|scorer| {
            let of = |one: usize| comparison.scores[scorer][one][exhibit.sample];
            let digits = comparison.decimals(scorer);
            let best = (0..comparison.models.len()).all(|other| other == one || of(other) < of(one));
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
        escape(&comparison.models[one].name),
        escape(prompt),
        image.kind,
        base64(&image.bytes),
        label(comparison, one)
    )
}
