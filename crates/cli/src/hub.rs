//! The Hub and its cache, found as the Hub's own tools find them: by environment variables and their defaults.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tastemaker_demo::base;
use tastemaker_hub::{Cache, HubError, RepoId, RepoKind, Revision, Settings, Snapshot, Token, check_proxy};
use tastemaker_models::ModelError;
use tastemaker_store::{StoreError, json, regular};

use crate::exit::UsageError;
use crate::place::{Place, PlaceError};
use crate::progress::mebibytes;

/// The value of a variable, `None` if it is not set or empty.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable of this process.
pub fn process(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The cache in this folder, else where the environment says.
///
/// # Errors
/// [`UsageError`] where nothing says.
pub fn cache(typed: Option<&Path>) -> Result<Cache> {
    let folder = typed.map(Path::to_owned).or_else(|| cache_folder(&process));
    let nowhere = || {
        UsageError("there is no home folder to keep models in: give --cache-dir or set HF_HUB_CACHE".into())
    };
    Ok(Cache::new(folder.ok_or_else(nowhere)?))
}

/// How to reach the Hub.
///
/// # Errors
/// A token that cannot be read or cannot be one.
pub fn settings() -> Result<Settings> {
    let defaults = Settings::default();
    check_proxies(&process)?;
    Ok(Settings {
        endpoint: process("HF_ENDPOINT").unwrap_or(defaults.endpoint),
        token: token(&process)?,
        offline: is_offline(&process),
        retry: defaults.retry,
        wait: defaults.wait,
        proxy_from_environment: true,
    })
}

/// Finds out whether the proxies that the environment names can be used, for the client passes over others in silence.
///
/// # Errors
/// [`HubError::Name`].
pub fn check_proxies(variables: Variables<'_>) -> Result<(), HubError> {
    const PROXIES: [&str; 6] =
        ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
    PROXIES.into_iter().try_for_each(|name| variables(name).map_or(Ok(()), |value| check_proxy(name, &value)))
}

/// Where a model is: the folder or file of this name, the embedded model if it is `demo`, or the snapshot in the cache of the repository of this name, at
/// `revision` (`main` if `None`).
///
/// # Errors
/// [`HubError::NotCached`] if it is neither, but could be on the Hub; [`UsageError`] for the revision of something that is
/// no repository.
pub fn locate(name: &str, revision: Option<&str>) -> Result<PathBuf> {
    let path = PathBuf::from(name);
    if let Some(found) = regular::odd(&path) {
        return Err(
            ModelError::from(StoreError::malformed(&path, found, "a regular file or a folder")).into()
        );
    }
    if name == EMBEDDED && revision.is_none() && !path.exists() {
        return embedded();
    }
    match repository(RepoKind::Model, name, &path) {
        Some(repo) => Ok(snapshot(&repo, revision)?.unwrap_or(path)),
        None if revision.is_some() && path.exists() => Err(UsageError(format!(
            "{name} is a place on this machine; --revision chooses among those of a fetched model"
        ))
        .into()),
        None => Ok(path),
    }
}

/// The name that stands for the embedded model, where nothing else has it.
const EMBEDDED: &str = "demo";

/// The embedded model, unpacked into the user's cache.
fn embedded() -> Result<PathBuf> {
    let caches = own_cache().ok_or_else(|| {
        UsageError("there is no home folder to unpack the embedded model in: set XDG_CACHE_HOME".into())
    })?;
    base::unpacked(&caches).with_context(|| {
        format!(
            "cannot unpack the embedded model below {}: set XDG_CACHE_HOME to a folder that can be written",
            caches.display()
        )
    })
}

/// Where a dataset is: the snapshot in the cache of the repository of this name, behind `@` its revision; `None` for what is no
/// name of one, or is here.
///
/// # Errors
/// [`HubError::NotCached`].
pub fn locate_dataset(name: &str) -> Result<Option<PathBuf>> {
    let (repo, revision) =
        name.split_once('@').map_or((name, None), |(repo, revision)| (repo, Some(revision)));
    let repo = repository(RepoKind::Dataset, repo, Path::new(name));
    repo.map_or(Ok(None), |repo| snapshot(&repo, revision))
}

/// Endings of files that a name may stand for, which are no repositories.
const FILES: [&str; 10] =
    [".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".jsonl", ".json", ".parquet", ".tar", ".csv"];

/// Endings of files of weights.
const WEIGHTS: [&str; 5] = [".safetensors", ".ckpt", ".pt", ".pth", ".bin"];

/// The repository of this name, unless it names a file or what was typed is on this machine.
fn repository(kind: RepoKind, name: &str, typed: &Path) -> Option<RepoId> {
    let named = match kind {
        RepoKind::Model => RepoId::model(name),
        RepoKind::Dataset => RepoId::dataset(name),
    };
    let is_local = FILES.iter().any(|ending| name.ends_with(ending)) || typed.exists();
    named.ok().filter(|_| name.contains('/') && !is_local)
}

/// Where files of a repository are: the folder or file of this name, or the snapshot in the cache of the repository of this
/// name, which holds `files`.
///
/// # Errors
/// [`HubError::NotCached`] with the command that fetches it, the files by name where there are any; as [`locate`].
pub fn locate_files(name: &str, files: &[&str]) -> Result<PathBuf> {
    let path = PathBuf::from(name);
    let Some(repo) = repository(RepoKind::Model, name, &path) else { return Ok(path) };
    let cache = cache(None)?;
    let revision = Revision::default();
    let included: String = files.iter().map(|file| format!(" --include {file}")).collect();
    let hint = format!("run `tastemaker model fetch {}{included}`", repo.name());
    let snapshot = cache.require(&repo, &revision, &hint)?;
    compare(&snapshot, &repo)?;
    match files.iter().find(|file| !snapshot.folder().join(file).is_file()) {
        None => Ok(snapshot.folder().to_owned()),
        Some(file) => {
            let wanted = format!("it in the cache; {hint}");
            Err(StoreError::Missing { path: snapshot.folder().join(file), wanted }.into())
        }
    }
}

/// The folder of a fetched repository; `None` where there is no cache to look in.
fn snapshot(repo: &RepoId, revision: Option<&str>) -> Result<Option<PathBuf>> {
    let revision = revision.map(Revision::new).transpose()?;
    let Ok(cache) = cache(None) else { return Ok(None) };
    let chosen = revision.as_ref().map(|revision| format!(" --revision {revision}")).unwrap_or_default();
    let command = match repo.kind() {
        RepoKind::Model => "model",
        RepoKind::Dataset => "data",
    };
    let hint = format!(
        "there is no folder of that name either: check the path, or run `tastemaker {command} fetch {}{chosen}`",
        repo.name()
    );
    let snapshot = cache.require(repo, &revision.unwrap_or_default(), &hint)?;
    compare(&snapshot, repo)?;
    if let (RepoKind::Dataset, Some(parts)) = (repo.kind(), snapshot.parts()) {
        eprintln!(
            "note: of {} only parts were fetched ({parts}); `tastemaker data fetch {}{chosen}` fetches all of it",
            repo.name(),
            repo.name()
        );
    }
    Ok(Some(snapshot.folder().to_owned()))
}

/// Bytes that are compared without a word.
const SILENT: u64 = 64 << 20;

/// Compares fetched files with their checksums, once.
fn compare(snapshot: &Snapshot, repo: &RepoId) -> Result<()> {
    let before = |bytes: u64| {
        if bytes > SILENT {
            eprintln!("note: comparing {} of {} with their checksums, once", mebibytes(bytes), repo.name());
        }
    };
    Ok(snapshot.compare(before)?)
}

/// The file that `org/name/path/of/file.safetensors` stands for: one of a fetched repository; `None` for any other name, and for
/// what is on this machine.
///
/// # Errors
/// [`HubError::NotCached`], also for a file that was not fetched, with the command that fetches it.
pub fn locate_in_snapshot(name: &str) -> Result<Option<PathBuf>> {
    let mut slashes = name.match_indices('/').map(|(at, _)| at);
    let Some(end) = slashes.nth(1).filter(|_| WEIGHTS.iter().any(|ending| name.ends_with(ending))) else {
        return Ok(None);
    };
    let (repo, file) = (&name[..end], &name[end + 1..]);
    let (Ok(repo), false) = (RepoId::model(repo), Path::new(name).exists()) else { return Ok(None) };
    let Ok(cache) = cache(None) else { return Ok(None) };
    // Far more often a path on this machine that is wrong than the name of a repository.
    let Some(snapshot) = cache.snapshot(&repo, &Revision::default())? else { return Ok(None) };
    compare(&snapshot, &repo)?;
    match snapshot.file(file)? {
        Some(path) => Ok(Some(path)),
        None => {
            let hint = format!("run `tastemaker model fetch {} --include {file}`", repo.name());
            Err(HubError::NotCached {
                repo: format!("{file} of {repo}"),
                revision: Revision::default().to_string(),
                cache: cache.root().to_owned(),
                hint,
            }
            .into())
        }
    }
}

/// The user's home folder.
pub fn home_folder() -> Option<PathBuf> {
    home(&process)
}

fn home(variables: Variables<'_>) -> Option<PathBuf> {
    variables("HOME").or_else(|| variables("USERPROFILE")).map(PathBuf::from)
}

/// A folder as typed in a variable, `~` being the home folder.
fn folder(variables: Variables<'_>, name: &str) -> Option<PathBuf> {
    let value = variables(name)?;
    match value.strip_prefix("~/") {
        Some(rest) => Some(home(variables)?.join(rest)),
        None => Some(value.into()),
    }
}

fn hugging_face_home(variables: Variables<'_>) -> Option<PathBuf> {
    folder(variables, "HF_HOME").or_else(|| {
        let caches = folder(variables, "XDG_CACHE_HOME").or_else(|| Some(home(variables)?.join(".cache")));
        Some(caches?.join("huggingface"))
    })
}

fn cache_folder(variables: Variables<'_>) -> Option<PathBuf> {
    folder(variables, "HF_HUB_CACHE").or_else(|| Some(hugging_face_home(variables)?.join("hub")))
}

/// Where encoded pairs are kept that are given no place of their own; `None` without a home folder.
pub fn pair_caches() -> Option<PathBuf> {
    Some(own_cache()?.join("pairs"))
}

/// Finds out whether what is given no place of its own can be cached.
///
/// # Errors
/// [`PlaceError`] with the flag that names another place.
pub fn check_cache(root: &Path, flag: &str) -> Result<(), PlaceError> {
    let other = format!("{flag} or set XDG_CACHE_HOME");
    Place::folder(root, &other, &["**"]).check_writable()
}

/// This program's folder in the user's cache.
fn own_cache() -> Option<PathBuf> {
    let caches = folder(&process, "XDG_CACHE_HOME").or_else(|| Some(home(&process)?.join(".cache")));
    Some(caches?.join("tastemaker"))
}

fn is_offline(variables: Variables<'_>) -> bool {
    let value = variables("HF_HUB_OFFLINE").unwrap_or_default();
    ["1", "true", "yes", "on"].contains(&value.to_ascii_lowercase().as_str())
}

fn token(variables: Variables<'_>) -> Result<Option<Token>, HubError> {
    if let Some(text) = variables("HF_TOKEN") {
        return Token::new(&text);
    }
    match hugging_face_home(variables).map(|home| home.join("token")) {
        Some(file) if file.is_file() => Token::new(&json::read_text(file)?),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| set.iter().find(|(found, _)| *found == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn the_cache_is_where_the_hubs_own_tools_have_it() {
        for (set, wanted) in [
            (&[("HOME", "/h")][..], Some("/h/.cache/huggingface/hub")),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], Some("/x/huggingface/hub")),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")], Some("/f/hub")),
            (&[("HOME", "/h"), ("HF_HOME", "~/f")], Some("/h/f/hub")),
            (&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], Some("/c")),
            (&[], None),
        ] {
            assert_eq!(cache_folder(&of(set)), wanted.map(PathBuf::from), "{set:?}");
        }
    }

    #[test]
    fn offline_is_said_in_four_ways() {
        for value in ["1", "true", "YES", "On"] {
            assert!(is_offline(&of(&[("HF_HUB_OFFLINE", value)])), "{value}");
        }
        for value in ["0", "false", "no"] {
            assert!(!is_offline(&of(&[("HF_HUB_OFFLINE", value)])), "{value}");
        }
        assert!(!is_offline(&of(&[])));
    }

    #[test]
    fn a_token_is_typed_or_lies_in_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert_eq!(token(&of(&[("HF_HOME", home)])).unwrap(), None);
        std::fs::write(folder.path().join("token"), "hf_filed\n").unwrap();
        let found = |set: &[(&str, &str)]| token(&of(set)).unwrap();
        assert_eq!(found(&[("HF_HOME", home)]), Token::new("hf_filed").unwrap());
        assert_eq!(found(&[("HF_HOME", home), ("HF_TOKEN", "hf_typed")]), Token::new("hf_typed").unwrap());
    }
}
