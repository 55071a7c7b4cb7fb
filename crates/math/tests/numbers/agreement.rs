//! Agreement against published packages, and what votes decide.

use serde::Deserialize;
use tastemaker_math::agreement::{Decision, Level, Votes, fleiss_kappa, krippendorff_alpha};
use tastemaker_math::intervals::{Z_95, wilson};

const TOLERANCE: f64 = 1e-12;

#[derive(Deserialize)]
struct Table {
    name: String,
    counts: Vec<Vec<u64>>,
    kappa: Option<f64>,
    nominal: f64,
    ordinal: f64,
}

#[derive(Deserialize)]
struct Rate {
    successes: u64,
    n: u64,
    low: f64,
    high: f64,
}

fn tables() -> Vec<Table> {
    serde_json::from_str(include_str!("../../../../golden/agreement/agreement.json")).expect("a golden")
}

#[test]
fn kappa_and_alpha_equal_published_packages() {
    let near = |name: &str, found: Option<f64>, wanted: f64| {
        let found = found.expect(name);
        assert!((found - wanted).abs() < TOLERANCE, "{name}: {found}, wanted {wanted}");
    };
    for Table { name, counts, kappa, nominal, ordinal } in tables() {
        near(&name, krippendorff_alpha(&counts, Level::Nominal), nominal);
        near(&name, krippendorff_alpha(&counts, Level::Ordinal), ordinal);
        match kappa {
            Some(kappa) => near(&name, fleiss_kappa(&counts), kappa),
            None => assert_eq!(fleiss_kappa(&counts), None, "{name}: items have different numbers of votes"),
        }
    }
}

#[test]
fn kappa_and_alpha_equal_the_papers_examples() {
    let of = |name: &str| tables().into_iter().find(|table| table.name == name).expect("an example").counts;
    let rounded = |value: Option<f64>| (value.expect("defined") * 1000.0).round() / 1000.0;
    assert_eq!(rounded(fleiss_kappa(&of("fleiss-1971"))), 0.43);
    let krippendorff = of("krippendorff-2011");
    assert_eq!(
        [Level::Nominal, Level::Ordinal].map(|level| rounded(krippendorff_alpha(&krippendorff, level))),
        [0.743, 0.815]
    );
}

#[test]
fn agreement_about_nothing_is_undefined() {
    for counts in [vec![], vec![vec![1, 0]], vec![vec![0, 0]], vec![vec![5, 0], vec![5, 0]]] {
        assert_eq!(fleiss_kappa(&counts), None, "{counts:?}");
        assert_eq!(krippendorff_alpha(&counts, Level::Ordinal), None, "{counts:?}");
    }
}

#[test]
fn wilson_intervals_equal_statsmodels() {
    let rates: Vec<Rate> =
        serde_json::from_str(include_str!("../../../../golden/agreement/wilson.json")).expect("a golden");
    for Rate { successes, n, low, high } in rates {
        let found = wilson(successes as f64, n, Z_95).expect("n > 0");
        let off = (found.low - low).abs().max((found.high - high).abs());
        assert!(off < TOLERANCE, "{successes} of {n}: {found:?}");
    }
}

#[test]
fn the_answer_of_most_voters_decides() {
    use Decision::{First, Second, Tie};
    for (first, tie, second, wanted) in [
        (3, 0, 2, Some(First)),
        (2, 1, 2, Some(Tie)),
        (2, 3, 0, Some(Tie)),
        (1, 2, 2, Some(Tie)),
        (0, 1, 2, Some(Second)),
        (2, 1, 1, Some(First)),
        (0, 0, 0, None),
    ] {
        assert_eq!(Votes { first, tie, second }.decision(), wanted, "{first} {tie} {second}");
    }
    assert_eq!(Votes { first: 2, tie: 1, second: 2 }.fraction(), Some(0.5));
    assert_eq!(Votes::default().fraction(), None);
}
