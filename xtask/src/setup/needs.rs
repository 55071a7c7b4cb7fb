//! Which libraries a library needs, and whether the loader will find them, from the files' own headers.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{Dyn, FileHeader};

/// Libraries that come with NVIDIA's driver: they may be missing where the driver is.
const DRIVER: [&str; 2] = ["libcuda.so.1", "libnvidia-ml.so.1"];

/// Where every loader looks last.
const DEFAULTS: [&str; 4] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// A library that the loader will not find.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// The name it is asked for by.
    pub name: String,
    /// The file that asks.
    pub by: PathBuf,
}

/// What an ELF file says to the loader.
#[derive(Debug, Default)]
struct Dynamic {
    needed: Vec<String>,
    /// Folders of `DT_RPATH`, which also hold for what this library loads.
    inherited: Vec<PathBuf>,
    /// Folders of `DT_RUNPATH`, which replace `DT_RPATH`.
    own: Option<Vec<PathBuf>>,
}

/// All that `library` and whatever it loads need and the loader does not find, but for the libraries of the driver.
///
/// The order of search is that of glibc (ld.so(8)) without `LD_LIBRARY_PATH`, which another shell may not have: `DT_RPATH` of
/// the library and of those that load it, `DT_RUNPATH` of the library, the loader's cache, the default folders.
///
/// # Errors
/// A file cannot be read or is no library.
pub fn missing(library: &Path) -> Result<Vec<Missing>> {
    let system = System::read();
    let mut found = BTreeSet::from([name_of(library)]);
    let mut missing = BTreeSet::new();
    let mut open = VecDeque::from([(library.to_owned(), Vec::new())]);
    while let Some((path, loaders)) = open.pop_front() {
        let dynamic = Dynamic::read(&path)?;
        let mut inherited = dynamic.inherited;
        inherited.extend(loaders);
        let inherits = dynamic.own.is_none();
        let folders: Vec<&PathBuf> =
            inherited.iter().filter(|_| inherits).chain(dynamic.own.iter().flatten()).collect();
        for name in dynamic.needed.iter().chain(&opened_later(&path)) {
            if found.contains(name) || DRIVER.contains(&name.as_str()) {
                continue;
            }
            let file = folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
            match file {
                Some(file) => open.push_back((file, inherited.clone())),
                None if system.has(name) => {}
                None => {
                    missing.insert(Missing { name: name.clone(), by: path.clone() });
                    continue;
                }
            }
            found.insert(name.clone());
        }
    }
    Ok(missing.into_iter().collect())
}

/// What a library opens by name when it is used: the parts of cuDNN, and libtorch's for linear algebra and compilation.
fn opened_later(library: &Path) -> Vec<String> {
    let name = name_of(library);
    let folder = library.parent().into_iter().flat_map(std::fs::read_dir).flatten().flatten();
    let beside = folder.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_part = |other: &String| match name.as_str() {
        "libtorch_cuda.so" => ["libtorch_cuda_linalg.so", "libcaffe2_nvrtc.so"].contains(&other.as_str()),
        _ => match name.strip_prefix("libcudnn.so.") {
            Some(major) => other.starts_with("libcudnn_") && other.ends_with(&format!(".so.{major}")),
            None => false,
        },
    };
    beside.filter(is_part).collect()
}

fn name_of(library: &Path) -> String {
    library.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Dynamic {
    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let data = ReadCache::new(file);
        let origin = path.parent().unwrap_or(Path::new("."));
        Self::parse(&data, origin)
            .with_context(|| format!("{} is not a 64-bit shared library", path.display()))
    }

    fn parse(data: &ReadCache<File>, origin: &Path) -> object::Result<Self> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut dynamic = Self::default();
        let Some((entries, link)) = sections.dynamic(endian, data)? else { return Ok(dynamic) };
        let strings = sections.strings(endian, data, link)?;
        for entry in entries {
            let tag = entry.tag(endian);
            if ![DT_NEEDED, DT_RPATH, DT_RUNPATH].contains(&tag) {
                continue;
            }
            let text = String::from_utf8_lossy(entry.string(endian, strings)?).into_owned();
            match tag {
                DT_NEEDED => dynamic.needed.push(text),
                DT_RPATH => dynamic.inherited = folders(&text, origin),
                _ => dynamic.own = Some(folders(&text, origin)),
            }
        }
        Ok(dynamic)
    }
}

