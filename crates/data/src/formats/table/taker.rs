//! What becomes of a row.

use std::cmp::Ordering;
use std::path::Path;

use tastemaker_store::tree::Location;

use super::unpaired::Unpaired;
use super::{Cell, Images, Layout, Row, Shape, ranking};
use crate::formats::OpenSettings;
use crate::set::{Builder, Container, Names, PairSet, Spot};
use crate::{DataError, Label, PairId, Reason};

/// Takes up the rows of tables, in their order.
///
/// The set's first container holds files that tables name; images inside tables are in the second, which
/// [`finish`](Self::finish) is given.
#[derive(Debug)]
pub struct Taker {
    builder: Builder,
    images: Images,
    /// `None` where single images stay what they are.
    unpaired: Option<Unpaired>,
    /// Whether ties are kept.
    ties: bool,
    next: u64,
    tables: Vec<(String, u64)>,
    rankings: Vec<u64>,
}

/// A row that is skipped: why, and what was found.
type Refused = (Reason, String);

/// Number of the container of images that are inside tables.
pub const INSIDE: u32 = 1;

impl Taker {
    /// For tables of a location; `path` is what users call the set.
    pub fn new(location: &Location, path: &Path, settings: &OpenSettings) -> Self {
        Self {
            builder: Builder::new(path),
            images: Images::new(location.tree().clone()),
            unpaired: (!settings.unpaired).then(Unpaired::default),
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

    /// Takes a row up, or leaves it out by name.
    ///
    /// # Errors
    /// [`DataError`] if it cannot be known whether its images are there.
    pub fn take(&mut self, layout: &Layout, row: &dyn Row) -> Result<(), DataError> {
        if let Shape::Ranking { images, ranks, lowest_wins } = &layout.shape {
            let (images, ranks) = (row.cell(images), row.cell(ranks));
            return self.take_ranking(&images, &ranks, *lowest_wins, layout, row);
        }
        let id = self.id();
        if let Err((reason, detail)) = self.take_row(id, layout, row)? {
            self.builder.skip(id, reason, &detail);
        }
        Ok(())
    }

    /// Names a row that cannot be read.
    pub fn skip(&mut self, reason: Reason, detail: &str) {
        let id = self.id();
        self.builder.skip(id, reason, detail);
    }

    /// The set; `inside` holds the images that are inside tables.
    ///
    /// # Errors
    /// [`DataError::Empty`] if no row is left.
    pub fn finish(mut self, inside: Option<Box<dyn Container>>) -> Result<PairSet, DataError> {
        if let Some(unpaired) = self.unpaired.take() {
            unpaired.finish(&mut self.builder);
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

    fn take_row(
        &mut self,
        id: PairId,
        layout: &Layout,
        row: &dyn Row,
    ) -> Result<Result<(), Refused>, DataError> {
        let unjudged = layout.has_label.as_ref().is_some_and(|column| row.cell(column) == Cell::Bool(false));
        if unjudged && !self.ties {
            return Ok(Err((Reason::Tie, "nobody judged it: has_label is false".into())));
        }
        let caption = row_caption(layout, row);
        let caption = match &caption {
            Ok(caption) => caption.as_deref(),
            Err(refused) => return Ok(Err(refused.clone())),
        };
        let (winner, loser, first_wins) = match &layout.shape {
            Shape::Ranked { winner, loser } => (winner, loser, true),
            Shape::Labeled { images: [image_0, image_1], labels } => {
                let [label_0, label_1] = labels.each_ref().map(|column| row.cell(column).label());
                let order = if unjudged { Ok(Ordering::Equal) } else { compare(label_0, label_1) };
                let first_wins = match order {
                    Ok(Ordering::Greater) => true,
                    Ok(Ordering::Less) => false,
                    Ok(Ordering::Equal) if self.ties => {
                        self.builder.tie();
                        true
                    }
                    Ok(Ordering::Equal) => return Ok(Err((Reason::Tie, String::new()))),
                    Err(problem) => return Ok(Err((Reason::BadRow, problem))),
                };
                self.builder.listed_first(first_wins);
                let (winner, loser) = if first_wins { (image_0, image_1) } else { (image_1, image_0) };
                (winner, loser, first_wins)
            }
            Shape::Single { image, label } => {
                let liked = match row.cell(label).label() {
                    Ok(1.0) => true,
                    Ok(0.0 | -1.0) => false,
                    Ok(other) => {
                        return Ok(Err((Reason::BadRow, format!("the label {other}; wanted 1 or 0"))));
                    }
                    Err(problem) => return Ok(Err((Reason::BadRow, problem))),
                };
                if caption.is_none() && self.unpaired.is_some() {
                    let detail = "single images need captions to find their counterparts";
                    return Ok(Err((Reason::NoCaption, detail.into())));
                }
                let image = match self.image(&row.cell(image))? {
                    Ok(image) => image,
                    Err(refused) => return Ok(Err(refused)),
                };
                if let (Some(unpaired), Some(caption)) = (&mut self.unpaired, caption) {
                    unpaired.take(id, image, liked, caption, &mut self.builder);
                } else {
                    self.builder.label(if liked { Label::Liked } else { Label::Disliked });
                    self.keep(id, image, image, caption);
                }
                return Ok(Ok(()));
            }
            Shape::Ranking { .. } => return Ok(Ok(())),
        };
        let (winner, loser) = match (self.image(&row.cell(winner))?, self.image(&row.cell(loser))?) {
            (Ok(winner), Ok(loser)) => (winner, loser),
            (Err(refused), _) | (_, Err(refused)) => return Ok(Err(refused)),
        };
        let soft_label = layout.scores.as_ref().and_then(|scores| scores.soft_label(row, first_wins));
        if let Some(soft_label) = soft_label {
            self.builder.soft_label(soft_label);
        }
        self.keep(id, winner, loser, caption);
        Ok(Ok(()))
    }

    /// Every two images of a ranking make a pair, ties too, so that ids do not depend on the ranks.
    fn take_ranking(
        &mut self,
        images: &Cell<'_>,
        ranks: &Cell<'_>,
        lowest_wins: bool,
        layout: &Layout,
        row: &dyn Row,
    ) -> Result<(), DataError> {
        self.rankings.push(self.next);
        let (names, ranks) = match ranking::read(images, ranks) {
            Ok(read) => read,
            Err(problem) => {
                self.skip(Reason::BadRow, &problem);
                return Ok(());
            }
        };
        let caption = row_caption(layout, row);
        let found: Vec<Result<Spot, Refused>> =
            names.iter().map(|name| self.image(&Cell::Text((*name).into()))).collect::<Result<_, _>>()?;
        for (i, j) in ranking::pairs(names.len()) {
            let id = self.id();
            let better = ranks[i].partial_cmp(&ranks[j]).unwrap_or(Ordering::Equal);
            let (winner, loser) = match if lowest_wins { better.reverse() } else { better } {
                Ordering::Greater => (i, j),
                Ordering::Less => (j, i),
                Ordering::Equal if self.ties => {
                    self.builder.tie();
                    (i, j)
                }
                Ordering::Equal => {
                    self.builder.skip(id, Reason::Tie, "");
                    continue;
                }
            };
            match (&caption, &found[winner], &found[loser]) {
                (Ok(caption), Ok(of_winner), Ok(of_loser)) => {
                    self.builder.listed_first(winner < loser);
                    self.keep(id, *of_winner, *of_loser, caption.as_deref());
                }
                (Err((reason, detail)), ..) | (_, Err((reason, detail)), _) | (.., Err((reason, detail))) => {
                    self.builder.skip(id, *reason, detail);
                }
            }
        }
        Ok(())
    }

    fn keep(&mut self, id: PairId, winner: Spot, loser: Spot, caption: Option<&str>) {
        match caption {
            Some(caption) => self.builder.keep(id, winner, loser, caption),
            None => self.builder.keep_without_caption(id, winner, loser),
        }
    }

    fn image(&mut self, cell: &Cell<'_>) -> Result<Result<Spot, Refused>, DataError> {
        Ok(match cell {
            Cell::Image(spot) => Ok(*spot),
            Cell::Text(name) => self.images.find(name)?.map_err(|place| (Reason::MissingImage, place)),
            Cell::Null => Err((Reason::MissingImage, "no image".into())),
            other => Err((Reason::BadRow, format!("{} as image; wanted a path or an image", other.kind()))),
        })
    }
}

/// The caption of a row; `None` if it says none.
fn row_caption(layout: &Layout, row: &dyn Row) -> Result<Option<String>, Refused> {
    match layout.caption.as_deref().map(|column| row.cell(column)) {
        None | Some(Cell::Null) => Ok(None),
        Some(Cell::Text(text)) => Ok(Some(text.into_owned())),
        Some(other) => Err((Reason::BadRow, format!("{} as caption; wanted text", other.kind()))),
    }
}

fn compare(label_0: Result<f64, String>, label_1: Result<f64, String>) -> Result<Ordering, String> {
    let (label_0, label_1) = (label_0?, label_1?);
    // Labels are finite, and -0 is 0.
    Ok(label_0.partial_cmp(&label_1).unwrap_or(Ordering::Equal))
}
