//! The visible list of checks.

use serde::{Deserialize, Serialize};

use crate::Reason;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The row cannot be trained on, and is skipped.
    Error,
    /// The row is trained on, but somebody should look at it.
    Warning,
    /// The row is skipped on purpose.
    Note,
}

impl Severity {
    /// `error`, `warning` or `note`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }

    /// What happens to the row.
    pub fn outcome(self) -> &'static str {
        match self {
            Self::Error | Self::Note => "skipped",
            Self::Warning => "trained on",
        }
    }
}

/// When a list of exclusions names the rows of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fix {
    /// Whenever a list is written.
    Default,
    /// When all is to be excluded that can be, or this check by name.
    Asked,
    /// When this check is named. Much of a good set may be like this.
    Named,
    /// Never: there is nothing that excluding rows would mend.
    Never,
}

impl Fix {
    /// The value of `--fix` that excludes it, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Default => "`--fix`",
            Self::Asked => "`--fix=all`",
            Self::Named => "by name",
            Self::Never => "-",
        }
    }
}

/// Which check found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "`CHECKS` says what each is")]
pub enum Kind {
    BadImage,
    MissingImage,
    NoCounterpart,
    OtherFormat,
    BadRow,
    NoCaption,
    CaptionsDiffer,
    LongCaption,
    Contradiction,
    IdenticalImages,
    NearIdenticalImages,
    DuplicatePair,
    EmptyCaption,
    CutCaption,
    LeakedCaption,
    LeakedImage,
    ExifOrientation,
    AspectMismatch,
    SizeMismatch,
    Upscaled,
    LabelImbalance,
    Tie,
    Excluded,
}

impl Kind {
    /// Its entry in [`CHECKS`].
    pub fn check(self) -> &'static Check {
        &CHECKS[self as usize]
    }
}

/// The kinds that a word of `--fix` means: `default`, `all`, or the name of a check. `None` for another word, and for checks
/// that excluding rows would not mend.
pub fn fixed_by(word: &str) -> Option<Vec<Kind>> {
    let of = |wanted: &[Fix]| {
        let checks = CHECKS.iter().filter(|check| wanted.contains(&check.fix));
        Some(checks.map(|check| check.kind).collect())
    };
    match word {
        "default" => of(&[Fix::Default]),
        "all" => of(&[Fix::Default, Fix::Asked]),
        name => {
            let name = RENAMED.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
            let check = CHECKS.iter().find(|check| check.name == name && check.fix != Fix::Never)?;
            Some(vec![check.kind])
        }
    }
}

/// Names that checks had before.
const RENAMED: [(&str, &str); 2] =
    [("identical-halves", "identical-images"), ("near-identical-halves", "near-identical-images")];

impl From<Reason> for Kind {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Tie => Self::Tie,
            Reason::BadRow => Self::BadRow,
            Reason::NoCaption => Self::NoCaption,
            Reason::CaptionsDiffer => Self::CaptionsDiffer,
            Reason::LongCaption => Self::LongCaption,
            Reason::MissingImage => Self::MissingImage,
            Reason::NoCounterpart => Self::NoCounterpart,
            Reason::OtherFormat => Self::OtherFormat,
            Reason::BadImage => Self::BadImage,
            Reason::Excluded => Self::Excluded,
        }
    }
}

/// A check.
#[derive(Debug)]
pub struct Check {
    /// Which.
    pub kind: Kind,
    /// Its name in files and on the command line.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// When a list of exclusions names such rows.
    pub fix: Fix,
    /// What is found, to follow "rows with" or "the row has".
    pub what: &'static str,
    /// Why it matters, or what to do.
    pub why: &'static str,
}

macro_rules! checks {
    ($($kind:ident $name:literal $severity:ident $fix:ident $what:literal $why:literal,)*) => {
        /// Every check, the worst first.
        pub static CHECKS: &[Check] = &[$(Check {
            kind: Kind::$kind, name: $name, severity: Severity::$severity, fix: Fix::$fix, what: $what, why: $why,
        },)*];
    };
}

