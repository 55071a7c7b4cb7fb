//! Several scorers as one.

use serde::Serialize;
use tastemaker_math::intervals::mean;
use tastemaker_math::nearest::{did_you_mean, nearest};

use crate::EvalError;

/// A scorer of a mix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standard {
    /// Its name.
    pub name: String,
    /// Its weight as it was given.
    pub weight: f64,
    /// Mean of its scores over the set, in its unit.
    pub mean: f64,
    /// Their standard deviation over the set (divided by the number of images), in its unit.
    pub std: f64,
}

/// The weighted sum of scorers.
#[derive(Debug, Clone, PartialEq)]
pub struct Mixed {
    /// One score per image; higher is better.
    pub scores: Vec<f64>,
    /// The scorers, in order.
    pub standards: Vec<Standard>,
}

/// The weights of scorers, 1 for each that none is given for.
///
/// # Errors
/// [`EvalError::Weight`] for a name that is none of them, a name that comes twice, and a weight that is 0 or no number.
pub fn weights(names: &[String], typed: &[(String, f64)]) -> Result<Vec<f64>, EvalError> {
    let wrong = |what: String| EvalError::Weight { what };
    if let Some((_, twice)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        return Err(wrong(format!("the scorer `{twice}` is named twice; name it once, with a weight")));
    }
    for (i, (name, weight)) in typed.iter().enumerate() {
        if !names.contains(name) {
            let meant = did_you_mean(nearest(name, names.iter().map(String::as_str)));
            let known = names.join(", ");
            return Err(wrong(format!(
                "a weight for `{name}`{meant}, which is no scorer here; there are {known}"
            )));
        }
        if !weight.is_finite() || *weight == 0.0 {
            return Err(wrong(format!("the weight of `{name}` is {weight}; wanted a number that is not 0")));
        }
        if typed[..i].iter().any(|(other, _)| other == name) {
            return Err(wrong(format!("`{name}` has two weights; give one")));
        }
    }
    let of = |name: &String| typed.iter().find(|(typed, _)| typed == name).map_or(1.0, |(_, weight)| *weight);
    Ok(names.iter().map(of).collect())
}

/// One score per image from those of several scorers.
///
/// A scorer alone counts in its own unit, times its weight. Of several each is standardized over all images of the set,
/// `z = (score - mean) / std`, and the mix is `sum(w z) / sum(|w|)`: its unit is a standard deviation. A
/// scorer that says the same about every image adds nothing.
///
/// # Shapes
/// `scores` is `[scorers][images]`, with one name and one weight per scorer.
///
/// # Errors
/// [`EvalError::Scorer`] for a score that is not finite.
pub fn mix(names: &[String], weights: &[f64], scores: &[Vec<f64>]) -> Result<Mixed, EvalError> {
    let mut standards = Vec::with_capacity(names.len());
    for ((name, &weight), scores) in names.iter().zip(weights).zip(scores) {
        if let Some((image, score)) = scores.iter().enumerate().find(|(_, score)| !score.is_finite()) {
            let what = format!("its score of image {image} is {score}");
            return Err(EvalError::Scorer { scorer: name.clone(), what });
        }
        let center = mean(scores).unwrap_or_default();
        let squares: Vec<f64> = scores.iter().map(|score| (score - center).powi(2)).collect();
        let std = mean(&squares).unwrap_or_default().sqrt();
        standards.push(Standard { name: name.clone(), weight, mean: center, std });
    }
    let whole: f64 = weights.iter().map(|weight| weight.abs()).sum();
    let of = |image: usize| match standards.as_slice() {
        [only] => only.weight * scores[0][image],
        several => {
            let part = |(standard, scores): (&Standard, &Vec<f64>)| match standard.std > 0.0 {
                true => standard.weight * (scores[image] - standard.mean) / standard.std,
                false => 0.0,
            };
            several.iter().zip(scores).map(part).sum::<f64>() / whole
        }
    };
    let n = scores.first().map_or(0, Vec::len);
    Ok(Mixed { scores: (0..n).map(of).collect(), standards })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_scorer_alone_keeps_its_unit() {
        let mixed = mix(&names(&["a"]), &[-2.0], &[vec![20.0, 21.5]]).unwrap();
        assert_eq!(mixed.scores, [-40.0, -43.0]);
    }

    #[test]
    fn scorers_of_other_units_count_by_their_weights() {
        // z of 0, 2 is -1, 1; of 300, 100 it is 1, -1
        let scores = [vec![0.0, 2.0], vec![300.0, 100.0]];
        let mixed = |weights: &[f64]| mix(&names(&["a", "b"]), weights, &scores).unwrap();
        assert_eq!(mixed(&[1.0, 1.0]).scores, [0.0, 0.0]);
        assert_eq!(mixed(&[3.0, 1.0]).scores, [-0.5, 0.5]);
        assert_eq!(mixed(&[1.0, -1.0]).scores, [-1.0, 1.0]);
        assert_eq!(
            (mixed(&[3.0, 1.0]).standards[1].mean, mixed(&[3.0, 1.0]).standards[1].std),
            (200.0, 100.0)
        );
    }

    #[test]
    fn a_mix_does_not_depend_on_units() {
        let scores = [vec![0.1, 0.4, 0.2, 0.9], vec![3.0, -1.0, 2.0, 2.5]];
        let other = [scores[0].iter().map(|s| 100.0 * s + 7.0).collect(), scores[1].clone()];
        let mixed = |scores: &[Vec<f64>]| mix(&names(&["a", "b"]), &[0.7, 0.3], scores).unwrap().scores;
        for (one, other) in mixed(&scores).iter().zip(mixed(&other)) {
            assert!((one - other).abs() < 1e-12, "{one} {other}");
        }
    }

    #[test]
    fn a_scorer_without_an_opinion_adds_nothing() {
        let mixed = mix(&names(&["a", "b"]), &[1.0, 1.0], &[vec![0.0, 2.0], vec![5.0, 5.0]]).unwrap();
        assert_eq!(mixed.scores, [-0.5, 0.5]);
    }

    #[test]
    fn a_score_that_is_no_number_is_refused_by_name() {
        let error = mix(&names(&["a"]), &[1.0], &[vec![0.0, f64::NAN]]).unwrap_err().to_string();
        assert_eq!(error, "scorer `a` cannot judge: its score of image 1 is NaN");
    }

    #[test]
    fn weights_are_for_scorers_that_are_there() {
        let known = names(&["clip", "nearest-art:style"]);
        let typed = |name: &str, weight: f64| weights(&known, &[(name.to_owned(), weight)]);
        assert_eq!(typed("nearest-art:style", 0.5).unwrap(), [1.0, 0.5]);
        assert_eq!(
            typed("clop", 1.0).unwrap_err().to_string(),
            "a weight for `clop`, did you mean \"clip\"?, which is no scorer here; there are clip, nearest-art:style"
        );
        assert!(typed("clip", 0.0).is_err() && weights(&names(&["a", "a"]), &[]).is_err());
    }
}
