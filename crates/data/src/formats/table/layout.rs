//! Which columns of a table mean what.

use std::path::Path;

use tastemaker_math::nearest::{did_you_mean, nearest};

use super::conventions::{HAS_LABEL, IMAGE_CAPTIONS, IMAGES, ORIGINAL_PROMPTS};
use super::{CONVENTIONS, Scores, Shape};
use crate::DataError;
use crate::formats::{Columns, OpenSettings};

/// Which columns are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// What a row says.
    pub shape: Shape,
    /// The column that holds the caption; without one, images may have their prompt.
    pub caption: Option<String>,
    /// Whether there is [`HAS_LABEL`], which says whether anybody judged the row.
    pub has_label: bool,
    /// Whether there are [`ORIGINAL_PROMPTS`], the prompts of both images as they were typed.
    pub has_originals: bool,
    /// Columns that say how sure the label is.
    pub scores: Option<Scores>,
}

impl Layout {
    /// The layout of a table: its convention, with what `typed` names laid over it. `path` is the table's, for errors.
    ///
    /// # Errors
    /// [`DataError::Columns`] for a column that is not there, or a table that follows no convention.
    pub fn of(columns: &[String], settings: &OpenSettings, path: &Path) -> Result<Self, DataError> {
        let typed = &settings.columns;
        let has = |name: &str| columns.iter().any(|column| column == name);
        let fail =
            |problem: String| DataError::Columns { path: path.into(), found: in_words(columns), problem };
        for (key, name) in typed.named() {
            if !has(name) {
                let meant = did_you_mean(nearest(name, columns.iter().map(String::as_str)));
                return Err(fail(format!("no column {name:?} for {key}{meant}")));
            }
        }
        let detected = CONVENTIONS.iter().find(|known| known.columns.columns().into_iter().all(has));
        let shape = match shape(detected.map(|known| known.columns.owned()), typed) {
            Ok(shape) => shape,
            Err(problem) => match liked(typed, has) {
                Some(image) if settings.unpaired || settings.liked => Shape::Liked { image },
                Some(_) => return Err(DataError::SingleImages { path: path.into() }),
                None => return Err(fail(problem)),
            },
        };
        let captions = detected.map_or(CONVENTIONS[0].captions, |known| known.captions);
        let found = captions.iter().find(|name| has(name)).map(|name| (*name).to_owned());
        let has_label = has(HAS_LABEL) && matches!(shape, Shape::Labeled { .. });
        let has_originals = Self::detects_originals(&shape, has);
        let scores = match Scores::typed(typed).map_err(fail)? {
            Some(_)
                if matches!(shape, Shape::Single { .. } | Shape::Liked { .. } | Shape::Ranking { .. }) =>
            {
                return Err(fail("scores are of rows that are pairs".into()));
            }
            Some(scores) => Some(scores),
            None => Scores::detected(&shape, has),
        };
        Ok(Self { shape, scores, caption: typed.caption.clone().or(found), has_label, has_originals })
    }

    /// Whether a table of this shape has [`ORIGINAL_PROMPTS`].
    pub fn detects_originals(shape: &Shape, has: impl Fn(&str) -> bool) -> bool {
        matches!(shape, Shape::Labeled { .. }) && ORIGINAL_PROMPTS.into_iter().all(has)
    }

    /// The columns that may hold something of use; one that holds something else is as if it were not there.
    pub fn extras(&self) -> Vec<&str> {
        let originals = ORIGINAL_PROMPTS.into_iter().filter(|_| self.has_originals);
        self.scores.iter().flat_map(Scores::columns).chain(originals).collect()
    }

    /// The other columns that hold no images.
    pub fn others(&self) -> Vec<&str> {
        let labels = self.shape.labels();
        labels.into_iter().chain(self.caption.as_deref()).chain(self.has_label.then_some(HAS_LABEL)).collect()
    }
}

/// The column of images in a table that has captions beside them and says nothing else; `None` where columns of images are typed.
fn liked(typed: &Columns, has: impl Fn(&str) -> bool) -> Option<String> {
    let captions = typed.caption.as_deref().into_iter().chain(IMAGE_CAPTIONS.iter().copied());
    let is_other = typed.named().any(|(key, _)| key != "caption");
    let image = IMAGES.into_iter().find(|name| has(name)).filter(|_| !is_other)?;
    captions.into_iter().any(&has).then(|| image.to_owned())
}

