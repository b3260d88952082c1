//! Reads the real keys.
//!
//! In: the configured sources. Out: the secrets, by provider. On failure: every key that cannot be used, at once, and
//! no vault; on reload the old one stays.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::placeholder::looks_issued;
use super::{KeySource, Secret};
use crate::llm::provider::Provider;

/// Longest key, in bytes; the longest in use (signed tokens) have about 2 KiB.
const MAX_BYTES: u64 = 16 * 1024;
/// Permission bits of everybody who is neither owner nor group.
const OTHERS: u32 = 0o007;

/// The real keys, in memory. No `Debug`: see [`Secret`].
pub struct Vault {
    by_provider: HashMap<String, (String, Secret)>,
}

/// A key that cannot be used. Names the key and its source, never a part of it.
#[derive(Debug, thiserror::Error)]
#[error("key {key:?} of provider {provider:?}: {what}")]
pub struct BadKey {
    /// Provider.
    pub provider: String,
    /// Name of the key.
    pub key: String,
    /// What is wrong and what to do.
    pub what: String,
}

impl Vault {
    /// Reads every configured key, from files, the daemon's environment and systemd's credentials.
    ///
    /// # Errors
    /// Every key that is missing, open to other users, empty, or not one line of visible ASCII.
    pub fn read(providers: &[Arc<Provider>]) -> Result<Self, Vec<BadKey>> {
        Self::read_with(providers, &|name| std::env::var_os(name))
    }

    fn read_with(
        providers: &[Arc<Provider>],
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Vec<BadKey>> {
        let mut by_provider = HashMap::new();
        let mut bad = Vec::new();
        for provider in providers {
            for key in &provider.keys {
                match read(&key.source, env) {
                    // The first one is used; the others are read too, so that a bad spare key is known today.
                    Ok(secret) => {
                        by_provider
                            .entry(provider.name.clone())
                            .or_insert((key.name.clone(), secret));
                    }
                    Err(what) => bad.push(BadKey {
                        provider: provider.name.clone(),
                        key: key.name.clone(),
                        what,
                    }),
                }
            }
        }
        if bad.is_empty() {
            Ok(Self { by_provider })
        } else {
            Err(bad)
        }
    }

    /// These keys, each with its provider and its name, as [`Vault::all`] gave them.
    pub fn of(keys: impl Iterator<Item = (String, String, Secret)>) -> Self {
        Self {
            by_provider: keys
                .map(|(provider, name, secret)| (provider, (name, secret)))
                .collect(),
        }
    }

    /// Provider, name and secret of every key that is used.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str, &Secret)> {
        self.by_provider
            .iter()
            .map(|(provider, (name, secret))| (provider.as_str(), name.as_str(), secret))
    }

    /// Name and secret of the key that is used for a provider.
    pub fn key(&self, provider: &str) -> Option<(&str, &Secret)> {
        self.by_provider
            .get(provider)
            .map(|(name, secret)| (name.as_str(), secret))
    }
}

fn read(source: &KeySource, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Secret, String> {
    match source {
        KeySource::File(path) => from_file(path),
        KeySource::Env(name) => {
            let value = env(name)
                .ok_or_else(|| format!("the daemon's environment has no {name}: set it in the unit"))?;
            let text = Zeroizing::new(
                value
                    .into_string()
                    .map_err(|_not_utf8| format!("{name} is not text"))?,
            );
            checked(&text, name)
        }
        KeySource::Credential(name) => {
            let dir = env("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                format!("no credentials were passed: add LoadCredential={name}:/path to the unit")
            })?;
            from_file(&Path::new(&dir).join(name))
        }
    }
}

fn from_file(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let file = File::open(path).map_err(|why| format!("{shown} cannot be read: {why}"))?;
    // Asked of the open file, not of the path: it cannot be exchanged in between.
    let meta = file
        .metadata()
        .map_err(|why| format!("{shown} cannot be looked at: {why}"))?;
    if !meta.is_file() {
        return Err(format!("{shown} is not a regular file"));
    }
    if meta.mode() & OTHERS != 0 {
        return Err(format!(
            "{shown} is open to every user: chmod 0600 {shown}, and consider the key known"
        ));
    }
    if meta.len() > MAX_BYTES {
        return Err(format!("{shown} is larger than 16 KiB: this is not a key"));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|why| format!("{shown} cannot be read as text: {why}"))?;
    checked(&text, &shown.to_string())
}

