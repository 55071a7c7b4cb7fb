//! Names that become paths: checked here, once, before any of them touches the disk.

use std::fmt;
use std::path::PathBuf;

use crate::HubError;

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// Weights and configurations.
    Model,
    /// Rows to train on.
    Dataset,
}

impl RepoKind {
    /// The plural that stands in folder names and in addresses of the interface.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::Dataset => "datasets",
        }
    }
}

/// The name of a repository: `org/name`, or `name` alone for a few old ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoId {
    kind: RepoKind,
    name: String,
}

impl RepoId {
    /// A model's name.
    ///
    /// # Errors
    /// [`HubError::Name`] for a name that the hub does not give out.
    pub fn model(name: &str) -> Result<Self, HubError> {
        Self::new(RepoKind::Model, name)
    }

    /// A dataset's name.
    ///
    /// # Errors
    /// As [`RepoId::model`].
    pub fn dataset(name: &str) -> Result<Self, HubError> {
        Self::new(RepoKind::Dataset, name)
    }

    fn new(kind: RepoKind, name: &str) -> Result<Self, HubError> {
        let usable = |part: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            (1..=96).contains(&part.len())
                && part.chars().all(plain)
                && !part.starts_with(['.', '-'])
                && !part.ends_with(['.', '-'])
                // The cache joins organization and name by two dashes.
                && !part.contains("--")
                && !part.contains("..")
                && !part.ends_with(".git")
        };
        if name.split('/').count() <= 2 && name.split('/').all(usable) {
            return Ok(Self { kind, name: name.to_owned() });
        }
        let wanted = "org/name, of letters, digits, `-`, `_` and `.`";
        Err(HubError::Name { what: "repository", found: name.to_owned(), wanted })
    }

    /// What it holds.
    pub fn kind(&self) -> RepoKind {
        self.kind
    }

    /// `org/name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder in a cache: `models--org--name`.
    pub fn folder_name(&self) -> String {
        format!("{}--{}", self.kind.plural(), self.name.replace('/', "--"))
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RepoKind::Model => write!(f, "model {}", self.name),
            RepoKind::Dataset => write!(f, "dataset {}", self.name),
        }
    }
}

/// A branch, a tag, a commit, or a reference such as `refs/pr/1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision(String);

impl Revision {
    /// A revision's name.
    ///
    /// # Errors
    /// [`HubError::Name`] for one that git does not allow.
    pub fn new(name: &str) -> Result<Self, HubError> {
        let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"\\~^:?*[\"<>|".contains(c);
        if name.len() <= 255 && name.chars().all(plain) && is_relative_path(name) {
            return Ok(Self(name.to_owned()));
        }
        let wanted = "a branch, a tag or a commit";
        Err(HubError::Name { what: "revision", found: name.to_owned(), wanted })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a whole commit, which never moves.
    pub fn is_commit(&self) -> bool {
        is_commit(&self.0)
    }
}

impl Default for Revision {
    fn default() -> Self {
        Self("main".into())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a whole commit: 40 hexadecimal digits.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_lower_hex(text)
}

pub(crate) fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A file's name in a repository as a path below a folder.
pub(crate) fn file_path(name: &str) -> Result<PathBuf, HubError> {
    // A colon names a drive or a stream on Windows.
    let plain = |c: char| !c.is_control() && !"\\:".contains(c);
    if name.len() <= 1024 && name.chars().all(plain) && is_relative_path(name) {
        return Ok(name.split('/').collect());
    }
    let wanted = "a path inside the repository, without `..`, `\\`, `:` and control characters";
    Err(HubError::Name { what: "file name", found: name.to_owned(), wanted })
}

/// An entity tag as the name of a blob: quotes and the mark of a weak tag taken away.
pub(crate) fn blob_name(etag: &str) -> Result<&str, HubError> {
    let name = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+=".contains(c);
    // Endings with a dot are this cache's own: `.incomplete`, `.lock`.
    if (1..=128).contains(&name.len()) && name.chars().all(plain) && !name.contains('.') {
        return Ok(name);
    }
    let wanted = "at most 128 letters, digits, `-`, `_`, `+` and `=`";
    Err(HubError::Name { what: "entity tag", found: etag.to_owned(), wanted })
}

fn is_relative_path(name: &str) -> bool {
    name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_hub_gives_out_are_usable() {
        for (name, folder) in [
            ("runwayml/stable-diffusion-v1-5", "models--runwayml--stable-diffusion-v1-5"),
            ("gpt2", "models--gpt2"),
            ("a_b/C.d-0", "models--a_b--C.d-0"),
        ] {
            assert_eq!(RepoId::model(name).unwrap().folder_name(), folder);
        }
        assert_eq!(
            RepoId::dataset("yuvalkirstain/pickapic_v2").unwrap().folder_name(),
            "datasets--yuvalkirstain--pickapic_v2"
        );
    }

    #[test]
    fn names_that_lead_elsewhere_are_not() {
        for name in [
            "", "/", "a/", "/a", "a/b/c", "..", "../a", "a/..", "a\\b", "a--b/c", "a/.b", "a/-b", "a b",
            "a/b.git", "a/b\n", "é/b",
        ] {
            assert!(matches!(RepoId::model(name), Err(HubError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn revisions_are_branches_tags_and_commits() {
        for name in ["main", "refs/pr/1", "v1.0", "fp16", "39593d5650112b4cc580433f6b0435385882d819"] {
            assert_eq!(Revision::new(name).unwrap().as_str(), name);
        }
        for name in ["", "..", "../main", "a/../b", "/etc/x", "a//b", "a/", "a\\b", "a b", "a\0", "a:b"] {
            assert!(matches!(Revision::new(name), Err(HubError::Name { .. })), "{name:?}");
        }
        assert!(Revision::new(&"a0".repeat(20)).unwrap().is_commit());
        assert!(!Revision::default().is_commit());
    }

    #[test]
    fn file_names_stay_inside() {
        assert_eq!(file_path("unet/config.json").unwrap(), PathBuf::from("unet").join("config.json"));
        for name in ["", "../x", "a/../x", "/etc/x", "a\\b", "a//b", "a/", "./a", "c:x", "a\0b", "a\nb"] {
            assert!(matches!(file_path(name), Err(HubError::Name { .. })), "{name:?}");
        }
    }

    #[test]
    fn entity_tags_are_plain_file_names() {
        for (etag, name) in [("\"abc\"", "abc"), ("W/\"abc-3\"", "abc-3"), ("abc", "abc")] {
            assert_eq!(blob_name(etag).unwrap(), name);
        }
        for etag in ["", "\"\"", "\"../x\"", "a/b", "..", ".", "a.incomplete", "a\\b", "a b"] {
            assert!(matches!(blob_name(etag), Err(HubError::Name { .. })), "{etag:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_file_name_leads_out(name in r"[a./\\:]{0,12}") {
            if let Ok(path) = file_path(&name) {
                let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
                proptest::prop_assert!(plain && path.is_relative(), "{name:?}");
            }
        }
    }
}
