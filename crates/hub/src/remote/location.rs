//! What a user means by an address.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStoreScheme;

use super::address::Address;
use super::settings::Settings;
use super::tree::RemoteTree;
use crate::HubError;
use tastemaker_store::tree::braces::{common_folder, expand};
use tastemaker_store::tree::{Location, Tree};

/// What an address means: a file, all below a folder, or the files that its braces stand for; `::` stands between several
/// addresses of one bucket, container or server. `file://` is this machine.
///
/// # Errors
/// [`HubError::Name`] for an address that is none; [`StoreError::Missing`](tastemaker_store::StoreError::Missing) for one of nothing; whatever a server does.
pub fn locate(text: &str, settings: &Settings) -> Result<Location, HubError> {
    let addresses: Vec<Address> =
        expand(text)?.iter().map(|one| Address::parse(one)).collect::<Result<_, _>>()?;
    let Some(first) = addresses.first() else { return Err(several(text)) };
    if first.scheme == ObjectStoreScheme::Local {
        return here(text, &addresses);
    }
    if addresses.iter().any(|address| address.root != first.root) {
        return Err(several(text));
    }
    if let [address] = addresses.as_slice() {
        return one(text, address, settings);
    }
    let paths: Vec<String> = addresses.iter().map(|address| address.path.clone()).collect();
    let folder = common_folder(&paths);
    let files = paths.iter().map(|path| path[folder.len()..].to_owned()).collect();
    Ok(Location::new(tree(first, folder, settings)?, files, text))
}

fn one(text: &str, address: &Address, settings: &Settings) -> Result<Location, HubError> {
    let (folder, name) = address.path.rsplit_once('/').unwrap_or(("", &address.path));
    if !address.is_folder {
        let beside = tree(address, folder, settings)?;
        // A web server has no folders to speak of; whether the file is there shows when it is opened.
        if !address.can_list() || beside.size(name)?.is_some() {
            return Ok(Location::new(beside, vec![name.to_owned()], text));
        }
    }
    Ok(Location::new(tree(address, &address.path, settings)?, Vec::new(), text))
}

fn tree(address: &Address, folder: &str, settings: &Settings) -> Result<Arc<dyn Tree>, HubError> {
    let folder = folder.trim_end_matches('/');
    Ok(Arc::new(RemoteTree::over(address.store(settings)?, &address.root, folder, address.can_list())))
}

fn here(text: &str, addresses: &[Address]) -> Result<Location, HubError> {
    let path = |address: &Address| address.url.to_file_path().map_err(|()| several(text));
    let paths: Vec<PathBuf> = addresses.iter().map(path).collect::<Result<_, _>>()?;
    Ok(match paths.as_slice() {
        [path] => Location::local(path)?,
        _ => Location::files(paths, text)?,
    })
}

fn several(text: &str) -> HubError {
    let wanted = "addresses in one bucket, container or server";
    HubError::Name { what: "list of addresses", found: text.chars().take(200).collect(), wanted }
}
