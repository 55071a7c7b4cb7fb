//! Rows of single images, made into pairs.

use std::collections::{HashMap, VecDeque};

use crate::set::{Builder, MAX_CAPTION_BYTES, Spot};
use crate::{PairId, Reason};

/// Single images waiting for a counterpart, by caption.
///
/// Within a caption the i-th image that people like and the i-th that they do not make a pair, whose id is the row of the
/// former.
#[derive(Debug, Default)]
pub struct Unpaired {
    waiting: HashMap<String, Waiting>,
    pairs: Vec<(PairId, Spot, Spot, u32)>,
    captions: Vec<String>,
}

/// Images of one caption that are all liked, or all not.
#[derive(Debug, Default)]
struct Waiting {
    caption: u32,
    liked: bool,
    images: VecDeque<(PairId, Spot)>,
}

impl Unpaired {
    /// Takes an image up.
    pub fn take(&mut self, id: PairId, image: Spot, liked: bool, caption: &str, builder: &mut Builder) {
        if caption.len() > MAX_CAPTION_BYTES {
            let detail = format!("{} bytes; wanted at most {MAX_CAPTION_BYTES}", caption.len());
            return builder.skip(id, Reason::LongCaption, &detail);
        }
        if !self.waiting.contains_key(caption) {
            let number = self.captions.len() as u32;
            self.captions.push(caption.to_owned());
            self.waiting.insert(caption.to_owned(), Waiting { caption: number, ..Waiting::default() });
        }
        let Some(waiting) = self.waiting.get_mut(caption) else { return };
        let counterpart = if waiting.liked == liked { None } else { waiting.images.pop_front() };
        match counterpart {
            Some(other) if liked => self.pairs.push((id, image, other.1, waiting.caption)),
            Some(other) => self.pairs.push((other.0, other.1, image, waiting.caption)),
            None => {
                waiting.liked = liked;
                waiting.images.push_back((id, image));
            }
        }
    }

    /// Hands the pairs over, and what has no counterpart.
    pub fn finish(mut self, builder: &mut Builder) {
        self.pairs.sort_unstable_by_key(|pair| pair.0);
        for (id, winner, loser, caption) in self.pairs {
            builder.keep(id, winner, loser, &self.captions[caption as usize]);
        }
        for waiting in self.waiting.into_values() {
            let detail = if waiting.liked {
                "no image of its caption is left that people do not like"
            } else {
                "no image of its caption is left that people like"
            };
            for (id, _) in waiting.images {
                builder.skip(id, Reason::NoCounterpart, detail);
            }
        }
    }
}
