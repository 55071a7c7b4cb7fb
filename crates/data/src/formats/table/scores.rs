//! How sure a pair's label is, from scores beside it.

use super::{Cell, Row, Shape};
use crate::formats::Columns;

/// The cosines of PickScore that SmPO maps to 0 and 1.
///
/// Source: `JaydenLyh/SmPO` train.py.
const PICK_SCORES: [f64; 2] = [0.11543526500463486, 0.28201571106910706];

/// What a cosine is multiplied by in the scores of the scorer `pick-score` where a set does not say it: the scale that PickScore
/// learned.
const PICK_SCALE: f64 = 100.0;

/// The name of that scorer.
const PICK_SCORE: &str = "pick-score";

/// Columns that give the soft label of a pair: the probability that its winner is really the better one.
///
/// The label stays what people said, whatever the scores say: where they side with the loser, the soft label is below one
/// half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scores {
    /// PickScore's cosine of each image with the caption, the first image's first. Mapped as SmPO does, then a softmax.
    Cosines([String; 2]),
    /// What `data relabel` and `data pairs` wrote: what decided, and beside it the scores of the scorer `pick-score`. Where it was
    /// PickScore alone that decided, its scores are mapped as cosines are; a mixture of scorers counts by its difference.
    Scored {
        /// The columns of what decided.
        decided: [String; 2],
        /// Those of PickScore.
        pick_score: [String; 2],
        /// The column that says who decided. Sets of earlier versions have none: it was PickScore alone where both scores are
        /// the same.
        scorer: Option<String>,
        /// The column of what PickScore's cosines are multiplied by.
        scale: Option<String>,
    },
    /// Rewards of which the difference counts, as models of rewards are trained: `sigmoid(winner's - loser's)`.
    Rewards([String; 2]),
    /// The soft label itself.
    OfWinner(String),
    /// The probability that the first image is the better one.
    OfFirst(String),
}

impl Scores {
    /// Those that a table has by the names of its columns.
    pub fn detected(shape: &Shape, has: impl Fn(&str) -> bool) -> Option<Self> {
        let both = |a: &str, b: &str| (has(a) && has(b)).then(|| [a.to_owned(), b.to_owned()]);
        let of_winner = || has("soft_label").then(|| Self::OfWinner("soft_label".into()));
        match shape {
            Shape::Labeled { .. } => of_winner()
                .or_else(|| has("probability_0").then(|| Self::OfFirst("probability_0".into())))
                .or_else(|| both("ps_score_0", "ps_score_1").map(Self::Cosines))
                .or_else(|| {
                    let (decided, pick_score) =
                        (both("score_0", "score_1")?, both("pick-score_0", "pick-score_1")?);
                    let column = |name: &str| has(name).then(|| name.to_owned());
                    let (scorer, scale) = (column("scorer"), column("pick-score_scale"));
                    Some(Self::Scored { decided, pick_score, scorer, scale })
                })
                .or_else(|| both("score_0", "score_1").map(Self::Rewards)),
            Shape::Ranked { .. } => {
                of_winner().or_else(|| both("win_score", "lose_score").map(Self::Rewards))
            }
            Shape::Single { .. } | Shape::Liked { .. } | Shape::Ranking { .. } => None,
        }
    }

    /// Those that a mapping names, `None` if it names none.
    ///
    /// # Errors
    /// What is missing or too much.
    pub fn typed(typed: &Columns) -> Result<Option<Self>, String> {
        let both = |[a, b]: [&Option<String>; 2], names: &str| match (a, b) {
            (Some(a), Some(b)) => Ok(Some([a.clone(), b.clone()])),
            (None, None) => Ok(None),
            _ => Err(format!("name both {names}")),
        };
        let cosines = both([&typed.ps_score_0, &typed.ps_score_1], "ps_score_0 and ps_score_1")?;
        let rewards = both([&typed.score_0, &typed.score_1], "score_0 and score_1")?;
        let kinds = [
            cosines.map(Self::Cosines),
            rewards.map(Self::Rewards),
            typed.soft_label.clone().map(Self::OfWinner),
            typed.probability_0.clone().map(Self::OfFirst),
        ];
        let mut named = kinds.into_iter().flatten();
        match (named.next(), named.next()) {
            (_, Some(_)) => Err("name one kind of scores, not several".into()),
            (scores, None) => Ok(scores),
        }
    }

