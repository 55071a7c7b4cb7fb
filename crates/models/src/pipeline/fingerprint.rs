//! What a component is, in one number: two models whose numbers agree encode alike.

use sha2::{Digest, Sha256};
use tastemaker_store::checksum::hex;

use super::component::Stored;
use super::model::Model;
use crate::ModelError;
use crate::tokenizer::TokenizerFiles;

/// A SHA-256 that is being taken.
#[derive(Default)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Adds bytes, and how many there are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds names, types, shapes and values of tensors: in which files they lie does not matter.
    pub fn tensors(&mut self, stored: &Stored) {
        stored.each(|tensor| {
            self.bytes(tensor.name.as_bytes());
            self.bytes(format!("{} {:?}", tensor.dtype, tensor.shape).as_bytes());
            self.bytes(&tensor.bytes);
        });
    }

    /// Adds the files of a tokenizer.
    pub fn tokenizer(&mut self, files: &TokenizerFiles) -> Result<(), ModelError> {
        for name in files.present() {
            self.bytes(name.as_bytes());
            self.bytes(files.text(name)?.as_bytes());
        }
        Ok(())
    }

    /// 64 hexadecimal digits.
    pub fn finish(self) -> String {
        hex(&self.0.finalize())
    }

    fn network(&mut self, model: &Model, component: &str) -> Result<(), ModelError> {
        self.bytes(model.config(component).value()?.to_string().as_bytes());
        self.tensors(&model.stored(component)?);
        Ok(())
    }
}

impl Model {
    /// SHA-256 over the VAE's configuration and weights, hexadecimal.
    ///
    /// # Errors
    /// [`ModelError`] for files that are missing or malformed.
    pub fn vae_fingerprint(&self) -> Result<String, ModelError> {
        self.fingerprint("vae")
    }

    /// SHA-256 over configuration and weights of the network that predicts, hexadecimal.
    ///
    /// # Errors
    /// As [`Model::vae_fingerprint`].
    pub fn backbone_fingerprint(&self) -> Result<String, ModelError> {
        self.fingerprint(self.family().backbone())
    }

    /// SHA-256 over tokenizers, configurations and weights of all text encoders, and over how many chunks they encode, hexadecimal.
    ///
    /// # Errors
    /// As [`Model::vae_fingerprint`].
    pub fn text_fingerprint(&self) -> Result<String, ModelError> {
        let mut hash = Fingerprint::default();
        for (component, tokenizer) in self.text_parts() {
            hash.tokenizer(&self.tokenizer(tokenizer))?;
            hash.network(self, component)?;
        }
        // One chunk is no addition, so that what was made before there were chunks is found.
        if self.n_chunks > 1 {
            hash.bytes(format!("{} chunks", self.n_chunks).as_bytes());
        }
        Ok(hash.finish())
    }

    fn fingerprint(&self, component: &str) -> Result<String, ModelError> {
        let mut hash = Fingerprint::default();
        hash.network(self, component)?;
        Ok(hash.finish())
    }
}
