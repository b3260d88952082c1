//! The files that the worker may open: its own directory, and what the C library and TLS read (Landlock).

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

/// Readable by anybody, and needed: libraries, name resolution, root certificates, time zones. Whatever in them is not
/// for everybody stays closed by its mode.
const READ: [&str; 8] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/run/systemd/resolve",
    "/proc/self",
    "/proc/sys",
    "/sys/devices/system/cpu",
];
/// Devices: each with what may be done with it.
const DEVICES: [(&str, bool); 2] = [("/dev/urandom", false), ("/dev/null", true)];
/// The newest version of the interface whose rights are known here; an older kernel takes what it knows.
const KNOWN: ABI = ABI::V6;

pub(super) fn restrict(state_dir: &Path) -> anyhow::Result<()> {
    let all = AccessFs::from_all(KNOWN);
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?;
    for path in READ {
        // What is not there cannot be opened either way.
        if let Ok(file) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(file, read))?;
        }
    }
    for (path, written) in DEVICES {
        if let Ok(file) = PathFd::new(path) {
            let write = if written {
                AccessFs::WriteFile.into()
            } else {
                BitFlags::EMPTY
            };
            rules = rules.add_rule(PathBeneath::new(file, write | AccessFs::ReadFile))?;
        }
    }
    let own = all & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    rules = rules.add_rule(PathBeneath::new(PathFd::new(state_dir)?, own))?;
    let status = rules.restrict_self()?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => tracing::debug!("the file system is closed off"),
        RulesetStatus::PartiallyEnforced => {
            tracing::info!(
                "the file system is closed off as far as this kernel can (Landlock is older than 6.12's)"
            );
        }
        RulesetStatus::NotEnforced => {
            tracing::warn!(
                "this kernel has no Landlock: what the worker may open is held by file modes and its user alone"
            );
        }
    }
    Ok(())
}
