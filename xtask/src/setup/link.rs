//! The checkout's `.libtorch`: the one place builds read.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The name of the link in the root of the checkout.
const NAME: &str = ".libtorch";

/// Where the link of the checkout at `root` lies.
pub fn place(root: &Path) -> PathBuf {
    root.join(NAME)
}

/// Whether `folder` is the one the link leads to.
pub fn is_linked(root: &Path, folder: &Path) -> bool {
    place(root).canonicalize().is_ok_and(|target| folder.canonicalize().is_ok_and(|folder| folder == target))
}

/// Points the link at `folder`; readers see the old target or the new one, never none.
///
/// # Errors
/// Something that is not a link stands in its place, or the checkout cannot be written.
pub fn point(root: &Path, folder: &Path) -> Result<()> {
    let link = place(root);
    match fs::symlink_metadata(&link) {
        Ok(found) if !found.is_symlink() => {
            bail!("{} is not a link: move it away, then run set-up again", link.display())
        }
        Ok(_) if fs::read_link(&link).is_ok_and(|target| target == folder) => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", link.display())),
    }
    let fresh = root.join(format!("{NAME}.{}", std::process::id()));
    symlink(folder, &fresh).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, &link).with_context(|| format!("cannot replace {}", link.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{place, point};

    #[test]
    fn the_link_is_made_then_moved_then_left_alone() {
        let root = tempfile::tempdir().expect("a temporary folder");
        for target in ["a", "b", "b"] {
            point(root.path(), Path::new(target)).expect("a link");
            assert_eq!(fs::read_link(place(root.path())).expect("a link"), Path::new(target));
        }
        assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_real_folder_in_its_place_is_not_touched() {
        let root = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(place(root.path())).expect("a made folder");
        let error = point(root.path(), Path::new("a")).expect_err("a refusal");
        assert!(error.to_string().contains("is not a link"));
        assert!(place(root.path()).is_dir());
    }
}