fn folders(list: &str, origin: &Path) -> Vec<PathBuf> {
    let origin = origin.to_string_lossy();
    let folders = list.split(':').filter(|folder| !folder.is_empty());
    folders.map(|folder| folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin).into()).collect()
}

/// The libraries of the system.
pub struct System {
    cache: BTreeSet<String>,
}

impl System {
    /// Reads the loader's cache; where there is none, as with musl, only the default folders are searched.
    pub fn read() -> Self {
        // Its strings are the libraries' paths, in every version of its format.
        let cache = std::fs::read("/etc/ld.so.cache").unwrap_or_default();
        let paths = cache.split(|byte| *byte == 0).filter(|text| text.first() == Some(&b'/'));
        let paths = paths.filter_map(|text| std::str::from_utf8(text).ok()).map(Path::new);
        Self { cache: paths.filter(|path| path.is_file()).map(name_of).collect() }
    }

    /// Whether the loader finds a library of this name here.
    pub fn has(&self, name: &str) -> bool {
        self.cache.contains(name) || DEFAULTS.iter().any(|folder| Path::new(folder).join(name).is_file())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::{System, missing};

    /// Builds a library that needs others of the folder, and searches `rpath`.
    fn library(folder: &Path, name: &str, needs: &[&str], rpath: &str, is_old: bool) {
        let mut compiler = Command::new("c++");
        compiler.args(["-shared", "-fPIC", "-x", "c++", "/dev/null", "-x", "none", "-Wl,--no-as-needed"]);
        compiler.args(needs.iter().map(|name| folder.join(name)));
        compiler.arg(if is_old { "-Wl,--disable-new-dtags" } else { "-Wl,--enable-new-dtags" });
        compiler.args([format!("-Wl,-soname,{name}"), format!("-Wl,-rpath,{rpath}"), "-o".into()]);
        // The linker looks for what needed libraries need; whether that is there is what is tested.
        compiler.arg(folder.join(name)).arg("-Wl,--allow-shlib-undefined");
        assert!(compiler.output().expect("a compiler").status.success(), "{name}");
    }

    fn names(library: &Path) -> Vec<String> {
        missing(library).expect("readable libraries").into_iter().map(|missing| missing.name).collect()
    }

    #[test]
    fn what_any_loaded_library_lacks_is_named_but_for_the_drivers_own() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path();
        library(folder, "libcuda.so.1", &[], "", true);
        library(folder, "liblast.so", &[], "", true);
        library(folder, "libmiddle.so", &["liblast.so", "libcuda.so.1"], "", true);
        library(folder, "libfirst.so", &["libmiddle.so"], "$ORIGIN", true);
        let first = folder.join("libfirst.so");
        assert!(names(&first).is_empty(), "the rpath of a library holds for what it loads");
        fs::remove_file(folder.join("libcuda.so.1")).expect("a removed file");
        assert!(names(&first).is_empty(), "the driver may be missing");
        fs::remove_file(folder.join("liblast.so")).expect("a removed file");
        let found = missing(&first).expect("readable libraries");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), &found[0].by), ("liblast.so", &folder.join("libmiddle.so")));
    }

    #[test]
    fn a_runpath_holds_for_its_own_library_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path();
        library(folder, "liblast.so", &[], "", false);
        library(folder, "libmiddle.so", &["liblast.so"], "", false);
        library(folder, "libfirst.so", &["libmiddle.so"], "${ORIGIN}", false);
        assert_eq!(names(&folder.join("libfirst.so")), ["liblast.so"]);
    }

    #[test]
    fn parts_that_are_opened_later_are_held_to_the_same() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path();
        library(folder, "libcudnn.so.9", &[], "$ORIGIN", true);
        library(folder, "libabsent.so.1", &[], "", true);
        library(folder, "libcudnn_ops.so.9", &["libabsent.so.1"], "$ORIGIN", true);
        assert!(names(&folder.join("libcudnn.so.9")).is_empty());
        fs::remove_file(folder.join("libabsent.so.1")).expect("a removed file");
        assert_eq!(names(&folder.join("libcudnn.so.9")), ["libabsent.so.1"]);
    }

    #[test]
    fn the_systems_libraries_are_found() {
        let system = System::read();
        assert!(system.has("libc.so.6") || system.has("libc.so"));
        assert!(!system.has("libtorch_cuda.so.nowhere"));
    }
}
