//! What becomes of the rows of a table.

use std::cmp::Ordering;
use std::path::Path;

use tastemaker_store::tree::Location;

use super::conventions::{HAS_LABEL, ORIGINAL_PROMPTS};
use super::unpaired::Unpaired;
use super::{Cell, Images, Layout, Row, Shape, ranking};
use crate::formats::OpenSettings;
use crate::formats::refusal::{Refusal, Skip};
use crate::set::{Builder, Container, ImageRef, Labels, Names, PairSet, Verdict};
use crate::{DataError, Label, PairId, Reason};

/// Makes a set from the rows of tables, in their order.
///
/// The set's first container holds files that tables name; images inside tables are in the second, which
/// [`finish`](Self::finish) is given.
#[derive(Debug)]
pub struct TableReader {
    builder: Builder,
    images: Images,
    /// `None` where single images stay what they are.
    unpaired: Option<Unpaired>,
    /// Whether images that people like may stand alone.
    liked: bool,
    /// Whether ties are kept.
    ties: bool,
    next: u64,
    tables: Vec<(String, u64)>,
    rankings: Vec<u64>,
}

/// Number of the container of images that are inside tables.
pub const INSIDE: u8 = 1;

impl TableReader {
    /// For tables of a location; `path` is what users call the set.
    pub fn new(location: &Location, path: &Path, settings: &OpenSettings) -> Self {
        Self {
            builder: Builder::new(path),
            images: Images::new(location.tree().clone()),
            unpaired: (!settings.unpaired).then(Unpaired::default),
            liked: settings.liked,
            ties: settings.ties,
            next: 0,
            tables: Vec::new(),
            rankings: Vec::new(),
        }
    }

    /// Rows from now on are those of the table at `path`.
    pub fn table(&mut self, path: &str) {
        self.images.of_list(path);
        self.tables.push((path.to_owned(), self.next));
    }

    /// Rows from now on are those of the archive at `path`, which name no files outside of it.
    pub fn archive(&mut self, path: &str) {
        self.images.of_no_list();
        self.tables.push((path.to_owned(), self.next));
    }

    /// Adds a row, or skips it by name.
    ///
    /// # Errors
    /// [`DataError`] if it cannot be known whether its images are there.
    pub fn row(&mut self, layout: &Layout, row: &dyn Row) -> Result<(), DataError> {
        if let Shape::Ranking { images, ranks, lowest_wins } = &layout.shape {
            let (images, ranks) = (row.cell(images), row.cell(ranks));
            return self.ranking(&images, &ranks, *lowest_wins, row_caption(layout, row));
        }
        let id = self.id();
        if let Err(refusal) = self.pair(id, layout, row) {
            let (reason, detail) = refusal.skip()?;
            self.builder.skip(id, reason, &detail);
        }
        Ok(())
    }

    /// Skips a row that cannot be read.
    ///
    /// # Errors
    /// [`DataError`] if the set cannot be read.
    pub fn refuse(&mut self, refusal: Refusal) -> Result<(), DataError> {
        let (reason, detail) = refusal.skip()?;
        let id = self.id();
        self.builder.skip(id, reason, &detail);
        Ok(())
    }

    /// The set; `inside` holds the images that are inside tables.
    ///
    /// # Errors
    /// [`DataError::Empty`] if no row is left.
    pub fn finish(mut self, inside: Option<Box<dyn Container>>) -> Result<PairSet, DataError> {
        if let Some(unpaired) = self.unpaired.take() {
            unpaired.finish(&mut self.builder, self.liked);
        }
        self.builder.container(Box::new(self.images.into_files()));
        if let Some(inside) = inside {
            self.builder.container(inside);
        }
        self.builder.finish(match self.tables.len() {
            _ if !self.rankings.is_empty() => Names::PairsOfRows(self.rankings),
            0 | 1 => Names::Rows,
            _ => Names::RowsOf(self.tables),
        })
    }

    fn id(&mut self) -> PairId {
        self.next += 1;
        PairId(self.next - 1)
    }

    fn pair(&mut self, id: PairId, layout: &Layout, row: &dyn Row) -> Result<(), Refusal> {
        let unjudged = layout.has_label && is_unjudged(&row.cell(HAS_LABEL))?;
        if unjudged && !self.ties {
            return Err(Refusal::Row((Reason::Tie, "nobody judged it: has_label is false".into())));
        }
        let caption = row_caption(layout, row).map_err(Refusal::Row)?;
        let mut labels = Labels::default();
        let [winner, loser] = match &layout.shape {
            Shape::Ranked { winner, loser } => [winner, loser],
            Shape::Labeled { images: [first, second], labels: columns } => {
                let order = if unjudged { Ordering::Equal } else { compare(row, columns)? };
                if order == Ordering::Equal {
                    if !self.ties {
                        return Err(Refusal::Row((Reason::Tie, String::new())));
                    }
                    labels.verdict = Verdict::Tie;
                }
                let first_wins = order != Ordering::Less;
                labels.winner_first = Some(first_wins);
                if first_wins { [first, second] } else { [second, first] }
            }
            Shape::Single { image, label } => {
                return self.single(id, &row.cell(image), &row.cell(label), caption.as_deref());
            }
            Shape::Liked { image } => {
                let image = self.image(&row.cell(image))?;
                self.builder.keep(id, [image, image], caption.as_deref(), liked(self.unpaired.is_none()));
                return Ok(());
            }
            Shape::Ranking { .. } => return Ok(()),
        };
        let images = [self.image(&row.cell(winner))?, self.image(&row.cell(loser))?];
        let first_wins = labels.winner_first != Some(false);
        labels.soft_label = layout.scores.as_ref().and_then(|scores| scores.soft_label(row, first_wins));
        self.builder.keep(id, images, caption.as_deref(), labels);
        if layout.has_originals
            && let [Cell::Text(first), Cell::Text(second)] = ORIGINAL_PROMPTS.map(|column| row.cell(column))
        {
            let prompts = if first_wins { [&*first, &*second] } else { [&*second, &*first] };
            self.builder.original(id, prompts.map(Into::into));
        }
        Ok(())
    }

