//! The results that matter most, on the terminal.

use tastemaker_eval::compare::{Comparison, Results, headline};

/// Prints, for each scorer, how each model fares against the first.
pub fn print(comparison: &Comparison, results: &Results) {
    let first = &comparison.models[0].name;
    let widest = comparison.models.iter().map(|one| one.name.chars().count()).max().unwrap_or(0);
    let in_categories = results.categories.iter().map(|(name, _)| name.chars().count());
    let width = in_categories.map(|n| n + 2).chain([widest, 10]).max().unwrap_or(10);
    for (scorer, facts) in comparison.scorers.iter().enumerate() {
        println!(
            "\n{:<width$} {:>9} {:>15} {:>17} {:>11} {:>11} {:>11}",
            facts.name, "win rate", "95% interval", "won/tied/lost", "mean", "median", "difference"
        );
        for one in 0..comparison.models.len() {
            row(comparison, results, scorer, one, None, &comparison.models[one].name, width);
            if one > 0 {
                for (category, (name, _)) in results.categories.iter().enumerate() {
                    row(comparison, results, scorer, one, Some(category), &format!("  {name}"), width);
                }
            }
        }
    }
    println!("\nwin rates against {first}, ties counting half. {}", headline(comparison, results));
}

fn row(
    comparison: &Comparison,
    results: &Results,
    scorer: usize,
    one: usize,
    category: Option<usize>,
    label: &str,
    width: usize,
) {
    let Some(score) = results.score(scorer, one, category) else { return };
    let digits = comparison.decimals(scorer);
    let scores = format!("{:>11.digits$} {:>11.digits$}", score.mean.estimate, score.median);
    match results.win_rate(scorer, one, 0, category) {
        None => println!("{label:<width$} {:>9} {:>15} {:>17} {scores}", "", "", ""),
        Some(rate) => println!(
            "{label:<width$} {:>9} {:>15} {:>17} {scores} {:>+11.digits$}",
            format!("{:.1}%", 100.0 * rate.rate.estimate),
            format!("{:.1}-{:.1}%", 100.0 * rate.rate.low, 100.0 * rate.rate.high),
            format!("{}/{}/{}", rate.wins, rate.ties, rate.losses),
            rate.mean_difference.estimate,
        ),
    }
}