/// A key goes into a header: one line of visible ASCII (RFC 9110 §5.5), and not empty.
fn checked(text: &str, source: &str) -> Result<Secret, String> {
    let key = text.trim();
    if key.is_empty() {
        return Err(format!("{source} is empty"));
    }
    if key.lines().count() > 1 {
        return Err(format!("{source} has more than one line: keep one key per file"));
    }
    if !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("{source} has a character that cannot be part of a key"));
    }
    if looks_issued(key) {
        return Err(format!(
            "{source} holds a placeholder that Guard issued: put the provider's real key there"
        ));
    }
    Ok(Secret::new(key))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::llm::DialectKind;
    use crate::llm::provider::{Auth, NamedKey};

    fn provider(sources: &[(&str, KeySource)]) -> Vec<Arc<Provider>> {
        let keys = sources.iter().map(|(name, source)| NamedKey {
            name: (*name).to_owned(),
            source: source.clone(),
        });
        vec![Arc::new(Provider {
            keys: keys.collect(),
            ..Provider::plain(
                "openai",
                &["api.openai.com"],
                DialectKind::OpenaiChat,
                Auth::Bearer,
            )
        })]
    }

    fn file(dir: &Path, text: &str, mode: u32) -> KeySource {
        let path = dir.join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        KeySource::File(path)
    }

    fn error(source: KeySource) -> String {
        let found = Vault::read_with(&provider(&[("a", source)]), &|name| {
            (name == "EMPTY").then(|| OsString::from("  "))
        });
        found.err().unwrap().remove(0).to_string()
    }

    #[test]
    fn reads_each_kind_of_source_without_the_newline() {
        let dir = tempfile::tempdir().unwrap();
        let env = |name: &str| match name {
            "OPENAI" => Some(OsString::from("sk-env")),
            "CREDENTIALS_DIRECTORY" => Some(dir.path().as_os_str().to_owned()),
            _ => None,
        };
        for (source, wanted) in [
            (file(dir.path(), "sk-file\n", 0o600), "sk-file"),
            (KeySource::Credential("key".into()), "sk-file"),
            (KeySource::Env("OPENAI".into()), "sk-env"),
        ] {
            let vault = Vault::read_with(&provider(&[("a", source)]), &env).unwrap_or_else(|_| panic!());
            let (name, secret) = vault.key("openai").unwrap();
            assert_eq!((name, secret.expose()), ("a", wanted));
            assert!(vault.key("anthropic").is_none());
        }
    }

    #[test]
    fn the_first_key_is_used_and_a_bad_spare_is_still_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = file(dir.path(), "sk-one", 0o600);
        let none = |_: &str| None;
        let both = provider(&[("one", good.clone()), ("two", KeySource::Env("NOPE".into()))]);
        let bad = Vault::read_with(&both, &none).err().unwrap();
        assert_eq!((bad.len(), bad[0].key.as_str()), (1, "two"));
        let both = provider(&[("one", good.clone()), ("two", good)]);
        assert_eq!(
            Vault::read_with(&both, &none)
                .unwrap_or_else(|_| panic!())
                .key("openai")
                .unwrap()
                .0,
            "one"
        );
    }

    #[test]
    fn what_is_not_a_key_is_refused_and_never_repeated() {
        let dir = tempfile::tempdir().unwrap();
        for (text, mode, message) in [
            ("sk-SECRET", 0o644, "open to every user"),
            ("", 0o600, "empty"),
            (" \n", 0o600, "empty"),
            ("sk-SECRET\nsk-SECRET\n", 0o600, "more than one line"),
            ("sk SECRET", 0o600, "cannot be part of a key"),
            ("sk-guard-SECRET", 0o600, "placeholder"),
            (&"SECRET".repeat(4000), 0o600, "larger than 16 KiB"),
        ] {
            let said = error(file(dir.path(), text, mode));
            assert!(said.contains(message), "{said}");
            assert!(!said.contains("SECRET"), "{said}");
        }
        assert!(error(KeySource::File(dir.path().to_owned())).contains("regular file"));
        assert!(error(KeySource::File("/nonexistent".into())).contains("cannot be read"));
        assert!(error(KeySource::Env("NOPE".into())).contains("no NOPE"));
        assert!(error(KeySource::Env("EMPTY".into())).contains("empty"));
        assert!(error(KeySource::Credential("x".into())).contains("LoadCredential=x"));
    }
}
