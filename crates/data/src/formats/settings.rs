//! How to read a set.

/// How to open a set of pairs; by default files and columns are read as what they look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenSettings {
    /// Name of a layout in [`FORMATS`](super::FORMATS), where files would be taken for another or for none.
    pub format: Option<String>,
    /// What columns hold.
    pub columns: Columns,
    /// Whether rows of single images stay what they are, liked or disliked, instead of becoming pairs.
    pub unpaired: bool,
    /// Whether images that people like may stand alone, each the winner and the loser of its row: for a method that uses no losers.
    pub liked: bool,
    /// Whether rows of two images that nobody ranked are kept as [ties](crate::set::PairSet::is_tie), the first image in the
    /// winner's place.
    pub ties: bool,
}

macro_rules! columns {
    ($($(#[$doc:meta])* $key:ident,)*) => {
        /// Names of columns, for tables that follow no convention of [`CONVENTIONS`](super::CONVENTIONS).
        ///
        /// What is named here overrides what was detected. An `image_0` with a `label_0` and no second image is a table of
        /// single images, as for KTO.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Columns {
            $($(#[$doc])* pub $key: Option<String>,)*
        }

        impl Columns {
            /// The keys, in the order of help texts.
            pub const KEYS: &[&str] = &[$(stringify!($key),)*];

            /// The name under a key of [`KEYS`](Self::KEYS), to be set; `None` for another key.
            pub fn key(&mut self, key: &str) -> Option<&mut Option<String>> {
                match key {
                    $(stringify!($key) => Some(&mut self.$key),)*
                    _ => None,
                }
            }

            /// The columns named, each after its key.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, &str)> {
                let names = [$((stringify!($key), self.$key.as_deref()),)*];
                names.into_iter().filter_map(|(key, name)| Some((key, name?)))
            }
        }
    };
}

columns! {
    /// The first image, ranked by labels.
    image_0,
    /// The second image.
    image_1,
    /// How good the first image is; the larger label wins.
    label_0,
    /// How good the second image is.
    label_1,
    /// The image people like better, where columns are ranked already.
    winner,
    /// The other image.
    loser,
    /// How good a model of rewards finds the first image, or the winner; with this the pair has a soft label.
    score_0,
    /// How good it finds the second image, or the loser.
    score_1,
    /// PickScore's cosine of the first image, or the winner, with the caption.
    ps_score_0,
    /// That of the second image, or the loser.
    ps_score_1,
    /// Probability that the winner is really the better one.
    soft_label,
    /// Probability that the first image is the better one.
    probability_0,
    /// What both images shall show.
    caption,
}
