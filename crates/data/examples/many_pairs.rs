//! Makes a large set of pairs in seconds, to measure `tastemaker data check` on: `many_pairs FOLDER [PAIRS]`.
//!
//! Every image is a file of its own, 512 pixels square, some 50 kB of JPEG. A few hundred different ones are encoded; the
//! others repeat their bytes with another comment. No two pairs are of the same two images.

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use tastemaker_math::{Keyed, Stream};

const SIDE: u32 = 512;
const N_IMAGES: usize = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().ok_or("wanted a folder")?);
    let n_pairs: usize = args.next().map_or(Ok(20_000), |n| n.parse())?;
    let most = N_IMAGES * (N_IMAGES - 1) / 2;
    if n_pairs > most {
        return Err(format!("{n_pairs} pairs; wanted at most {most}").into());
    }
    fs::create_dir_all(&folder)?;
    let images = (0..N_IMAGES as u64).map(encoded).collect::<Result<Vec<_>, _>>()?;
    let mut list = BufWriter::new(File::create(folder.join("metadata.jsonl"))?);
    let both = (1..N_IMAGES).flat_map(|distance| (0..N_IMAGES - distance).map(move |a| (a, a + distance)));
    for (i, (a, b)) in both.take(n_pairs).enumerate() {
        for (name, image) in [("a", a), ("b", b)] {
            fs::write(folder.join(format!("{i}{name}.jpg")), commented(&images[image], i))?;
        }
        let row = serde_json::json!({
            "image_0": format!("{i}a.jpg"), "image_1": format!("{i}b.jpg"), "prompt": format!("caption {}", i / 3),
            "prefer_0": i % 2 == 0, "prefer_1": i % 2 == 1,
        });
        writeln!(list, "{row}")?;
    }
    Ok(list.flush()?)
}

/// Waves of color under grain, as long when encoded as a photograph.
fn encoded(number: u64) -> Result<Vec<u8>, image::ImageError> {
    let mut random = Keyed::new(0, Stream::Data, number, 0);
    let waves: Vec<[f64; 5]> = (0..9).map(|_| [0; 5].map(|_| random.uniform())).collect();
    let image = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (x, y) = (f64::from(x) / f64::from(SIDE), f64::from(y) / f64::from(SIDE));
        let grain = 24.0 * (random.uniform() - 0.5);
        Rgb([0, 1, 2].map(|channel| {
            let wave = |[a, b, shift, height, _]: &[f64; 5]| {
                50.0 * height * (40.0 * (a - 0.5) * x + 40.0 * (b - 0.5) * y + 6.3 * shift).sin()
            };
            let light: f64 = waves.iter().skip(channel).step_by(3).map(wave).sum();
            (128.0 + light + grain).clamp(0.0, 255.0) as u8
        }))
    });
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 80).encode_image(&image)?;
    Ok(bytes)
}

/// The same image in other bytes.
fn commented(jpeg: &[u8], number: usize) -> Vec<u8> {
    let comment = number.to_string();
    let length = (comment.len() + 2) as u16;
    [&jpeg[..2], &[0xff, 0xfe], &length.to_be_bytes(), comment.as_bytes(), &jpeg[2..]].concat()
}
