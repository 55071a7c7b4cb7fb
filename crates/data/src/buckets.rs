//! Bucket resolutions: several aspect ratios, so that little of an image is cut off and nothing is stretched.
//!
//! Source: kohya-ss/sd-scripts `library/model_util.py`, `make_bucket_resolutions`, whose rule users' settings come from.

use serde::{Deserialize, Serialize};

use crate::transform::Size;

/// Which bucket resolutions there are. All sides in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketSettings {
    /// Sides are multiples of this.
    pub step: u32,
    /// The shortest side.
    pub min: u32,
    /// The longest side.
    pub max: u32,
}

/// The resolutions that pairs are resized and cropped to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketResolutions {
    /// Side of the square; no resolution has more pixels.
    pub resolution: u32,
    /// Other aspect ratios beside it; without them every pair goes into the square.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<BucketSettings>,
}

impl BucketResolutions {
    /// Every resolution, sorted by width.
    pub fn all(&self) -> Vec<Size> {
        let square = (self.resolution, self.resolution);
        let Some(BucketSettings { step, min, max }) = self.buckets else { return vec![square] };
        let area = u64::from(self.resolution).pow(2);
        let down = |side: u64| (side / u64::from(step) * u64::from(step)) as u32;
        let widths = (min.div_ceil(step)..=max / step).map(|n| n * step);
        let tall = widths.filter(|&width| width > 0).map(|width| {
            let height = down((area / u64::from(width)).min(u64::from(max)));
            (width, height)
        });
        let mut resolutions: Vec<Size> =
            tall.filter(|&(_, height)| height >= min.max(1)).flat_map(|(w, h)| [(w, h), (h, w)]).collect();
        resolutions.push(square);
        resolutions.sort_unstable();
        resolutions.dedup();
        resolutions
    }

    /// The resolution of a pair: the one whose aspect ratio is nearest to the pair's, which is the geometric mean of those of its
    /// images, so that it is the same whichever of them won.
    ///
    /// # Panics
    /// If an image is empty.
    pub fn of(&self, winner: Size, loser: Size) -> Size {
        assert!([winner, loser].iter().all(|&(w, h)| w > 0 && h > 0), "{winner:?}, {loser:?}");
        if self.buckets.is_none() {
            return (self.resolution, self.resolution);
        }
        let aspect = |(width, height): Size| (f64::from(width) / f64::from(height)).ln();
        let wanted = (aspect(winner) + aspect(loser)) / 2.0;
        let off = |resolution: &Size| (aspect(*resolution) - wanted).abs();
        // Of two that are as near, the one with more pixels.
        let by = |a: &Size, b: &Size| {
            let pixels = |&(w, h): &Size| u64::from(w) * u64::from(h);
            off(a).total_cmp(&off(b)).then_with(|| pixels(b).cmp(&pixels(a)))
        };
        self.all().into_iter().min_by(by).unwrap_or((self.resolution, self.resolution))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kohya(resolution: u32) -> BucketResolutions {
        BucketResolutions { resolution, buckets: Some(BucketSettings { step: 64, min: 256, max: 1024 }) }
    }

    #[test]
    fn the_resolutions_are_those_of_kohyas_scripts() {
        // Source: make_bucket_resolutions((512, 512)) of kohya-ss/sd-scripts, with its defaults.
        let wanted = [
            (256, 1024),
            (320, 768),
            (384, 640),
            (448, 576),
            (512, 512),
            (576, 448),
            (640, 384),
            (704, 320),
            (768, 320),
            (832, 256),
            (896, 256),
            (960, 256),
            (1024, 256),
        ];
        let found = kohya(512).all();
        assert!(wanted.iter().all(|resolution| found.contains(resolution)), "{found:?}");
        assert!(found.iter().all(|&(w, h)| found.contains(&(h, w))), "{found:?}");
    }

    #[test]
    fn without_buckets_everything_is_square() {
        let square = BucketResolutions { resolution: 96, buckets: None };
        assert_eq!((square.all(), square.of((9, 300), (300, 9))), (vec![(96, 96)], (96, 96)));
    }

    #[test]
    fn a_pair_goes_where_its_mean_shape_fits() {
        let resolutions = kohya(512);
        assert_eq!(resolutions.of((512, 512), (512, 512)), (512, 512));
        assert_eq!(resolutions.of((300, 400), (300, 400)), (448, 576));
        // A tall and a wide image of equal measure meet in the square.
        assert_eq!(resolutions.of((300, 400), (400, 300)), (512, 512));
        assert_eq!(resolutions.of((10, 4000), (10, 4000)), (256, 1024));
    }

    proptest! {
        #[test]
        fn a_resolution_is_the_same_whoever_wins(a in (1u32..3000, 1u32..3000), b in (1u32..3000, 1u32..3000)) {
            let resolutions = kohya(1024);
            prop_assert_eq!(resolutions.of(a, b), resolutions.of(b, a));
            let (width, height) = resolutions.of(a, b);
            prop_assert!(width * height <= 1024 * 1024 && width % 64 == 0 && height % 64 == 0);
        }
    }
}