    /// The columns.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Cosines([a, b]) | Self::Rewards([a, b]) => vec![a, b],
            Self::Scored { decided: [a, b], pick_score: [c, d], scorer, scale } => {
                [a, b, c, d].into_iter().chain(scorer).chain(scale).map(String::as_str).collect()
            }
            Self::OfWinner(a) | Self::OfFirst(a) => vec![a],
        }
    }

    /// The soft label of a row; `None` where a score is missing, is no number or cannot be: a cosine outside -1..1, a
    /// probability outside 0..1.
    pub fn soft_label(&self, row: &dyn Row, first_wins: bool) -> Option<f64> {
        let number = |column: &String| number(&row.cell(column));
        let within = |value: f64, low: f64| (low..=1.0).contains(&value).then_some(value);
        let [low, high] = PICK_SCORES;
        let cosines = |a: f64, b: f64| Some((within(a, -1.0)? - within(b, -1.0)?) / (high - low));
        let ahead = match self {
            Self::Cosines([a, b]) => cosines(number(a)?, number(b)?)?,
            Self::Scored { decided: [a, b], pick_score: [c, d], scorer, scale } => {
                let (decided, scores) = ((number(a)?, number(b)?), number(c).zip(number(d)));
                let scorer = scorer.as_ref().map(|column| row.cell(column));
                let is_alone = |scores: &(f64, f64)| match &scorer {
                    Some(Cell::Text(name)) => name.trim() == PICK_SCORE,
                    _ => *scores == decided,
                };
                match scores.filter(is_alone) {
                    Some((a, b)) => {
                        let scale = scale.as_ref().and_then(number).unwrap_or(PICK_SCALE);
                        // A negative weight turns the scores around; its size changes no label.
                        let is_inverted = (decided.0 - decided.1) * (a - b) < 0.0;
                        let ahead = cosines(a / scale, b / scale)?;
                        if is_inverted { -ahead } else { ahead }
                    }
                    None => decided.0 - decided.1,
                }
            }
            Self::Rewards([a, b]) => number(a)? - number(b)?,
            Self::OfWinner(column) => return within(number(column)?, 0.0),
            Self::OfFirst(column) => {
                let first = within(number(column)?, 0.0)?;
                return Some(if first_wins { first } else { 1.0 - first });
            }
        };
        // A softmax over two is the sigmoid of their difference
        Some(1.0 / (1.0 + if first_wins { -ahead } else { ahead }.exp()))
    }
}

