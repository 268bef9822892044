//! What this host can open: everything, manifests and indexes alone, or nothing.

use std::sync::Arc;

use crate::codec::Identities;
use crate::config::{Config, EncryptionConfig};
use crate::error::Result;
use crate::repository::access;
use crate::repository::keys::is_encrypted;

/// Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    /// For data and WAL.
    pub(super) data: Option<Arc<Identities>>,
    /// For manifests and indexes: also this host's metadata key.
    pub(super) metadata: Option<Arc<Identities>>,
    pub(super) encrypted: bool,
}

impl Keys {
    /// An identity that is configured and not on this host is no fault: it should be elsewhere.
    pub fn load(config: &Config) -> Result<Self> {
        let identity = match &config.encryption {
            EncryptionConfig::Recipients { identity_file: Some(path), .. } => path.exists(),
            _ => false,
        };
        let data = if identity { access::identities(config)? } else { None };
        let own = access::KeyFiles::of(config).metadata_key();
        let own = if own.exists() { Some(Identities::load(&own)?) } else { None };
        let metadata = match (data.clone(), own) {
            (Some(given), Some(own)) => Some(given.and(&own)),
            (given, own) => given.or(own),
        };
        let encrypted = matches!(config.encryption, EncryptionConfig::Recipients { .. });
        Ok(Self { data: data.map(Arc::new), metadata: metadata.map(Arc::new), encrypted })
    }

    /// Whether an object of this key can be opened at all.
    pub(super) fn opens_data(&self, key: &str) -> bool {
        self.data.is_some() || !is_encrypted(key)
    }
    pub(super) fn opens_metadata(&self, key: &str) -> bool {
        self.metadata.is_some() || !is_encrypted(key)
    }
}
