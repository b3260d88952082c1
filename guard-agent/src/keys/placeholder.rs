//! Placeholders: what an agent holds in place of a provider's key.
//!
//! A placeholder is a message authentication code over the agent's and the provider's name, shaped like the
//! provider's own keys, so that SDKs accept it. It is worth nothing anywhere else, it names its holder when it turns up
//! in the wrong place, and it stays the same over restarts, because the secret behind it is kept in the state directory.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use rand::TryRngCore;
use sha2::Sha256;
use zeroize::Zeroizing;

/// File in the state directory, mode 0600.
const FILE: &str = "placeholder.key";
/// Bytes of the secret: one SHA-256 output, the most that HMAC can use (RFC 2104 §3).
const SECRET_BYTES: usize = 32;
/// Bytes of the code that a placeholder carries: 192 bits can be neither guessed nor made to collide.
const CODE_BYTES: usize = 24;

const PREFIX: &str = "sk-guard-";
/// Anthropic's clients look for `sk-ant-`.
const PREFIX_ANTHROPIC: &str = "sk-ant-guard-";

/// Issues placeholders and recognises them. No `Debug`: it holds a secret.
#[derive(Clone)]
pub struct Placeholders {
    key: Zeroizing<[u8; SECRET_BYTES]>,
    /// By the code of the placeholder's text, so that a look-up's timing says nothing about any placeholder.
    issued: HashMap<[u8; SECRET_BYTES], Holder>,
}

/// To whom a placeholder was issued, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Agent.
    pub agent: Arc<str>,
    /// Provider.
    pub provider: Arc<str>,
}

/// What a presented credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// Nothing.
    Absent,
    /// The placeholder issued to this very agent for this very provider.
    Own,
    /// A placeholder that belongs somewhere else; the holder is unknown when its agent is no longer configured or the
    /// secret was changed.
    Foreign {
        /// To whom it was issued.
        holder: Option<Holder>,
    },
    /// Not a placeholder: as far as anyone can tell, a real credential.
    NotOurs,
}

/// Whether a text has the shape of a placeholder, genuine or not.
pub fn looks_issued(text: &str) -> bool {
    text.starts_with(PREFIX) || text.starts_with(PREFIX_ANTHROPIC)
}

