//! A ranking of several images, as pairs.

use super::Cell;

/// Images of one ranking: their pairs grow with the square.
const MAX_IMAGES: usize = 64;

/// The names of a ranking's images, and what orders them.
///
/// # Errors
/// What was found, for a row that is skipped.
pub fn read<'a>(images: &'a Cell<'a>, ranks: &Cell<'_>) -> Result<(Vec<&'a str>, Vec<f64>), String> {
    let (Cell::List(images), Cell::List(ranks)) = (images, ranks) else {
        return Err(format!("{} of images and {} of ranks; wanted two lists", images.kind(), ranks.kind()));
    };
    if images.len() != ranks.len() || images.len() < 2 || images.len() > MAX_IMAGES {
        let (images, ranks) = (images.len(), ranks.len());
        return Err(format!("{images} images with {ranks} ranks; wanted as many, 2 to {MAX_IMAGES}"));
    }
    let names = images.iter().map(|image| match image {
        Cell::Text(name) => Ok(name.as_ref()),
        other => Err(format!("{} as image; wanted a path", other.kind())),
    });
    Ok((names.collect::<Result<_, _>>()?, ranks.iter().map(Cell::label).collect::<Result<_, _>>()?))
}

/// Every two of `n`, the first with all others first.
pub fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}
