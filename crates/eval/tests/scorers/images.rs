//! The fifty images of `golden/scorers/peers.py`, drawn by the same formula.

use image::{Rgb, RgbImage};

/// Width and height of each.
pub const SIZES: [(u32, u32); 50] = [
    (16, 16),
    (224, 224),
    (64, 64),
    (512, 512),
    (1, 1),
    (2, 3),
    (3, 5),
    (7, 4),
    (16, 7),
    (7, 16),
    (19, 16),
    (16, 19),
    (17, 16),
    (18, 16),
    (22, 16),
    (225, 224),
    (227, 224),
    (224, 227),
    (224, 100),
    (100, 224),
    (31, 8),
    (8, 31),
    (40, 10),
    (10, 40),
    (100, 25),
    (25, 100),
    (33, 47),
    (47, 33),
    (96, 64),
    (64, 96),
    (128, 100),
    (100, 128),
    (200, 199),
    (199, 200),
    (300, 75),
    (75, 300),
    (333, 250),
    (250, 333),
    (400, 300),
    (300, 400),
    (640, 360),
    (360, 640),
    (512, 768),
    (768, 512),
    (1024, 256),
    (256, 1024),
    (1000, 999),
    (1024, 1024),
    (1280, 720),
    (1536, 640),
];

/// The `i`-th image.
pub fn image(i: usize) -> RgbImage {
    let (width, height) = SIZES[i];
    let n = i as u32;
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([0u32, 1, 2].map(|c| {
            let mixed = x.wrapping_mul(73_856_093) ^ y.wrapping_mul(19_349_663) ^ c.wrapping_mul(83_492_791);
            let noise = (mixed ^ (n * 40_503)).wrapping_mul(2_654_435_761) >> 27;
            let smooth = (x * (1 + n % 5) + y * (1 + n % 3)) / 2 + (x * y) / (64 + 16 * c) + 85 * c;
            (smooth.wrapping_add(noise) & 255) as u8
        }))
    })
}

/// All of them.
pub fn images() -> Vec<RgbImage> {
    (0..SIZES.len()).map(image).collect()
}

/// The prompt of the `i`-th image for scorers that read CLIP's tokens.
pub fn prompt(i: usize) -> &'static str {
    const WORDS: [&str; 6] = [
        "a fox",
        "red house",
        "rain over the sea",
        "an old map",
        "x",
        "two cats on a sofa and a very long tail of words",
    ];
    WORDS[i % WORDS.len()]
}
