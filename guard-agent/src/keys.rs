//! Secrets and where they come from.

use std::path::PathBuf;

use zeroize::Zeroizing;

pub mod environment;
pub mod placeholder;
pub mod sigv4;
pub mod vault;

/// A secret. It has no `Debug`, no `Display` and no `Serialize`, so it can't reach a log, a metric or an error by
/// accident; memory is cleared when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret, without the white space around it.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    /// The secret itself; called where it is put on the wire or compared, nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Where a key is read from (`from = "file:…"`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `file:/etc/guard/keys/openai`
    File(PathBuf),
    /// `env:NAME`, of the daemon
    Env(String),
    /// `credential:NAME`, a systemd credential (`$CREDENTIALS_DIRECTORY/NAME`)
    Credential(String),
}
