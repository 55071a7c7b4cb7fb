//! Encoded pairs on disk: posteriors of images and embeddings of captions, each computed once.
//!
//! A cache is a folder. `key.json` says what it was made from. Shards hold it in parts of fixed size that are safetensors
//! files: posteriors of [`PAIRS_PER_SHARD`] pairs (`pairs-00000-<hash>.safetensors`), embeddings of [`CAPTIONS_PER_SHARD`]
//! captions (`text-00000-<hash>.safetensors`). A shard's name ends with the first 16 digits of its SHA-256, and `index.json`,
//! written last, lists all of them in full. What a shard holds depends on the key and its number alone, so that a build that
//! was stopped resumes and ends with the same bytes, and processes can share the work. Until there is an index, a shard has a file
//! beside it that says what the index will (`pairs-00000-<hash>.json`): a shard that is older than that file, and as long as it says,
//! is not read again to resume a build or to finish it.
//!
//! The index also outlines the pairs of each shard: resolutions, and which are skipped. Opening a cache therefore reads the key, the
//! index and one listing of the folder; a shard is opened, and its head checked, when a row of it is first used.
//!
//! Everything in it is covered by a checksum: every row by one (XXH3) that is compared whenever the row is used, header and tables
//! of a shard by one in the index (`head`) that is compared when the shard is opened, the index by one at its end. The key is
//! compared with what a run asks for. Shapes and numbers are held against that, too, so that a crafted file is an error.

mod folder;
mod index;
mod key;
mod outline;
mod pairs;
mod shard;
mod text;

pub use folder::{CacheFolder, PairOutline, ShardKind};
pub use key::{Key, LatentKey, TextKey};
pub use pairs::{CachedPair, PairLayout, PairShard, PairShardDraft, Row, Stored};
pub use text::{CAPTIONS_PER_SHARD, Embedding, EncodedText, TextLayout, TextShard, text_shard};

/// Pairs in one shard; the last one of a set may have fewer.
pub const PAIRS_PER_SHARD: usize = 256;