    fn single(
        &mut self,
        id: PairId,
        image: &Cell<'_>,
        label: &Cell<'_>,
        caption: Option<&str>,
    ) -> Result<(), Refusal> {
        let label = match label.label().map_err(Refusal::bad_row)? {
            1.0 => Label::Liked,
            0.0 | -1.0 => Label::Disliked,
            other => return Err(Refusal::bad_row(format!("the label {other}; wanted 1 or 0"))),
        };
        if caption.is_none() && self.unpaired.is_some() {
            let detail = "single images need captions to find their counterparts";
            return Err(Refusal::Row((Reason::NoCaption, detail.into())));
        }
        let image = self.image(image)?;
        if let (Some(unpaired), Some(caption)) = (&mut self.unpaired, caption) {
            unpaired.add(id, image, label, caption, &mut self.builder);
        } else {
            let labels = Labels { verdict: Verdict::Single(label), ..Labels::default() };
            self.builder.keep(id, [image, image], caption, labels);
        }
        Ok(())
    }

    /// Every two images of a ranking make a pair, ties too, so that ids do not depend on the ranks.
    fn ranking(
        &mut self,
        images: &Cell<'_>,
        ranks: &Cell<'_>,
        lowest_wins: bool,
        caption: Result<Option<String>, Skip>,
    ) -> Result<(), DataError> {
        self.rankings.push(self.next);
        let (names, ranks) = match ranking::read(images, ranks) {
            Ok(read) => read,
            Err(problem) => return self.refuse(Refusal::bad_row(problem)),
        };
        let found = names.iter().map(|name| match self.image(&Cell::Text((*name).into())) {
            Ok(image) => Ok(Ok(image)),
            Err(refusal) => refusal.skip().map(Err),
        });
        let found: Vec<Result<ImageRef, Skip>> = found.collect::<Result<_, DataError>>()?;
        for (i, j) in ranking::pairs(names.len()) {
            let id = self.id();
            let better = ranks[i].partial_cmp(&ranks[j]).unwrap_or(Ordering::Equal);
            let (winner, loser, verdict) = match if lowest_wins { better.reverse() } else { better } {
                Ordering::Greater => (i, j, Verdict::Ranked),
                Ordering::Less => (j, i, Verdict::Ranked),
                Ordering::Equal if self.ties => (i, j, Verdict::Tie),
                Ordering::Equal => {
                    self.builder.skip(id, Reason::Tie, "");
                    continue;
                }
            };
            match (&caption, &found[winner], &found[loser]) {
                (Ok(caption), Ok(image), Ok(other)) => {
                    let labels = Labels { winner_first: Some(winner < loser), verdict, soft_label: None };
                    self.builder.keep(id, [*image, *other], caption.as_deref(), labels);
                }
                (Err((reason, detail)), ..) | (_, Err((reason, detail)), _) | (.., Err((reason, detail))) => {
                    self.builder.skip(id, *reason, detail);
                }
            }
        }
        Ok(())
    }

    fn image(&mut self, cell: &Cell<'_>) -> Result<ImageRef, Refusal> {
        match cell {
            Cell::Image(image) => Ok(*image),
            Cell::Text(name) => {
                self.images.find(name)?.map_err(|place| Refusal::Row((Reason::MissingImage, place)))
            }
            Cell::Null => Err(Refusal::Row((Reason::MissingImage, "no image".into()))),
            other => Err(Refusal::bad_row(format!("{} as image; wanted a path or an image", other.kind()))),
        }
    }
}

/// What is known of an image that people like: that it is single, or that it stands for both sides of its row.
pub fn liked(is_single: bool) -> Labels {
    let verdict = if is_single { Verdict::Single(Label::Liked) } else { Verdict::Ranked };
    Labels { verdict, ..Labels::default() }
}

/// Whether nobody judged a row: false, 0, or text of either. A row that does not say so was judged.
fn is_unjudged(has_label: &Cell<'_>) -> Result<bool, Refusal> {
    if *has_label == Cell::Null || matches!(has_label, Cell::Text(text) if text.trim().is_empty()) {
        return Ok(false);
    }
    let judged = has_label.label().map_err(|problem| Refusal::bad_row(format!("{HAS_LABEL}: {problem}")))?;
    Ok(judged == 0.0)
}

/// The caption of a row; `None` if it says none.
fn row_caption(layout: &Layout, row: &dyn Row) -> Result<Option<String>, Skip> {
    match layout.caption.as_deref().map(|column| row.cell(column)) {
        None | Some(Cell::Null) => Ok(None),
        Some(Cell::Text(text)) => Ok(Some(text.into_owned())),
        Some(other) => Err((Reason::BadRow, format!("{} as caption; wanted text", other.kind()))),
    }
}

/// Which of two images has the larger label.
fn compare(row: &dyn Row, [first, second]: &[String; 2]) -> Result<Ordering, Refusal> {
    let label = |column: &str| row.cell(column).label().map_err(Refusal::bad_row);
    // Labels are finite, and -0 is 0.
    Ok(label(first)?.partial_cmp(&label(second)?).unwrap_or(Ordering::Equal))
}
