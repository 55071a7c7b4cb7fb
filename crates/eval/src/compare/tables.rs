//! Win rates and scores: cards, matrix, tables.

use super::figures::Figures;
use super::headline::verdicts;
use super::model::Comparison;
use crate::report::Verdict;
use crate::report::charts::{win_bar, win_cell};
use crate::report::text::{escape, percent};
use crate::winrate::{Bounds, WinRate};

const NOTHING: &str = "<td class=\"none\">&ndash;</td>";

/// How every other model fares against the first, at a glance.
pub(super) fn cards(comparison: &Comparison, figures: &Figures) -> String {
    let card = |scorer: usize, one: usize| {
        let Some(rate) = figures.duel(scorer, one, 0, None) else { return String::new() };
        let verdict = Verdict::of(&rate);
        let class = comparison.color(one);
        let verdict_said = match verdict {
            Verdict::Unclear => verdict.word().to_owned(),
            _ => format!("{} than {}", verdict.word(), escape(&comparison.models[0].name)),
        };
        format!(
            "<li class=\"card {class}\"><h3>{}</h3>\n<p class=\"big\">{}</p>\n<p class=\"verdict {}\">{verdict_said}</p>\n{}\n\
             <p class=\"small\">{}&ndash;{} (95%)<br>{} won, {} tied, {} lost</p></li>\n",
            label(comparison, one),
            percent(rate.rate),
            verdict_class(verdict),
            win_bar(&rate, &class),
            percent(rate.low),
            percent(rate.high),
            rate.wins,
            rate.ties,
            rate.losses
        )
    };
    let blocks: String = (0..comparison.scorers.len())
        .map(|scorer| {
            let cards: String = (1..comparison.models.len()).map(|one| card(scorer, one)).collect();
            by_scorer(comparison, scorer, &format!("<ul class=\"cards\">\n{cards}</ul>\n"))
        })
        .collect();
    format!(
        "<section id=\"verdicts\">\n<h2>Win rate against {}</h2>\n{blocks}</section>\n",
        escape(&comparison.models[0].name)
    )
}

/// Pairwise win rates; nothing for two.
pub(super) fn matrix(comparison: &Comparison, figures: &Figures) -> String {
    let n = comparison.models.len();
    if n < 3 {
        return String::new();
    }
    let heads: String =
        (0..n).map(|one| format!("<th scope=\"col\">{}</th>", label(comparison, one))).collect();
    let blocks: String = (0..comparison.scorers.len())
        .map(|scorer| {
            let rows: String = (0..n)
                .map(|a| {
                    let cells: String = (0..n)
                        .map(|b| {
                            figures.duel(scorer, a, b, None).map_or(NOTHING.to_owned(), |rate| heat(&rate))
                        })
                        .collect();
                    format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", label(comparison, a))
                })
                .collect();
            let table = format!(
                "<div class=\"scroll\"><table class=\"matrix\">\n<thead><tr><td></td>{heads}</tr></thead>\n\
                 <tbody>\n{rows}</tbody>\n</table></div>\n"
            );
            by_scorer(comparison, scorer, &table)
        })
        .collect();
    format!(
        "<section id=\"matrix\">\n<h2>Pairwise win rates</h2>\n<p>How often the row beats the column, with the 95% \
         Wilson interval. Strong color: the whole interval lies on one side of one half.</p>\n{blocks}</section>\n"
    )
}

fn heat(rate: &WinRate) -> String {
    let sure = if Verdict::of(rate) == Verdict::Unclear { 0.35 } else { 1.0 };
    let strength = ((rate.rate - 0.5).abs() * 2.0 * sure * 62.0).round();
    let class = if rate.rate >= 0.5 { "up" } else { "down" };
    format!(
        "<td class=\"heat {class}\" style=\"--p:{strength}%\" title=\"{} won, {} tied, {} lost\"><b>{}</b><br><i>{}&ndash;{}</i></td>",
        rate.wins,
        rate.ties,
        rate.losses,
        tenths(rate.rate),
        tenths(rate.low),
        tenths(rate.high)
    )
}

/// Scores of every model by every scorer.
pub(super) fn standings(comparison: &Comparison, figures: &Figures) -> String {
    let blocks: String = (0..comparison.scorers.len())
        .map(|scorer| {
            let digits = comparison.decimals(scorer);
            let rows: String = (0..comparison.models.len())
                .map(|one| {
                    let Some(standing) = figures.standing(scorer, one, None) else { return String::new() };
                    let difference = figures.duel(scorer, one, 0, None).map_or(NOTHING.repeat(2), |rate| {
                        [rate.mean_difference, rate.median_difference]
                            .map(|bounds| format!("<td>{}</td>", interval(&bounds, digits, true)))
                            .concat()
                    });
                    format!(
                        "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td>{difference}</tr>\n",
                        label(comparison, one),
                        interval(&standing.mean, digits, false),
                        plain(standing.median, digits)
                    )
                })
                .collect();
            let table = format!(
                "<div class=\"scroll\"><table class=\"narrow\">\n<thead><tr><th scope=\"col\">ComparedModel</th><th scope=\"col\">mean \
                 score</th><th scope=\"col\">median score</th><th scope=\"col\">mean difference</th><th scope=\"col\">median \
                 difference</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
            );
            by_scorer(comparison, scorer, &table)
        })
        .collect();
    format!(
        "<section id=\"scores\">\n<h2>Scores</h2>\n<p>Differences are from <b>{}</b> for the same prompt and seed, averaged over \
         the images of a prompt first; brackets are 95% bootstrap intervals over prompts.</p>\n{blocks}</section>\n",
        escape(&comparison.models[0].name)
    )
}

