//! What the columns of a table mean.

/// What a row of a table says, by names of columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape<S = String> {
    /// Two images, and how good each is; the larger label wins.
    Labeled {
        /// The images.
        images: [S; 2],
        /// How good they are.
        labels: [S; 2],
    },
    /// Two images, ranked already.
    Ranked {
        /// The one people like better.
        winner: S,
        /// The other one.
        loser: S,
    },
    /// One image, and whether people like it.
    Single {
        /// The image.
        image: S,
        /// 1 if they do, else 0 or -1.
        label: S,
    },
    /// One image, which people like.
    Liked {
        /// The image.
        image: S,
    },
    /// A list of images, and as long a list that orders them.
    Ranking {
        /// The images.
        images: S,
        /// What orders them.
        ranks: S,
        /// Whether the best image has the lowest value.
        lowest_wins: bool,
    },
}

impl<S: AsRef<str>> Shape<S> {
    /// The columns.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Labeled { images: [a, b], labels: [c, d] } => vec![a, b, c, d],
            Self::Ranked { winner: a, loser: b }
            | Self::Single { image: a, label: b }
            | Self::Ranking { images: a, ranks: b, .. } => vec![a, b],
            Self::Liked { image } => vec![image],
        }
        .into_iter()
        .map(S::as_ref)
        .collect()
    }

    /// The columns that hold images.
    pub fn images(&self) -> Vec<&str> {
        let n = if matches!(self, Self::Single { .. } | Self::Liked { .. } | Self::Ranking { .. }) {
            1
        } else {
            2
        };
        self.columns().into_iter().take(n).collect()
    }

    /// The columns that say which image won.
    pub fn labels(&self) -> Vec<&str> {
        let n =
            if matches!(self, Self::Ranked { .. } | Self::Liked { .. }) { 0 } else { self.images().len() };
        self.columns().into_iter().rev().take(n).rev().collect()
    }

    /// The same with names of its own.
    pub fn owned(&self) -> Shape {
        let own = |name: &S| name.as_ref().to_owned();
        match self {
            Self::Labeled { images, labels } => {
                Shape::Labeled { images: images.each_ref().map(own), labels: labels.each_ref().map(own) }
            }
            Self::Ranked { winner, loser } => Shape::Ranked { winner: own(winner), loser: own(loser) },
            Self::Single { image, label } => Shape::Single { image: own(image), label: own(label) },
            Self::Liked { image } => Shape::Liked { image: own(image) },
            Self::Ranking { images, ranks, lowest_wins } => {
                Shape::Ranking { images: own(images), ranks: own(ranks), lowest_wins: *lowest_wins }
            }
        }
    }
}
