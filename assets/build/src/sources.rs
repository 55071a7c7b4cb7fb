//! The pinned upstream packages, and reading one member out of a verified tarball.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::hash::sha256_hex;

/// One published npm package, pinned by version and by the hash of its tarball.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Package name as npm spells it.
    pub package: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// SHA-256 of the tarball, lower-case hex.
    pub sha256: &'static str,
    /// SPDX expression of what we take from it.
    pub license: &'static str,
    /// Whom to credit, in one line.
    pub attribution: &'static str,
    /// Where the package's content is made.
    pub upstream: &'static str,
}

/// Noto Emoji drawings.
pub const NOTO: Source = Source {
    package: "@iconify-json/noto",
    version: "1.2.9",
    sha256: "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    license: "Apache-2.0",
    attribution: "Noto Emoji, Google Inc.",
    upstream: "https://github.com/googlefonts/noto-emoji",
};

/// Twemoji drawings.
pub const TWEMOJI: Source = Source {
    package: "@iconify-json/twemoji",
    version: "1.2.5",
    sha256: "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    license: "CC-BY-4.0",
    attribution: "Twemoji, Twitter, Inc. and other contributors",
    upstream: "https://github.com/jdecked/twemoji",
};

/// Fluent Emoji drawings in the flat style.
pub const FLUENT_FLAT: Source = Source {
    package: "@iconify-json/fluent-emoji-flat",
    version: "1.2.6",
    sha256: "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    license: "MIT",
    attribution: "Fluent Emoji, Microsoft Corporation",
    upstream: "https://github.com/microsoft/fluentui-emoji",
};

/// Fluent Emoji drawings in the black-and-white high-contrast style.
pub const FLUENT_HIGH_CONTRAST: Source = Source {
    package: "@iconify-json/fluent-emoji-high-contrast",
    version: "1.2.6",
    sha256: "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
    license: "MIT",
    attribution: "Fluent Emoji, Microsoft Corporation",
    upstream: "https://github.com/microsoft/fluentui-emoji",
};

/// English labels, tags, groups and subgroups of every emoji.
pub const EMOJIBASE: Source = Source {
    package: "emojibase-data",
    version: "17.0.0",
    sha256: "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    license: "MIT AND Unicode-3.0",
    attribution: "emojibase, Miles Johnson; labels and tags from Unicode CLDR, Unicode, Inc.",
    upstream: "https://github.com/milesj/emojibase",
};

/// Everything the builder reads.
pub const SOURCES: &[Source] = &[NOTO, TWEMOJI, FLUENT_FLAT, FLUENT_HIGH_CONTRAST, EMOJIBASE];

/// A tarball whose hash has been checked.
pub struct Tarball {
    bytes: Vec<u8>,
    package: &'static str,
}

impl Source {
    /// File name that `npm pack` gives the tarball.
    fn file_name(&self) -> String {
        let flat = self.package.trim_start_matches('@').replace('/', "-");
        format!("{flat}-{}.tgz", self.version)
    }

    /// Returns the verified tarball, asking npm for it first when `cache` lacks it.
    ///
    /// # Errors
    /// When npm fails, or when the tarball is not the pinned one.
    pub fn open(&self, cache: &Path) -> Result<Tarball> {
        let path = cache.join(self.file_name());
        if !path.is_file() {
            self.pack_into(cache)?;
        }
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let found = sha256_hex(&bytes);
        ensure!(
            found == self.sha256,
            "{} has SHA-256 {found}, wanted {}: delete it and run again",
            path.display(),
            self.sha256
        );
        Ok(Tarball { bytes, package: self.package })
    }

    fn pack_into(&self, cache: &Path) -> Result<()> {
        fs::create_dir_all(cache).with_context(|| format!("creating {}", cache.display()))?;
        let spec = format!("{}@{}", self.package, self.version);
        let status = Command::new("npm")
            .args(["pack", "--silent", &spec])
            .current_dir(cache)
            .stdout(std::process::Stdio::null())
            .status()
            .context("starting npm, which fetches the source packages")?;
        ensure!(status.success(), "npm pack {spec} failed: {status}");
        Ok(())
    }
}

impl Tarball {
    /// Parses the JSON file `name` of the package.
    ///
    /// # Errors
    /// When the package has no such file or it is not JSON.
    pub fn json(&self, name: &str) -> Result<serde_json::Value> {
        let wanted = PathBuf::from("package").join(name);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&self.bytes[..]));
        for entry in archive.entries().context("listing the tarball")? {
            let mut entry = entry.context("reading the tarball")?;
            if entry.path().context("reading a member's name")? != wanted {
                continue;
            }
            let mut text = String::new();
            entry.read_to_string(&mut text).with_context(|| format!("reading {name}"))?;
            return serde_json::from_str(&text)
                .with_context(|| format!("{}: {name} is not JSON", self.package));
        }
        bail!("{} has no {name}", self.package)
    }
}
