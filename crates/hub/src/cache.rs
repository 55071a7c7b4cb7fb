//! The cache's layout, and looking things up in it.

use std::path::{Path, PathBuf};

use crate::names::{RepoId, Revision, file_path, is_commit};
use tastemaker_store::{StoreError, json};

use crate::HubError;
use crate::mark::Mark;

/// A cache of repositories in the layout of the Hugging Face hub's own clients.
///
/// ```text
/// models--org--name/blobs/<etag>                contents
/// models--org--name/refs/<revision>             the commit that a branch or tag stood for
/// models--org--name/snapshots/<commit>/<file>   relative links to blobs
/// .locks/models--org--name/<etag>.lock
/// models--org--name/.tastemaker/<commit>.json    what was asked for, and whether it is there
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

/// The files of one commit, as far as they were fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    commit: String,
    folder: PathBuf,
    /// What was asked for, where that was only parts.
    parts: Option<String>,
}

impl Cache {
    /// A cache in this folder, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The snapshot that a revision stood for when it was last fetched. Opens no connection.
    ///
    /// # Errors
    /// [`StoreError::Malformed`] for a reference that holds no commit; [`HubError::Incomplete`] for one whose fetching was
    /// interrupted; [`StoreError::Io`].
    pub fn snapshot(&self, repo: &RepoId, revision: &Revision) -> Result<Option<Snapshot>, HubError> {
        let commit = if revision.is_commit() {
            revision.as_str().to_owned()
        } else {
            let path = self.reference(repo, revision);
            if !path.is_file() {
                return Ok(None);
            }
            let text = json::read_text(&path)?;
            let commit = text.trim();
            if !is_commit(commit) {
                let found = format!("`{}`", commit.chars().take(60).collect::<String>());
                return Err(StoreError::malformed(&path, found, "a commit, 40 hexadecimal digits").into());
            }
            commit.to_owned()
        };
        let folder = self.snapshot_folder(repo, &commit);
        if !folder.is_dir() {
            return Ok(None);
        }
        let mark = Mark::read(&self.mark(repo, &commit));
        if let Some((asked, n_missing)) = mark.interrupted(&folder) {
            return Err(HubError::Incomplete {
                repo: repo.to_string(),
                what: asked.what.clone(),
                n_missing,
                n_files: asked.files.len(),
                cache: self.root.clone(),
            });
        }
        Ok(Some(Snapshot { parts: mark.parts(), commit, folder }))
    }

    /// [`Cache::snapshot`] where there is no going on without.
    ///
    /// # Errors
    /// [`HubError::NotCached`] with this hint, and as [`Cache::snapshot`].
    pub fn require(&self, repo: &RepoId, revision: &Revision, hint: &str) -> Result<Snapshot, HubError> {
        self.snapshot(repo, revision)?.ok_or_else(|| HubError::NotCached {
            repo: repo.to_string(),
            revision: revision.to_string(),
            cache: self.root.clone(),
            hint: hint.to_owned(),
        })
    }

    /// Everything about one repository.
    pub fn repo_folder(&self, repo: &RepoId) -> PathBuf {
        self.root.join(repo.folder_name())
    }

    pub(crate) fn reference(&self, repo: &RepoId, revision: &Revision) -> PathBuf {
        self.repo_folder(repo).join("refs").join(revision.as_str())
    }

    pub(crate) fn snapshot_folder(&self, repo: &RepoId, commit: &str) -> PathBuf {
        self.repo_folder(repo).join("snapshots").join(commit)
    }

    pub(crate) fn mark(&self, repo: &RepoId, commit: &str) -> PathBuf {
        self.repo_folder(repo).join(".tastemaker").join(format!("{commit}.json"))
    }

    pub(crate) fn blob(&self, repo: &RepoId, etag: &str) -> PathBuf {
        self.repo_folder(repo).join("blobs").join(etag)
    }

    pub(crate) fn lock(&self, repo: &RepoId, etag: &str) -> PathBuf {
        self.root.join(".locks").join(repo.folder_name()).join(format!("{etag}.lock"))
    }
}

impl Snapshot {
    pub(crate) fn new(commit: String, folder: PathBuf) -> Self {
        Self { commit, folder, parts: None }
    }

    /// What was asked for when the files were fetched, where that was only parts of the repository: files named one by one, a
    /// split or a config.
    pub fn parts(&self) -> Option<&str> {
        self.parts.as_deref()
    }

    /// The commit, 40 hexadecimal digits.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a file of the repository is, `None` if it was not fetched.
    ///
    /// # Errors
    /// [`HubError::Name`] for a name that could lead out of the snapshot.
    pub fn file(&self, name: &str) -> Result<Option<PathBuf>, HubError> {
        let path = self.folder.join(file_path(name)?);
        Ok(path.is_file().then_some(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const COMMIT: &str = "39593d5650112b4cc580433f6b0435385882d819";

    fn cached() -> (tempfile::TempDir, Cache, RepoId) {
        let folder = tempfile::tempdir().unwrap();
        let (cache, repo) = (Cache::new(folder.path()), RepoId::model("org/name").unwrap());
        let snapshot = folder.path().join("models--org--name/snapshots").join(COMMIT).join("unet");
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(snapshot.join("config.json"), "{}").unwrap();
        fs::create_dir_all(folder.path().join("models--org--name/refs/refs/pr")).unwrap();
        for name in ["main", "refs/pr/1"] {
            fs::write(folder.path().join("models--org--name/refs").join(name), COMMIT).unwrap();
        }
        (folder, cache, repo)
    }

    #[test]
    fn branches_references_and_commits_lead_to_the_snapshot() {
        let (_folder, cache, repo) = cached();
        for revision in ["main", "refs/pr/1", COMMIT] {
            let found = cache.snapshot(&repo, &Revision::new(revision).unwrap()).unwrap().unwrap();
            assert_eq!(found.commit(), COMMIT);
            assert!(found.file("unet/config.json").unwrap().unwrap().is_file());
            assert_eq!(found.file("vae/config.json").unwrap(), None);
        }
    }

    #[test]
    fn what_was_never_fetched_is_not_there() {
        let (_folder, cache, repo) = cached();
        let find = |repo: &RepoId, revision: &str| cache.snapshot(repo, &Revision::new(revision).unwrap());
        assert_eq!(find(&repo, "other").unwrap(), None);
        assert_eq!(find(&repo, &"0".repeat(40)).unwrap(), None);
        assert_eq!(find(&RepoId::model("org/other").unwrap(), "main").unwrap(), None);
        assert_eq!(find(&RepoId::dataset("org/name").unwrap(), "main").unwrap(), None);
    }

    #[test]
    fn a_reference_to_another_folder_is_refused() {
        let (folder, cache, repo) = cached();
        fs::write(folder.path().join("models--org--name/refs/main"), "../../elsewhere").unwrap();
        let error = cache.snapshot(&repo, &Revision::default()).unwrap_err();
        assert!(matches!(error, HubError::Store(StoreError::Malformed { .. })), "{error:?}");
    }

    #[test]
    fn a_file_outside_the_snapshot_is_not_looked_for() {
        let (_folder, cache, repo) = cached();
        let snapshot = cache.snapshot(&repo, &Revision::default()).unwrap().unwrap();
        assert!(matches!(snapshot.file("../../refs/main"), Err(HubError::Name { .. })));
    }
}