impl Placeholders {
    /// Opens the secret in `state_dir`, or makes it on the first start.
    ///
    /// # Errors
    /// The file cannot be read or made, is open to other users, or is not one of ours.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(FILE);
        let key = match File::open(&path) {
            Ok(file) => read_key(file, &path)?,
            Err(why) if why.kind() == io::ErrorKind::NotFound => make_key(state_dir, &path)?,
            Err(why) => return Err(why),
        };
        Ok(Self {
            key,
            issued: HashMap::new(),
        })
    }

    /// The same secret, knowing whom to name when a placeholder turns up in the wrong place. Called at start and on
    /// every reload with all configured agents and providers.
    #[must_use]
    pub fn knowing<'n>(&self, agents: &[Arc<str>], providers: impl IntoIterator<Item = &'n str>) -> Self {
        let mut issued = HashMap::new();
        for provider in providers.into_iter().map(Arc::<str>::from) {
            for agent in agents {
                let text = self.issue(agent, &provider);
                let holder = Holder {
                    agent: agent.clone(),
                    provider: provider.clone(),
                };
                issued.insert(self.fingerprint(&text), holder);
            }
        }
        Self {
            key: self.key.clone(),
            issued,
        }
    }

    /// The placeholder of an agent for a provider.
    pub fn issue(&self, agent: &str, provider: &str) -> String {
        let code = self.code(b"issue", &[agent, provider]);
        let prefix = if provider == "anthropic" {
            PREFIX_ANTHROPIC
        } else {
            PREFIX
        };
        let kept = code.get(..CODE_BYTES).unwrap_or(&code);
        format!("{prefix}{}", hex::encode(kept))
    }

    /// What `presented` is in the hands of `agent` on the way to `provider`. Takes the same time whatever a guess has in
    /// common with a placeholder: codes of the texts are compared, not the texts.
    pub fn judge(&self, presented: &str, agent: &str, provider: &str) -> Presented {
        if presented.is_empty() {
            return Presented::Absent;
        }
        let found = self.fingerprint(presented);
        if found == self.fingerprint(&self.issue(agent, provider)) {
            return Presented::Own;
        }
        if looks_issued(presented) {
            let holder = self.issued.get(&found).cloned();
            return Presented::Foreign { holder };
        }
        Presented::NotOurs
    }

    fn fingerprint(&self, text: &str) -> [u8; SECRET_BYTES] {
        self.code(b"fingerprint", &[text])
    }

    /// HMAC-SHA256 over a purpose and parts, each with its length before it, so that no two inputs run together.
    fn code(&self, purpose: &[u8], parts: &[&str]) -> [u8; SECRET_BYTES] {
        // A key of any length is valid for HMAC; the block-sized constructor is the one that cannot fail.
        let mut block = Zeroizing::new([0_u8; 64]);
        for (to, from) in block.iter_mut().zip(self.key.iter()) {
            *to = *from;
        }
        let mut mac = <Hmac<Sha256> as hmac::digest::KeyInit>::new((&*block).into());
        mac.update(purpose);
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

fn invalid(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

fn read_key(file: File, path: &Path) -> io::Result<Zeroizing<[u8; SECRET_BYTES]>> {
    if file.metadata()?.mode() & 0o077 != 0 {
        return Err(invalid(
            path,
            "is open to other users; delete it (every agent then needs its new placeholder) and restart",
        ));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES + 1));
    file.take(SECRET_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let mut key = Zeroizing::new([0_u8; SECRET_BYTES]);
    if bytes.len() != SECRET_BYTES {
        return Err(invalid(
            path,
            "does not hold 32 bytes; delete it and restart to make a new one",
        ));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// Written beside and renamed, so that a crash leaves no half of a secret behind.
fn make_key(state_dir: &Path, path: &Path) -> io::Result<Zeroizing<[u8; SECRET_BYTES]>> {
    let mut key = Zeroizing::new([0_u8; SECRET_BYTES]);
    rand::rngs::OsRng
        .try_fill_bytes(key.as_mut_slice())
        .map_err(io::Error::other)?;
    let draft = state_dir.join(format!("{FILE}.new"));
    match std::fs::remove_file(&draft) {
        Ok(()) => {}
        Err(why) if why.kind() == io::ErrorKind::NotFound => {}
        Err(why) => return Err(why),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(key.as_slice())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    File::open(state_dir)?.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(dir: &Path) -> Placeholders {
        let agents = [Arc::from("coder"), Arc::from("reviewer")];
        Placeholders::open(dir)
            .unwrap()
            .knowing(&agents, ["openai", "anthropic"])
    }

    #[test]
    fn a_placeholder_has_the_provider_s_shape_and_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        let (openai, anthropic) = (first.issue("coder", "openai"), first.issue("coder", "anthropic"));
        assert!(
            openai.starts_with("sk-guard-") && openai.len() == 9 + 48,
            "{openai}"
        );
        assert!(anthropic.starts_with("sk-ant-guard-"), "{anthropic}");
        assert_eq!(open(dir.path()).issue("coder", "openai"), openai);
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let elsewhere = tempfile::tempdir().unwrap();
        assert_ne!(
            open(elsewhere.path()).issue("coder", "openai"),
            openai,
            "another host, another secret"
        );
    }

    #[test]
    fn judges_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let all = open(dir.path());
        let own = all.issue("coder", "openai");
        let judge = |text: &str| all.judge(text, "coder", "openai");
        assert_eq!(judge(""), Presented::Absent);
        assert_eq!(judge(&own), Presented::Own);
        assert_eq!(judge("sk-proj-abc"), Presented::NotOurs);
        assert_eq!(
            judge(&format!("{own} ")),
            Presented::Foreign { holder: None },
            "near is not the same"
        );
        assert_eq!(judge("sk-guard-made-up"), Presented::Foreign { holder: None });
        for (agent, provider) in [("reviewer", "openai"), ("coder", "anthropic")] {
            let holder = Holder {
                agent: agent.into(),
                provider: provider.into(),
            };
            let holder = Some(holder);
            assert_eq!(judge(&all.issue(agent, provider)), Presented::Foreign { holder });
        }
    }

    #[test]
    fn names_do_not_run_together() {
        let dir = tempfile::tempdir().unwrap();
        let all = open(dir.path());
        assert_ne!(all.issue("ab", "c"), all.issue("a", "bc"));
    }

    #[test]
    fn a_secret_that_others_can_read_or_that_is_cut_short_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let path = dir.path().join(FILE);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            Placeholders::open(dir.path())
                .err()
                .unwrap()
                .to_string()
                .contains("open to other users")
        );
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, b"short").unwrap();
        assert!(
            Placeholders::open(dir.path())
                .err()
                .unwrap()
                .to_string()
                .contains("32 bytes")
        );
    }
}
