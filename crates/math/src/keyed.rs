//! Random numbers without a generator: every number is a pure function of its key.
//!
//! A key is (seed, stream, index, draw): what the run was seeded with, what the numbers are for, which pair or step
//! they belong to, and which repetition. No state exists, so nothing needs saving, and no result depends on the
//! number of workers, the micro-batch size or the number of ranks.
//!
//! The generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). Normals
//! use only additions, multiplications, divisions and square roots, which IEEE 754 rounds the same everywhere, so
//! they are equal bit for bit on every platform.

/// What random numbers are for. The tags are part of the file formats: never renumber them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Stream {
    /// Training timesteps.
    Timestep = 1,
    /// Forward noise, shared by winner and loser.
    Noise = 2,
    /// Noise added during inversion.
    InversionNoise = 3,
    /// The draw from the image encoder's posterior.
    PosteriorNoise = 4,
    /// Horizontal flips.
    Flip = 5,
    /// Crop positions.
    Crop = 6,
    /// Which captions are dropped.
    CaptionDropout = 7,
    /// The order of pairs in an epoch.
    Order = 8,
    /// Initial weights.
    Init = 9,
    /// Starting noise of sampled images.
    Sample = 10,
    /// Bootstrap resampling.
    Bootstrap = 11,
    /// Which preference labels are flipped on purpose.
    LabelNoise = 12,
    /// Which pairs are held out.
    Split = 13,
    /// Whatever a data set is made with.
    Data = 14,
    /// Offsets of channels that are added to forward noise.
    NoiseOffset = 15,
    /// What voters are shown: sides of images, and which pairs come twice.
    Vote = 16,
}

/// The random numbers of one key, read from the front.
#[derive(Clone, Debug)]
pub struct Keyed {
    key: [u32; 2],
    index: u64,
    block: u64,
    words: [u32; 4],
    used: usize,
}

/// Blocks of four numbers that [`Keyed::fill_normal`] works on at once.
const BATCH: usize = 32;

impl Keyed {
    /// The numbers of (seed, stream, index, draw).
    ///
    /// Seed, stream and draw are hashed to a 64-bit Philox key; index and position form the counter. Two indices
    /// under one (seed, stream, draw) can therefore never share numbers.
    pub fn new(seed: u64, stream: Stream, index: u64, draw: u64) -> Self {
        let [draw_low, draw_high] = halves(draw);
        let hashed = philox4x32([draw_low, draw_high, stream as u32, 0], halves(seed));
        Self { key: [hashed[0], hashed[1]], index, block: 0, words: [0; 4], used: 4 }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = self.next_block();
            self.used = 0;
        }
        let word = self.words[self.used];
        self.used += 1;
        word
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// A number in `[0, 1)`, a multiple of `2^-53`.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * 2.0_f64.powi(-53)
    }

    /// A whole number below `n`, every one equally likely.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "there is no number below 0");
        // Lemire, "Fast random integer generation in an interval" (2019): reject the uneven remainder
        let uneven = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if wide as u64 >= uneven {
                return (wide >> 64) as u64;
            }
        }
    }

    /// `true` with the given probability.
    pub fn bernoulli(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// A unit gaussian.
    pub fn normal(&mut self) -> f64 {
        let (radius_bits, angle_bits) = (self.next_u32(), self.next_u32());
        gaussians(radius_bits, angle_bits)[0]
    }

    /// Fills a slice with unit gaussians.
    ///
    /// Starts at the next whole block of the counter, so a slice filled by a fresh key depends on the key alone, and
    /// a longer slice begins like a shorter one.
    pub fn fill_normal(&mut self, values: &mut [f32]) {
        self.used = 4;
        // Batches of blocks in loops without branches, one per stage: the compiler turns each into vector code
        let mut words = [[0_u32; 4]; BATCH];
        let mut normals = [[0.0_f32; 4]; BATCH];
        for batch in values.chunks_mut(4 * BATCH) {
            let n_blocks = batch.len().div_ceil(4);
            words[..n_blocks].fill_with(|| self.next_block());
            for ([first, second, third, fourth], words) in normals.iter_mut().zip(&words[..n_blocks]) {
                [*first, *second] = gaussians(words[0], words[1]).map(|x| x as f32);
                [*third, *fourth] = gaussians(words[2], words[3]).map(|x| x as f32);
            }
            batch.copy_from_slice(&normals.as_flattened()[..batch.len()]);
        }
    }

    fn next_block(&mut self) -> [u32; 4] {
        let ([block_low, block_high], [index_low, index_high]) = (halves(self.block), halves(self.index));
        self.block += 1;
        philox4x32([block_low, block_high, index_low, index_high], self.key)
    }
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

/// Ten rounds of Philox4x32: 128 random bits from a counter and a key.
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let [low_0, high_0] = halves(MULTIPLIERS[0] * u64::from(c0));
        let [low_1, high_1] = halves(MULTIPLIERS[1] * u64::from(c2));
        [c0, c1, c2, c3] = [high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0];
        [k0, k1] = [k0.wrapping_add(WEYL[0]), k1.wrapping_add(WEYL[1])];
    }
    [c0, c1, c2, c3]
}