/// Win rates by category; nothing where there are none.
pub(super) fn categories(comparison: &Comparison, figures: &Figures) -> String {
    if figures.categories.is_empty() {
        return String::new();
    }
    let others = 1..comparison.models.len();
    let heads: String =
        others.clone().map(|one| format!("<th scope=\"col\">{}</th>", label(comparison, one))).collect();
    let rows: Vec<(Option<usize>, String, usize)> =
        std::iter::once((None, "All prompts".to_owned(), n_prompts(comparison)))
            .chain(figures.categories.iter().enumerate().map(|(i, (name, n))| (Some(i), escape(name), *n)))
            .collect();
    let blocks: String = (0..comparison.scorers.len())
        .map(|scorer| {
            let rows: String = rows
                .iter()
                .map(|(category, name, n)| {
                    let cells: String = others
                        .clone()
                        .map(|one| match figures.duel(scorer, one, 0, *category) {
                            Some(rate) => win_cell(&rate, &comparison.color(one), tenths),
                            None => NOTHING.to_owned(),
                        })
                        .collect();
                    let class = if category.is_none() { " class=\"all\"" } else { "" };
                    format!("<tr{class}><th scope=\"row\">{name}</th><td class=\"number\">{n}</td>{cells}</tr>\n")
                })
                .collect();
            let table = format!(
                "<div class=\"scroll\"><table class=\"narrow\">\n<thead><tr><th scope=\"col\">Category</th><th scope=\"col\">prompts</th>\
                 {heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
            );
            by_scorer(comparison, scorer, &table)
        })
        .collect();
    format!(
        "<section id=\"categories\">\n<h2>Categories</h2>\n<p>Win rates against <b>{}</b>. About one interval of twenty misses \
         the truth, so a single category that stands out is a sample, not an answer.</p>\n{blocks}</section>\n",
        escape(&comparison.models[0].name)
    )
}

/// How far the scorers agree; nothing with a single one.
pub(super) fn agreement(comparison: &Comparison, figures: &Figures) -> String {
    let n = comparison.scorers.len();
    if n < 2 {
        return String::new();
    }
    let heads: String = comparison
        .scorers
        .iter()
        .map(|scorer| format!("<th scope=\"col\">{}</th>", escape(&scorer.name)))
        .collect();
    let rows: String = (1..comparison.models.len())
        .map(|one| {
            let cells: String = verdicts(comparison, figures, one)
                .into_iter()
                .enumerate()
                .map(|(scorer, verdict)| {
                    let rate = figures.duel(scorer, one, 0, None).map_or(f64::NAN, |rate| rate.rate);
                    format!(
                        "<td class=\"{}\">{}<br><i>{}</i></td>",
                        verdict_class(verdict),
                        tenths(rate),
                        verdict.word()
                    )
                })
                .collect();
            let all = figures.agreement(one, 0).map_or(f64::NAN, |agreement| agreement.all);
            format!(
                "<tr><th scope=\"row\">{}</th>{cells}<td class=\"number\">{}</td></tr>\n",
                label(comparison, one),
                tenths(all)
            )
        })
        .collect();
    format!(
        "<section id=\"agreement\">\n<h2>Do the scorers agree?</h2>\n<p>Win rates against <b>{}</b> by every scorer, and the share \
         of duels that all of them decide alike. A gain that a single scorer sees may be that scorer's weakness.</p>\n\
         <div class=\"scroll\"><table class=\"narrow\">\n<thead><tr><th scope=\"col\">ComparedModel</th>{heads}<th scope=\"col\">all \
         alike</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n</section>\n",
        escape(&comparison.models[0].name)
    )
}

/// A block that shows one scorer's figures; the script shows the block of the scorer that is chosen.
fn by_scorer(comparison: &Comparison, scorer: usize, inner: &str) -> String {
    let heading = match comparison.scorers.len() {
        1 => String::new(),
        _ => format!("<h3>{}</h3>\n", escape(&comparison.scorers[scorer].name)),
    };
    format!("<div class=\"by-scorer\" data-scorer=\"{scorer}\">\n{heading}{inner}</div>\n")
}

/// A model's name behind a dot of its color.
pub(super) fn label(comparison: &Comparison, model: usize) -> String {
    format!(
        "<span class=\"dot {}\"></span>{}",
        comparison.color(model),
        escape(&comparison.models[model].name)
    )
}

fn verdict_class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Unclear => "unclear",
        Verdict::Worse => "worse",
    }
}

/// A share in percent, with one decimal.
pub(super) fn tenths(share: f64) -> String {
    if share.is_finite() { format!("{:.1}%", share * 100.0) } else { "\u{2013}".to_owned() }
}

fn interval(bounds: &Bounds, digits: usize, signed: bool) -> String {
    let number = |value: f64| if signed { self::signed(value, digits) } else { plain(value, digits) };
    format!("{} <i>{} to {}</i>", number(bounds.value), number(bounds.low), number(bounds.high))
}

/// A number, with a true minus; what rounds to nothing has none.
pub(super) fn plain(value: f64, digits: usize) -> String {
    let text = signed(value, digits);
    text.strip_prefix('+').map(str::to_owned).unwrap_or(text)
}

/// A number with its sign, a true minus; what rounds to nothing has none.
pub(super) fn signed(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    match (text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)), value < 0.0) {
        (false, _) => text,
        (true, true) => format!("\u{2212}{text}"),
        (true, false) => format!("+{text}"),
    }
}

/// Prompts with samples.
pub(super) fn n_prompts(comparison: &Comparison) -> usize {
    let mut prompts: Vec<usize> = comparison.samples.iter().map(|sample| sample.prompt).collect();
    prompts.sort_unstable();
    prompts.dedup();
    prompts.len()
}