/// The shape that was typed, completed by the one detected.
fn shape(detected: Option<Shape>, typed: &Columns) -> Result<Shape, String> {
    let [image_0, image_1] = [&typed.image_0, &typed.image_1].map(Option::as_ref);
    let [label_0, label_1] = [&typed.label_0, &typed.label_1].map(Option::as_ref);
    let labels_images = [image_0, image_1, label_0, label_1].iter().any(Option::is_some);
    let ranks_images = typed.winner.is_some() || typed.loser.is_some();
    if labels_images && ranks_images {
        return Err("name winner and loser, or images and labels, not both".into());
    }
    if ranks_images {
        let (winner, loser) = match detected {
            Some(Shape::Ranked { winner, loser }) => (Some(winner), Some(loser)),
            _ => (None, None),
        };
        return match (typed.winner.clone().or(winner), typed.loser.clone().or(loser)) {
            (Some(winner), Some(loser)) => Ok(Shape::Ranked { winner, loser }),
            _ => Err("name both winner and loser".into()),
        };
    }
    if labels_images {
        let (images, labels) = match detected {
            Some(Shape::Labeled { images: [a, b], labels: [c, d] }) => {
                ([Some(a), Some(b)], [Some(c), Some(d)])
            }
            Some(Shape::Single { image, label }) => ([Some(image), None], [Some(label), None]),
            _ => ([None, None], [None, None]),
        };
        // One image and one label by name say that there is no second.
        let alone = image_0.is_some() && label_0.is_some() && image_1.is_none() && label_1.is_none();
        let [a, b] = images;
        let [c, d] = labels;
        let (b, d) = if alone { (None, None) } else { (b, d) };
        let images = [image_0.cloned().or(a), image_1.cloned().or(b)];
        let labels = [label_0.cloned().or(c), label_1.cloned().or(d)];
        return match (images, labels) {
            ([Some(a), Some(b)], [Some(c), Some(d)]) => Ok(Shape::Labeled { images: [a, b], labels: [c, d] }),
            ([Some(image), None], [Some(label), None]) => Ok(Shape::Single { image, label }),
            _ => {
                Err("name image_0, image_1, label_0 and label_1, or image_0 and label_0 for single images"
                    .into())
            }
        };
    }
    detected.ok_or_else(|| {
        let mut known: Vec<String> =
            CONVENTIONS.iter().map(|known| known.columns.columns().join(", ")).collect();
        known.dedup();
        format!("no convention we know ({}); say with columns what is what", known.join("; "))
    })
}

/// Columns for people, the first of them.
fn in_words(columns: &[String]) -> String {
    const SHOWN: usize = 40;
    let more = if columns.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", columns.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(columns: &[&str], typed: Columns) -> Result<Layout, String> {
        let columns: Vec<String> = columns.iter().map(|&name| name.to_owned()).collect();
        let settings = OpenSettings { columns: typed, ..OpenSettings::default() };
        Layout::of(&columns, &settings, Path::new("table")).map_err(|error| error.to_string())
    }

    #[test]
    fn every_convention_is_detected_from_its_own_columns_whatever_else_is_there() {
        for known in CONVENTIONS {
            let columns = [known.columns.columns(), vec!["user_id", known.captions[0]]].concat();
            let layout = of(&columns, Columns::default()).unwrap();
            assert_eq!(layout.shape, known.columns.owned(), "{}", known.name);
            assert_eq!(layout.caption.as_deref(), Some(known.captions[0]), "{}", known.name);
        }
    }

    #[test]
    fn what_is_typed_overrides_what_is_detected() {
        let columns = ["jpg_0", "jpg_1", "label_0", "label_1", "caption", "better", "worse", "words"];
        let typed = Columns { caption: Some("words".into()), ..Columns::default() };
        assert_eq!(of(&columns, typed).unwrap().caption.as_deref(), Some("words"));
        let typed =
            Columns { winner: Some("better".into()), loser: Some("worse".into()), ..Columns::default() };
        let ranked = Shape::Ranked { winner: "better".into(), loser: "worse".into() };
        assert_eq!(of(&columns, typed).unwrap().shape, ranked);
        let typed =
            Columns { image_0: Some("better".into()), label_0: Some("words".into()), ..Columns::default() };
        let single = Shape::Single { image: "better".into(), label: "words".into() };
        assert_eq!(of(&columns, typed).unwrap().shape, single);
    }

    #[test]
    fn a_column_that_is_not_there_names_the_nearest_and_all() {
        let typed = Columns { caption: Some("promt".into()), ..Columns::default() };
        assert_eq!(
            of(&["chosen", "rejected", "prompt"], typed).unwrap_err(),
            "table has the columns chosen, rejected, prompt: no column \"promt\" for caption, did you mean \"prompt\"?"
        );
    }

    #[test]
    fn half_a_mapping_says_what_is_missing() {
        let typed = Columns { winner: Some("a".into()), ..Columns::default() };
        assert!(of(&["a", "b"], typed).unwrap_err().ends_with("name both winner and loser"));
        let none = of(&["a", "b"], Columns::default()).unwrap_err();
        assert!(none.contains("jpg_0, jpg_1, label_0, label_1"), "{none}");
    }
}
