//! Encoded pairs on disk: posteriors of images and embeddings of captions, each computed once.
//!
//! A cache is a folder. `key.json` says what it was made from. Shards hold it in parts of fixed size that are safetensors
//! files: posteriors of [`PAIRS_PER_SHARD`] pairs (`pairs-00000-<hash>.safetensors`), embeddings of [`CAPTIONS_PER_SHARD`]
//! captions (`text-00000-<hash>.safetensors`). A shard's name ends with the first 16 digits of its SHA-256, and `index.json`,
//! written last, lists all of them in full. What a shard holds depends on the key and its number alone, so that a build that
//! was stopped resumes and ends with the same bytes, and processes can share the work.
//!
//! Every row has a checksum (XXH3) that is compared whenever the row is used.

mod folder;
mod key;
mod pairs;
mod rows;
mod text;

pub use folder::{CacheFolder, ShardKind};
pub use key::{Key, LatentKey, TextKey};
pub use pairs::{CachedPair, PairShard, PairShardDraft, Row, Stored};
pub use text::{CAPTIONS_PER_SHARD, Embedding, TextShard, text_shard};

/// Pairs in one shard; the last one of a set may have fewer.
pub const PAIRS_PER_SHARD: usize = 256;