/// Two independent unit gaussians from 64 random bits (Box and Muller, 1958); at most 6.67 away from 0.
fn gaussians(radius_bits: u32, angle_bits: u32) -> [f64; 2] {
    let radius = (-2.0 * ln_fraction(radius_bits)).sqrt();
    let (sine, cosine) = turn(angle_bits);
    [radius * cosine, radius * sine]
}

/// `ln((bits + 1) / 2^32)`, to 1e-13.
fn ln_fraction(bits: u32) -> f64 {
    // (bits + 1) = 2^exponent mantissa, mantissa in [sqrt(1/2), sqrt(2)); the integer is exact in f64
    let representation = (f64::from(bits) + 1.0).to_bits();
    // Subtracting the bits of sqrt(1/2) carries into the exponent field exactly when the mantissa reaches it
    let exponent = representation.wrapping_sub(std::f64::consts::FRAC_1_SQRT_2.to_bits()) >> 52;
    let mantissa = f64::from_bits(representation.wrapping_sub(exponent << 52));
    // ln m = 2 artanh((m - 1) / (m + 1)), and |s| <= 0.172
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let series = [1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0]
        .into_iter()
        .fold(0.0, |sum, term| sum * s2 + term);
    (f64::from(exponent as i32) - 32.0) * std::f64::consts::LN_2 + 2.0 * s * series
}

/// Sine and cosine of a whole turn cut into `2^32` angles, to 1e-15.
fn turn(bits: u32) -> (f64, f64) {
    const QUARTER: u32 = 1 << 30;
    // Within a quarter turn the angle is measured from the middle, so that it stays within pi/4 of 0
    let offset = f64::from(bits % QUARTER) + 0.5 - f64::from(QUARTER / 2);
    let x = offset * (std::f64::consts::FRAC_PI_2 / f64::from(QUARTER));
    let x2 = x * x;
    let horner =
        |inverse_factorials: [f64; 8]| inverse_factorials.into_iter().fold(0.0, |sum, term| sum * x2 + term);
    let sine = x * horner(SINE);
    let cosine = horner(COSINE);
    // Quarter by quarter: (s, c), (c, -s), (-s, -c), (-c, s)
    let quarter = bits / QUARTER;
    let (first, second) = if quarter & 1 == 0 { (sine, cosine) } else { (cosine, sine) };
    let negative = |holds: bool, x: f64| if holds { -x } else { x };
    (negative(quarter >= 2, first), negative(quarter == 1 || quarter == 2, second))
}

/// Taylor coefficients of `sin(x) / x` in `x^2`, highest first.
const SINE: [f64; 8] = [
    -1.0 / 1_307_674_368_000.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 39_916_800.0,
    1.0 / 362_880.0,
    -1.0 / 5_040.0,
    1.0 / 120.0,
    -1.0 / 6.0,
    1.0,
];

/// Taylor coefficients of `cos(x)` in `x^2`, highest first.
const COSINE: [f64; 8] = [
    -1.0 / 87_178_291_200.0,
    1.0 / 479_001_600.0,
    -1.0 / 3_628_800.0,
    1.0 / 40_320.0,
    -1.0 / 720.0,
    1.0 / 24.0,
    -1.0 / 2.0,
    1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_logarithm_and_angles_equal_the_platforms() {
        let corners = [0, 1, 2, u32::MAX, u32::MAX - 1, 1 << 30, (1 << 30) - 1, 1 << 31, 3_037_000_499];
        let mut keyed = Keyed::new(0, Stream::Data, 0, 0);
        for bits in corners.into_iter().chain((0..100_000).map(|_| keyed.next_u32())) {
            let expected = ((f64::from(bits) + 1.0) / 2.0_f64.powi(32)).ln();
            assert!(
                (ln_fraction(bits) - expected).abs() <= 1e-13 * (1e-300 + expected.abs()),
                "ln of {bits}"
            );
            let angle = (f64::from(bits) + 0.5) / 2.0_f64.powi(32) * std::f64::consts::TAU;
            // The quarters are turned by an eighth: the angle is measured from the middle of its quarter
            let (sine, cosine) = (angle - std::f64::consts::FRAC_PI_4).sin_cos();
            let (ours_sine, ours_cosine) = turn(bits);
            assert!((ours_sine - sine).abs() < 1e-14 && (ours_cosine - cosine).abs() < 1e-14, "turn {bits}");
        }
    }
}
