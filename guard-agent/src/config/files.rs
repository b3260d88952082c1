//! What the configuration points at on this host: key files and roots. Looked at by `load`, not by `parse`, because
//! the answer depends on the machine and on who asks.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::problem::{Problem, Severity};
use super::{Agent, Config, Login};
use crate::keys::KeySource;

/// Read by others: the daemon refuses to use such a key.
const OTHERS: u32 = 0o007;
/// Read by the group: allowed, for a deployment tool, but worth a look.
const GROUP: u32 = 0o070;

/// Looks at every file that the configuration names.
pub(super) fn inspect(config: &Config, file: &str) -> Vec<Problem> {
    let keys = config.providers.iter().flat_map(|provider| &provider.keys);
    let key_files = keys.filter_map(|key| match &key.source {
        KeySource::File(path) => key_file(path),
        KeySource::Env(_) | KeySource::Credential(_) => None,
    });
    let roots = config.providers.iter().flat_map(|provider| &provider.trust);
    let root_files = roots.filter(|path| !path.is_file()).map(|path| {
        let message = format!("the `trust` file {} cannot be read", path.display());
        (
            Severity::Warning,
            message,
            "put the PEM file there before the daemon starts".to_owned(),
        )
    });
    let without = config
        .providers
        .iter()
        .filter(|provider| provider.keys.is_empty());
    let keyless = without.filter_map(|provider| {
        let name = &provider.name;
        let uses = |agent: &&Arc<Agent>| agent.login == Login::Refuse && agent.providers.contains(name);
        let agent = &config.agents.iter().find(uses)?.name;
        Some((
            Severity::Warning,
            format!("agent {agent:?} may use {name:?}, which has no key: its calls there are refused"),
            format!(
                "[[provider]] name = {name:?}, keys = [{{ name = \"main\", from = \"file:/etc/guard/keys/{name}\" }}]"
            ),
        ))
    });
    key_files
        .chain(root_files)
        .chain(keyless)
        .map(|(severity, message, fix)| Problem {
            severity,
            file: file.to_owned(),
            line: 0,
            column: 0,
            message,
            fix,
        })
        .collect()
}

fn key_file(path: &Path) -> Option<(Severity, String, String)> {
    let shown = path.display();
    let Ok(meta) = std::fs::metadata(path) else {
        // Not an error: `check` is also run on machines, and by people, that must not see the keys.
        let message = format!("the key file {shown} does not exist or cannot be looked at by this user");
        return Some((
            Severity::Warning,
            message,
            format!("create it before the daemon starts, mode 0600: {shown}"),
        ));
    };
    let chmod = format!("chmod 0600 {shown}");
    if meta.mode() & OTHERS != 0 {
        return Some((
            Severity::Error,
            format!("the key file {shown} is open to every user"),
            chmod,
        ));
    }
    if meta.mode() & GROUP != 0 {
        return Some((
            Severity::Warning,
            format!("the key file {shown} is open to its group"),
            chmod,
        ));
    }
    None
}