/// A number, or a list of one, as SmPO's script writes scores.
fn number(cell: &Cell<'_>) -> Option<f64> {
    match cell {
        Cell::List(cells) => match cells.as_slice() {
            [only] => only.label().ok(),
            _ => None,
        },
        other => other.label().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pair([f64; 2]);

    impl Row for Pair {
        fn cell(&self, column: &str) -> Cell<'_> {
            match column {
                "a" => Cell::Number(self.0[0]),
                "b" => Cell::List(vec![Cell::Number(self.0[1])]),
                _ => Cell::Null,
            }
        }
    }

    fn both() -> [String; 2] {
        ["a".into(), "b".into()]
    }

    #[track_caller]
    fn assert_near(scores: &Scores, values: [f64; 2], first_wins: bool, wanted: f64) {
        let found = scores.soft_label(&Pair(values), first_wins).unwrap();
        assert!((found - wanted).abs() < 1e-12, "{found}");
    }

    #[test]
    fn cosines_of_pick_score_are_mapped_as_published() {
        let scores = Scores::Cosines(both());
        let [low, high] = PICK_SCORES;
        // The whole range apart: e / (e + 1)
        assert_near(&scores, [high, low], true, 0.731_058_578_630_004_9);
        assert_near(&scores, [high, low], false, 0.268_941_421_369_995_1);
        // exp(n0) / (exp(n0) + exp(n1)) with n = (score - low) / (high - low) = 0.6277131..., 0.5076510...
        assert_near(&scores, [0.22, 0.2], true, 0.529_979_523_711_052_2);
        assert_near(&scores, [0.2, 0.2], true, 0.5);
    }

    #[test]
    fn scores_of_pick_score_alone_are_mapped_as_published_and_those_of_several_count_by_their_difference() {
        struct Row4([f64; 4]);
        impl Row for Row4 {
            fn cell(&self, column: &str) -> Cell<'_> {
                ["score_0", "score_1", "pick-score_0", "pick-score_1"]
                    .iter()
                    .position(|name| *name == column)
                    .map_or(Cell::Null, |i| Cell::Number(self.0[i]))
            }
        }
        let has = |name: &str| ["score_0", "score_1", "pick-score_0", "pick-score_1"].contains(&name);
        let found = Scores::detected(&Shape::Labeled { images: both(), labels: both() }, has).unwrap();
        let label = |scores| found.soft_label(&Row4(scores), true).unwrap();
        // One unit of its logit is 0.01 of its cosine: SmPO's script makes 0.515 of it, as a reward it were 0.731.
        let published = 1.0 / (1.0 + (-0.01 / (PICK_SCORES[1] - PICK_SCORES[0])).exp());
        assert!((published - 0.515).abs() < 5e-4);
        assert!((label([22.0, 21.0, 22.0, 21.0]) - published).abs() < 1e-12);
        // 1 / (1 + exp(-1)): standardized over the set, and summed with another scorer's
        assert!((label([0.7, -0.3, 22.0, 21.0]) - 0.731_058_578_630_004_9).abs() < 1e-12);
    }

    #[test]
    fn scores_carry_their_scorer_and_their_scale() {
        struct Row6(&'static str, [f64; 5]);
        const NAMES: [&str; 6] =
            ["score_0", "score_1", "pick-score_0", "pick-score_1", "pick-score_scale", "scorer"];
        impl Row for Row6 {
            fn cell(&self, column: &str) -> Cell<'_> {
                match NAMES.iter().position(|name| *name == column) {
                    Some(5) => Cell::Text(self.0.into()),
                    Some(i) => Cell::Number(self.1[i]),
                    None => Cell::Null,
                }
            }
        }
        let has = |name: &str| NAMES.contains(&name);
        let found = Scores::detected(&Shape::Labeled { images: both(), labels: both() }, has).unwrap();
        assert_eq!(found.columns().len(), 6);
        // Cosines 0.22 and 0.21, whatever they are multiplied by and whatever weight the scorer had.
        let published = 1.0 / (1.0 + (-0.01 / (PICK_SCORES[1] - PICK_SCORES[0])).exp());
        for (scores, first) in [
            ([22.0, 21.0, 22.0, 21.0, 100.0], published),
            ([11.0, 10.5, 22.0, 21.0, 100.0], published),
            ([5.5, 5.25, 5.5, 5.25, 25.0], published),
            ([-22.0, -21.0, 22.0, 21.0, 100.0], 1.0 - published),
        ] {
            let found = found.soft_label(&Row6("pick-score", scores), true).unwrap();
            assert!((found - first).abs() < 1e-12, "{scores:?}: {found}");
        }
        // 1 / (1 + exp(-1)): of two scorers the difference counts, be the numbers what they may.
        let of_two = Row6("pick-score + aesthetic", [22.0, 21.0, 22.0, 21.0, 100.0]);
        assert!((found.soft_label(&of_two, true).unwrap() - 0.731_058_578_630_004_9).abs() < 1e-12);
    }

    #[test]
    fn rewards_count_by_their_difference() {
        let scores = Scores::Rewards(both());
        // 1 / (1 + exp(-2))
        assert_near(&scores, [5.0, 3.0], true, 0.880_797_077_977_882_3);
        assert_near(&scores, [5.0, 3.0], false, 0.119_202_922_022_117_55);
        assert_near(&scores, [1e6, -1e6], false, 0.0);
    }

    #[test]
    fn probabilities_are_taken_as_they_are() {
        for (scores, first_wins, wanted) in [
            (Scores::OfWinner("a".into()), true, 0.8),
            (Scores::OfWinner("a".into()), false, 0.8),
            (Scores::OfFirst("a".into()), true, 0.8),
            (Scores::OfFirst("a".into()), false, 0.2),
        ] {
            assert_near(&scores, [0.8, 0.0], first_wins, wanted);
        }
    }

    #[test]
    fn scores_that_cannot_be_give_no_soft_label() {
        for (scores, values) in [
            (Scores::Cosines(both()), [21.3, 20.1]),
            (Scores::OfWinner("a".into()), [37.0, 0.0]),
            (Scores::OfFirst("a".into()), [-0.1, 0.0]),
            (Scores::Rewards(["a".into(), "c".into()]), [1.0, 2.0]),
            (Scores::Rewards(both()), [f64::NAN, 2.0]),
        ] {
            assert_eq!(scores.soft_label(&Pair(values), true), None, "{scores:?}");
        }
    }
}
