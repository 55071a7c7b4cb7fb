//! What a component is, in one number: two models whose numbers agree encode alike.

use sha2::{Digest, Sha256};
use tastemaker_store::checksum::hex;

use super::component::Stored;
use super::load::Model;
use crate::ModelError;

impl Model {
    /// SHA-256 over the VAE's configuration and weights, hexadecimal.
    ///
    /// # Errors
    /// [`ModelError`] for files that are missing or malformed.
    pub fn vae_fingerprint(&self) -> Result<String, ModelError> {
        let mut hash = Sha256::new();
        self.hash_network("vae", &mut hash)?;
        Ok(hex(&hash.finalize()))
    }

    /// SHA-256 over the UNet's configuration and weights, hexadecimal.
    ///
    /// # Errors
    /// As [`Model::vae_fingerprint`].
    pub fn unet_fingerprint(&self) -> Result<String, ModelError> {
        let mut hash = Sha256::new();
        self.hash_network("unet", &mut hash)?;
        Ok(hex(&hash.finalize()))
    }

    /// SHA-256 over tokenizers, configurations and weights of all text encoders, hexadecimal.
    ///
    /// # Errors
    /// As [`Model::vae_fingerprint`].
    pub fn text_fingerprint(&self) -> Result<String, ModelError> {
        let mut hash = Sha256::new();
        for (component, tokenizer) in self.family().text_components() {
            let files = self.tokenizer(tokenizer);
            for name in files.present() {
                hash_part(&mut hash, name.as_bytes());
                hash_part(&mut hash, files.text(name)?.as_bytes());
            }
            self.hash_network(component, &mut hash)?;
        }
        Ok(hex(&hash.finalize()))
    }

    /// Weights count by value: in which files they lie does not matter.
    fn hash_network(&self, component: &str, hash: &mut Sha256) -> Result<(), ModelError> {
        hash_part(hash, self.config(component).value()?.to_string().as_bytes());
        hash_stored(hash, &self.stored(component)?);
        Ok(())
    }
}

/// Adds names, types, shapes and values of tensors.
pub(crate) fn hash_stored(hash: &mut Sha256, stored: &Stored) {
    stored.each(|tensor| {
        hash_part(hash, tensor.name.as_bytes());
        hash_part(hash, format!("{} {:?}", tensor.dtype, tensor.shape).as_bytes());
        hash_part(hash, &tensor.bytes);
    });
}

/// Adds bytes, and how many there are.
pub(crate) fn hash_part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
