//! The figures that matter most, on the terminal.

use tastemaker_eval::compare::{Comparison, Figures, headline};

/// Prints, for each scorer, how each model fares against the first.
pub fn print(comparison: &Comparison, figures: &Figures) {
    let first = &comparison.models[0].name;
    let widest = comparison.models.iter().map(|one| one.name.chars().count()).max().unwrap_or(0);
    let in_categories = figures.categories.iter().map(|(name, _)| name.chars().count());
    let width = in_categories.map(|n| n + 2).chain([widest, 10]).max().unwrap_or(10);
    for (scorer, facts) in comparison.scorers.iter().enumerate() {
        println!(
            "\n{:<width$} {:>9} {:>15} {:>17} {:>11} {:>11} {:>11}",
            facts.name, "win rate", "95% interval", "won/tied/lost", "mean", "median", "difference"
        );
        for one in 0..comparison.models.len() {
            row(comparison, figures, scorer, one, None, &comparison.models[one].name, width);
            if one > 0 {
                for (category, (name, _)) in figures.categories.iter().enumerate() {
                    row(comparison, figures, scorer, one, Some(category), &format!("  {name}"), width);
                }
            }
        }
    }
    println!("\nwin rates against {first}, ties counting half. {}", headline(comparison, figures));
}

fn row(
    comparison: &Comparison,
    figures: &Figures,
    scorer: usize,
    one: usize,
    category: Option<usize>,
    label: &str,
    width: usize,
) {
    let Some(standing) = figures.standing(scorer, one, category) else { return };
    let digits = comparison.decimals(scorer);
    let scores = format!("{:>11.digits$} {:>11.digits$}", standing.mean.value, standing.median);
    match figures.duel(scorer, one, 0, category) {
        None => println!("{label:<width$} {:>9} {:>15} {:>17} {scores}", "", "", ""),
        Some(rate) => println!(
            "{label:<width$} {:>9} {:>15} {:>17} {scores} {:>+11.digits$}",
            format!("{:.1}%", 100.0 * rate.rate),
            format!("{:.1}-{:.1}%", 100.0 * rate.low, 100.0 * rate.high),
            format!("{}/{}/{}", rate.wins, rate.ties, rate.losses),
            rate.mean_difference.value,
        ),
    }
}
