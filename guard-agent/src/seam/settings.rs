//! What the worker needs to know and may not read itself: the configuration, the real keys, the roots that providers
//! are verified against.
//!
//! In: the configuration file, as the keeper read it. Out: the same at the worker's side, in memory only. On failure:
//! every key that cannot be used, at once.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Sealed;
use crate::config::{self, Config};
use crate::keys::Secret;
use crate::keys::vault::Vault;
use crate::llm::prices::store;
use crate::llm::provider::Provider;

/// Largest `trust` file in bytes; the roots of a whole system have a quarter of that.
const MOST_TRUST: u64 = 1024 * 1024;

/// The configuration in force, sealed.
#[derive(Debug)]
pub struct Settings(Sealed);

/// On its way. Serialised nowhere but into a sealed file in memory.
#[derive(Serialize, Deserialize)]
struct Wire {
    file: PathBuf,
    text: String,
    keys: Vec<Key>,
    trust: Vec<(PathBuf, String)>,
    price_overlay: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Key {
    provider: String,
    name: String,
    secret: zeroize::Zeroizing<String>,
}

/// What the worker reads. No `Debug`: it holds the keys.
pub struct Known {
    /// The configuration.
    pub config: Config,
    /// The keys.
    pub vault: Vault,
    /// The roots.
    pub trust: TrustFiles,
    /// The operator's price table.
    pub price_overlay: Option<String>,
}

/// The content of the files that `trust` names.
#[derive(Debug, Clone, Default)]
pub struct TrustFiles(HashMap<PathBuf, String>);

impl TrustFiles {
    /// Reads every file that these providers name.
    ///
    /// # Errors
    /// The first that cannot be read, is larger than 1 MiB or no text.
    pub fn of(providers: &[Arc<Provider>]) -> Result<Self, String> {
        let paths = providers.iter().flat_map(|provider| &provider.trust);
        let files = paths.map(|path| {
            let text = trusted(path).map_err(|why| format!("trust file {}: {why}", path.display()))?;
            Ok((path.clone(), text))
        });
        Ok(Self(files.collect::<Result<_, String>>()?))
    }

    /// The text of a file.
    ///
    /// # Errors
    /// It is none of those that were read.
    pub fn read(&self, path: &Path) -> io::Result<&str> {
        let text = self.0.get(path).map(String::as_str);
        text.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it was not read when Guard started"))
    }
}

impl Settings {
    /// Reads what the configuration points at. `text` is the file's.
    ///
    /// # Errors
    /// Every key and every `trust` file that cannot be used, one a line.
    pub fn read(file: &Path, text: &str, config: &Config) -> Result<Self, String> {
        let vault = Vault::read(&config.providers)
            .map_err(|bad| bad.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
        let keys = vault.all().map(|(provider, name, secret)| Key {
            provider: provider.to_owned(),
            name: name.to_owned(),
            secret: zeroize::Zeroizing::new(secret.expose().to_owned()),
        });
        let wire = Wire {
            file: file.to_owned(),
            text: text.to_owned(),
            keys: keys.collect(),
            trust: TrustFiles::of(&config.providers)?.0.into_iter().collect(),
            price_overlay: config
                .prices
                .overlay
                .as_deref()
                .map(store::overlay)
                .transpose()
                .map_err(|why| format!("{why:#}"))?,
        };
        let sealed =
            Sealed::write(&wire).map_err(|why| format!("the settings cannot be passed on: {why}"))?;
        Ok(Self(sealed))
    }

    /// To pass on.
    ///
    /// # Errors
    /// There are too many descriptors open.
    pub fn descriptor(&self) -> io::Result<std::os::fd::OwnedFd> {
        self.0.descriptor()
    }
}

impl Known {
    /// Reads what the keeper passed on.
    ///
    /// # Errors
    /// It is not what [`Settings`] wrote.
    pub fn read(descriptor: std::os::fd::OwnedFd) -> Result<Self, String> {
        let wire: Wire = Sealed::read(descriptor).map_err(|why| format!("the settings: {why}"))?;
        let config = config::parse(&wire.text, &wire.file.display().to_string()).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })?;
        let keys = wire
            .keys
            .into_iter()
            .map(|key| (key.provider, key.name, Secret::new(&key.secret)));
        Ok(Self {
            config,
            vault: Vault::of(keys),
            trust: TrustFiles(wire.trust.into_iter().collect()),
            price_overlay: wire.price_overlay,
        })
    }
}

fn trusted(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|why| why.to_string())?;
    file.take(MOST_TRUST + 1)
        .read_to_string(&mut text)
        .map_err(|why| why.to_string())?;
    if text.len() as u64 > MOST_TRUST {
        return Err("it is larger than 1 MiB".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_knows_what_the_keeper_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (key, root) = (dir.path().join("key"), dir.path().join("root.pem"));
        std::fs::write(&key, "sk-real\n").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&root, "a root").unwrap();
        let text = format!(
            "[[provider]]\nname = \"openai\"\nkeys = [{{ name = \"prod\", from = \"file:{}\" }}]\ntrust = [\"{}\"]\n",
            key.display(),
            root.display()
        );
        let config = config::parse(&text, "guard.toml").unwrap();
        let settings = Settings::read(Path::new("guard.toml"), &text, &config).unwrap();
        std::fs::remove_file(&key).unwrap();
        let known = Known::read(settings.descriptor().unwrap()).unwrap_or_else(|why| panic!("{why}"));
        let (name, secret) = known.vault.key("openai").unwrap();
        assert_eq!((name, secret.expose()), ("prod", "sk-real"));
        assert_eq!(known.trust.read(&root).unwrap(), "a root");
        known.trust.read(&key).unwrap_err();
        let said = Settings::read(Path::new("guard.toml"), &text, &config).unwrap_err();
        assert!(said.contains("cannot be read"), "{said}");
    }
}
