//! What is asked, and what is answered.

use std::fmt;
use std::str::FromStr;

/// What a voter says about two images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// The image of the pair's first model is better.
    A,
    /// That of its second model is.
    B,
    /// Neither is.
    Tie,
    /// Neither is, and both are bad.
    Bad,
    /// Somebody else shall say.
    Skip,
}

impl Answer {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::A, Self::B, Self::Tie, Self::Bad, Self::Skip];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::Tie => "tie",
            Self::Bad => "bad",
            Self::Skip => "skip",
        }
    }

    /// The answer of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|answer| answer.name() == name)
    }

    /// Whether it is one of the votes that an item gets.
    pub fn counts(self) -> bool {
        self != Self::Skip
    }

    /// The answer that a page calls `left`, `right`, `tie`, `bad` or `skip`, where the image of A was on the left or not.
    pub fn of_side(side: &str, a_is_left: bool) -> Option<Self> {
        match side {
            "left" => Some(if a_is_left { Self::A } else { Self::B }),
            "right" => Some(if a_is_left { Self::B } else { Self::A }),
            "tie" | "bad" | "skip" => Self::of_name(side),
            _ => None,
        }
    }

    /// The opposite of [`of_side`](Self::of_side).
    pub fn side(self, a_is_left: bool) -> &'static str {
        match self {
            Self::A if a_is_left => "left",
            Self::B if !a_is_left => "left",
            Self::A | Self::B => "right",
            other => other.name(),
        }
    }
}

/// A question about two images, asked for the first time (round 0) or again (round 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    /// Index of the item.
    pub item: u32,
    /// Index of the question.
    pub question: u32,
    /// How often this voter was asked before.
    pub round: u32,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { item, question, round } = self;
        write!(f, "{item}-{question}-{round}")
    }
}

impl FromStr for Task {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text.split('-').map(|part| part.parse::<u32>().map_err(drop));
        let mut next = || numbers.next().unwrap_or(Err(()));
        let task = Self { item: next()?, question: next()?, round: next()? };
        if numbers.next().is_some() { Err(()) } else { Ok(task) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_and_answers_are_there_and_back() {
        for a_is_left in [true, false] {
            for answer in Answer::ALL {
                assert_eq!(Answer::of_side(answer.side(a_is_left), a_is_left), Some(answer));
                assert_eq!(Answer::of_name(answer.name()), Some(answer));
            }
        }
        assert_eq!(Answer::of_side("a", true), None);
    }

    #[test]
    fn tasks_are_three_numbers() {
        let task = Task { item: 12, question: 2, round: 1 };
        assert_eq!(task.to_string().parse(), Ok(task));
        for wrong in ["", "1-2", "1-2-3-4", "1-2-x", "-1-2-3", "99999999999-0-0"] {
            assert_eq!(wrong.parse::<Task>(), Err(()), "{wrong}");
        }
    }
}
