//! Pairs by the prefixes of their prompts, as MaPO's Pick-Style and Pick-Safety are made.

/// A published pair of prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is put before the prompt of the winner.
    pub winner: &'static str,
    /// What is put before the prompt of the loser.
    pub loser: &'static str,
    /// Where it comes from.
    pub source: &'static str,
}

/// The published ones. Captions for training are the prompts without prefix.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "pick-style-cartoon",
        winner: "Disney style animated image.",
        loser: "Realistic 8k image.",
        source: "MaPO's project page, June 2024 (data set mapo-t2i/pick-style-cartoon)",
    },
    Preset {
        name: "pick-style-pixel-art",
        winner: "Pixel art style image.",
        loser: "Realistic 8k image.",
        source: "MaPO's project page, June 2024 (data set mapo-t2i/pick-style-pixel-art)",
    },
    Preset {
        name: "pick-culture",
        winner: "East-Asian art style images.",
        loser: "Realistic 8k image.",
        source: "MaPO, AAAI 2026, which names the winner's; the loser's is that of Pick-Style",
    },
    Preset {
        name: "pick-safety",
        winner: "",
        loser: "Sexual, nudity, +19 image.",
        source: "MaPO's project page, June 2024 (data set mapo-t2i/pick-safety)",
    },
];

/// A prompt after a prefix, with a space between them; the prompt itself without one.
pub fn prefixed(prefix: &str, prompt: &str) -> String {
    if prefix.is_empty() { prompt.to_owned() } else { format!("{prefix} {prompt}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_before_the_prompt() {
        assert_eq!(prefixed("Pixel art style image.", "a fox"), "Pixel art style image. a fox");
        assert_eq!(prefixed("", "a fox"), "a fox");
    }

    #[test]
    fn presets_have_names_of_their_own_and_two_sides() {
        for (i, preset) in PRESETS.iter().enumerate() {
            assert!(PRESETS[..i].iter().all(|other| other.name != preset.name), "{}", preset.name);
            assert_ne!(preset.winner, preset.loser, "{}", preset.name);
        }
    }
}