checks! {
    BadImage "bad-image" Error Default
        "an image that cannot be read, does not decode, or ends early"
        "the row is skipped when training first reads it",
    MissingImage "missing-image" Error Default
        "an image that is not there"
        "the row is skipped",
    NoCounterpart "no-counterpart" Error Default
        "an image without the other one"
        "the row is skipped",
    OtherFormat "other-format" Error Default
        "an image of a format that is not read; PNG, JPEG and WebP are"
        "the row is skipped; convert the image to have it back",
    BadRow "bad-row" Error Default
        "something else than a row must say"
        "the row is skipped",
    NoCaption "no-caption" Error Default
        "no caption"
        "the row is skipped",
    CaptionsDiffer "captions-differ" Error Default
        "two different captions for its two images"
        "a pair is two images of one caption; the row is skipped",
    LongCaption "long-caption" Error Default
        "a caption of more than 64 KiB"
        "that is no caption; the row is skipped",
    Contradiction "contradiction" Warning Default
        "the same two images and caption as an earlier row, and the opposite verdict"
        "both are trained on and teach nothing together",
    IdenticalImages "identical-images" Warning Default
        "two images with the same pixels"
        "it is trained on, and no preference can be learned from it",
    NearIdenticalImages "near-identical-images" Warning Asked
        "two images that look the same, such as one image compressed twice"
        "what is learned is the trace of the compression",
    DuplicatePair "duplicate-pair" Warning Default
        "the same two images, caption and verdict as an earlier row"
        "the pair is trained on twice",
    EmptyCaption "empty-caption" Warning Asked
        "a caption without a letter or a digit"
        "the pair trains the unconditional model only",
    CutCaption "cut-caption" Warning Named
        "a caption of more tokens than the text encoder sees"
        "its end is cut and not trained on; --max_token_length 150 or 225 encodes more",
    LeakedCaption "leaked-caption" Warning Asked
        "a held-out caption that is trained on but for punctuation, case or spaces"
        "metrics on held-out captions are too good",
    LeakedImage "leaked-image" Warning Asked
        "a held-out image that is trained on in another row"
        "metrics on held-out captions are too good",
    ExifOrientation "exif-orientation" Warning Named
        "an image whose EXIF data rotates or flips it"
        "training takes the pixels as they are stored, as the field's scripts do, so the image is learned the wrong way up",
    AspectMismatch "aspect-mismatch" Warning Named
        "two images of different proportions"
        "the middle square of each is trained on, so they lose different parts",
    SizeMismatch "size-mismatch" Warning Named
        "two images of the same proportions and different sizes"
        "the smaller one is softer, and sharpness is learned as taste",
    Upscaled "upscaled" Warning Named
        "an image whose shorter side is below the training resolution"
        "it is enlarged, and its blur is learned",
    LabelImbalance "label-imbalance" Warning Never
        "the winner listed first much more or much less often than the loser, or hardly any single images of one label"
        "either the list is sorted by verdict, votes were given by place, or there is little to tell apart",
    Tie "tie" Note Never
        "no winner"
        "the row is skipped",
    Excluded "excluded" Note Default
        "a place in the list of exclusions"
        "the row is skipped because the list says so",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_finds_its_own_entry_and_is_spelled_alike_everywhere() {
        for (i, check) in CHECKS.iter().enumerate() {
            assert_eq!(check.kind as usize, i);
            assert_eq!(serde_json::to_value(check.kind).unwrap(), check.name);
        }
        assert_eq!(CHECKS.len(), Kind::Excluded as usize + 1);
    }

    #[test]
    fn a_reason_and_its_check_have_the_same_name() {
        for reason in [
            Reason::Tie,
            Reason::BadRow,
            Reason::NoCaption,
            Reason::CaptionsDiffer,
            Reason::LongCaption,
            Reason::MissingImage,
            Reason::NoCounterpart,
            Reason::OtherFormat,
            Reason::BadImage,
            Reason::Excluded,
        ] {
            assert_eq!(
                serde_json::to_value(Kind::from(reason)).unwrap(),
                serde_json::to_value(reason).unwrap()
            );
        }
    }

    #[test]
    fn whatever_skips_a_row_against_its_will_is_excluded_by_default() {
        let errors = CHECKS.iter().filter(|check| check.severity == Severity::Error);
        assert!(errors.into_iter().all(|check| check.fix == Fix::Default));
    }

    #[test]
    fn checks_are_found_by_the_names_they_had_before() {
        for (old, new) in RENAMED {
            assert_eq!(fixed_by(old), fixed_by(new));
            assert!(fixed_by(new).is_some());
        }
    }
}
