//! A folder elsewhere.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::ObjectStore;

use super::address::{Address, below};
use super::object::Object;
use super::objects::{Objects, Version};
use super::settings::Settings;
use crate::HubError;
use tastemaker_store::StoreError;
use tastemaker_store::tree::{Blob, Entry, Tree};

/// Files that are asked about one by one; whoever asks about more wants the list of all.
const ONE_BY_ONE: usize = 32;

/// A folder in object storage, or on a web server, which cannot be listed. Files in parts of 4 MiB, of which the 16 used last
/// are kept. What is read is of one version: an object that changes meanwhile is an error.
#[derive(Debug)]
pub struct RemoteTree {
    objects: Arc<Objects>,
    /// Empty, or with a slash at its end.
    folder: String,
    can_list: bool,
    listing: Mutex<Option<Arc<Vec<Entry>>>>,
    n_asked: AtomicUsize,
}

impl RemoteTree {
    /// The folder that an address names. Opens no connection.
    ///
    /// # Errors
    /// [`HubError::Name`] for an address that is none, [`HubError::Answer`] for options that do not fit it.
    pub fn new(address: &str, settings: &Settings) -> Result<Self, HubError> {
        let address = Address::parse(address)?;
        Ok(Self::over(address.store(settings)?, &address.root, &address.path, address.can_list()))
    }

    pub(super) fn over(store: Box<dyn ObjectStore>, root: &str, folder: &str, can_list: bool) -> Self {
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let objects = Arc::new(Objects::new(store, root));
        Self { objects, folder, can_list, listing: Mutex::default(), n_asked: AtomicUsize::new(0) }
    }

    fn listing(&self) -> Result<Arc<Vec<Entry>>, HubError> {
        // Others wait: they want the same.
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = listing.as_ref() {
            return Ok(Arc::clone(entries));
        }
        let entries = Arc::new(self.objects.list(&self.folder)?);
        *listing = Some(Arc::clone(&entries));
        Ok(entries)
    }

    /// The listing, if there is one or it pays to have one.
    fn known(&self) -> Result<Option<Arc<Vec<Entry>>>, HubError> {
        let pays = self.can_list && self.n_asked.fetch_add(1, Ordering::Relaxed) >= ONE_BY_ONE;
        if pays {
            return self.listing().map(Some);
        }
        Ok(self.listing.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn version(&self, path: &str) -> Result<Option<Version>, HubError> {
        let Some(whole) = below(&self.folder, path) else { return Ok(None) };
        match self.known()? {
            Some(entries) => {
                let found = entries.binary_search_by(|entry| entry.path.as_str().cmp(path)).ok();
                Ok(found.map(|at| Version::sized(entries[at].bytes)))
            }
            None => self.objects.version(&whole),
        }
    }
}

impl Tree for RemoteTree {
    fn place(&self, path: &str) -> PathBuf {
        self.objects.place(&format!("{}{path}", self.folder))
    }

    fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let place = self.place("");
        if !self.can_list {
            let error = HubError::Answer {
                url: place.display().to_string(),
                found: "no list of its files, because it is a web server".into(),
                wanted: "addresses of files, such as .../pairs-{000..010}.tar".into(),
            };
            return Err(error.into());
        }
        let entries = self.listing()?;
        if entries.is_empty() {
            return Err(StoreError::Missing { path: place, wanted: "a set of pairs".into() });
        }
        Ok(entries.to_vec())
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        Ok(self.version(path)?.map(|version| version.size))
    }

    fn open(&self, path: &str) -> Result<Box<dyn Blob>, StoreError> {
        let missing = || StoreError::Missing { path: self.place(path), wanted: "a file".into() };
        let whole = below(&self.folder, path).ok_or_else(missing)?;
        let version = self.version(path)?.ok_or_else(missing)?;
        Ok(Box::new(Object::new(Arc::clone(&self.objects), whole, version)))
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;
    use tastemaker_store::tree::read_text;

    fn bucket(names: &[&str]) -> RemoteTree {
        let store = InMemory::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for name in names {
            runtime.block_on(store.put(&Path::parse(name).unwrap(), (*name).to_owned().into())).unwrap();
        }
        RemoteTree::over(Box::new(store), "s3://bucket", "set", true)
    }

    fn names(tree: &RemoteTree) -> Vec<String> {
        tree.entries().unwrap().into_iter().map(|entry| entry.path).collect()
    }

    #[test]
    fn a_folder_is_listed_sorted_and_without_hidden_files() {
        let tree = bucket(&[
            "set/w/b.png",
            "set/w/a b.png",
            "set/.git/x",
            "set/a/.x",
            "settle/x",
            "set.txt",
            "set/a.txt",
        ]);
        assert_eq!(names(&tree), ["a.txt", "w/a b.png", "w/b.png"]);
        assert_eq!(tree.entries().unwrap()[1].bytes, "set/w/a b.png".len() as u64);
        assert_eq!(tree.place("w/b.png"), PathBuf::from("s3://bucket/set/w/b.png"));
    }

    #[test]
    fn files_read_the_same_whether_they_were_listed_or_not() {
        for listed in [false, true] {
            let tree = bucket(&["set/a.txt", "b.txt"]);
            if listed {
                tree.entries().unwrap();
            }
            assert_eq!(read_text(tree.open("a.txt").unwrap().as_ref(), 99).unwrap(), "set/a.txt");
            assert_eq!(tree.size("a.txt").unwrap(), Some(9));
            for path in ["b.txt", "../b.txt", "a", "a.txt/b"] {
                assert_eq!(tree.size(path).unwrap(), None, "{path}");
            }
        }
    }

    #[test]
    fn many_questions_are_answered_by_one_list() {
        let tree = bucket(&["set/a.txt"]);
        for _ in 0..ONE_BY_ONE {
            tree.size("a.txt").unwrap();
        }
        assert!(tree.listing.lock().unwrap().is_none());
        assert_eq!(tree.size("a.txt").unwrap(), Some(9));
        assert!(tree.listing.lock().unwrap().is_some());
    }

    #[test]
    fn a_folder_with_nothing_in_it_is_not_there() {
        assert!(matches!(bucket(&["other/a"]).entries(), Err(StoreError::Missing { .. })));
    }
}
