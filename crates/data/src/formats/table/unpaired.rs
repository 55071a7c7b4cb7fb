//! Rows of single images, made into pairs.

use std::collections::{HashMap, VecDeque};

use crate::set::{Builder, ImageRef, Labels, MAX_CAPTION_BYTES};
use crate::{Label, PairId, Reason};

/// Single images waiting for a counterpart, by caption.
///
/// Within a caption the i-th image that people like and the i-th that they do not make a pair, whose id is the row of the
/// former.
#[derive(Debug, Default)]
pub struct Unpaired {
    waiting: HashMap<String, Waiting>,
    /// Winner and loser, and the number of their caption.
    pairs: Vec<(PairId, [ImageRef; 2], u32)>,
    captions: Vec<String>,
}

/// Images of one caption that have the same label.
#[derive(Debug)]
struct Waiting {
    caption: u32,
    label: Label,
    images: VecDeque<(PairId, ImageRef)>,
}

impl Unpaired {
    /// Adds an image.
    pub fn add(&mut self, id: PairId, image: ImageRef, label: Label, caption: &str, builder: &mut Builder) {
        if caption.len() > MAX_CAPTION_BYTES {
            let detail = format!("{} bytes; wanted at most {MAX_CAPTION_BYTES}", caption.len());
            return builder.skip(id, Reason::LongCaption, &detail);
        }
        if !self.waiting.contains_key(caption) {
            let number = self.captions.len() as u32;
            self.captions.push(caption.to_owned());
            self.waiting
                .insert(caption.to_owned(), Waiting { caption: number, label, images: VecDeque::new() });
        }
        let Some(waiting) = self.waiting.get_mut(caption) else { return };
        let counterpart = if waiting.label == label { None } else { waiting.images.pop_front() };
        match counterpart {
            Some(other) if label == Label::Liked => self.pairs.push((id, [image, other.1], waiting.caption)),
            Some(other) => self.pairs.push((other.0, [other.1, image], waiting.caption)),
            None => {
                waiting.label = label;
                waiting.images.push_back((id, image));
            }
        }
    }

    /// Hands the pairs over, and what has no counterpart. Where there is no pair at all and `liked` says so, images that people like
    /// stand alone.
    pub fn finish(mut self, builder: &mut Builder, liked: bool) {
        if liked && self.pairs.is_empty() {
            for waiting in self.waiting.values_mut().filter(|waiting| waiting.label == Label::Liked) {
                let alone = waiting.images.drain(..).map(|(id, image)| (id, [image, image], waiting.caption));
                self.pairs.extend(alone);
            }
        }
        self.pairs.sort_unstable_by_key(|pair| pair.0);
        for (id, images, caption) in self.pairs {
            builder.keep(id, images, Some(&self.captions[caption as usize]), Labels::default());
        }
        for waiting in self.waiting.into_values() {
            let detail = match waiting.label {
                Label::Liked => "no image of its caption is left that people do not like",
                Label::Disliked => "no image of its caption is left that people like",
            };
            for (id, _) in waiting.images {
                builder.skip(id, Reason::NoCounterpart, detail);
            }
        }
    }
}
