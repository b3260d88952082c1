//! Loads the embedded programs over the pinned maps.
//!
//! In: the pin directory. Out: loaded programs (not yet attached) and typed maps. On failure: the kernel's
//! own words, cut to the lines that say why.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf},
    programs::{
        CgroupSkb, CgroupSock, CgroupSockAddr, CgroupSockopt, Program, ProgramError, RawTracePoint,
        SchedClassifier, SockOps,
    },
};
use guard_common::{
    ABI_VERSION,
    policy::{AgentEntry, Config, NetnsEntry},
};

use super::{KernelError, attach::PROGRAMS, edge, egress, family, names, sys};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/guard-ebpf"));

pub(super) const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;
/// Maps that outlive the daemon. Not EVENTS: a ring belongs to its reader.
const PINNED: [&str; 18] = [
    "CFG",
    "AGENTS",
    "PARENTS",
    "KNOWN",
    "NAMES",
    "HELD",
    "HELD_LEVELS",
    "LAYOUT",
    "NETNS",
    "DENY_PORTS",
    "RELAYS",
    "TAG",
    "CLIENT",
    "ACCEPTED",
    "INBOUND",
    "FLOWS",
    "QUERIES",
    "STATS",
];
/// Lines of the verifier's log that an error shows.
const LOG_LINES: usize = 12;

/// Where links and maps of this layout are pinned.
#[derive(Debug)]
pub(super) struct Pins {
    base: PathBuf,
    version: PathBuf,
}

impl Pins {
    /// Makes the directories, readable by root alone: whoever can open a pinned map can change policy.
    pub(super) fn prepare(base: &Path) -> Result<Self, KernelError> {
        let pins = Self {
            base: base.to_owned(),
            version: base.join(format!("v{ABI_VERSION}")),
        };
        for directory in [&pins.base, &pins.version, &pins.links(), &pins.maps()] {
            match fs::DirBuilder::new().mode(0o700).create(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(KernelError::path("cannot make the directory", directory)(error));
                }
                _ => {}
            }
        }
        if sys::filesystem(base).map_err(KernelError::path("cannot look at", base))? != BPF_FS_MAGIC {
            return Err(KernelError::NotBpffs {
                path: base.to_owned(),
            });
        }
        fs::set_permissions(base, fs::Permissions::from_mode(0o700))
            .map_err(KernelError::path("cannot restrict", base))?;
        Ok(pins)
    }

    pub(super) fn links(&self) -> PathBuf {
        self.version.join("links")
    }

    fn maps(&self) -> PathBuf {
        self.version.join("maps")
    }

    /// After an upgrade that changed the layout the old programs would still run beside ours.
    pub(super) fn sweep_other_versions(&self) {
        if let Err(error) = super::detach::sweep(&self.base, Some(&self.version)) {
            tracing::warn!(%error, "programs of another version are still attached; `guard-agent detach` removes them");
        }
    }
}

/// The maps that carry policy.
pub(super) struct PolicyMaps {
    pub(super) config: Array<MapData, Config>,
    pub(super) agents: HashMap<MapData, u64, AgentEntry>,
    pub(super) parents: HashMap<MapData, u64, u32>,
    pub(super) known: HashMap<MapData, u64, u32>,
    pub(super) netns: HashMap<MapData, u64, NetnsEntry>,
    pub(super) deny_ports: HashMap<MapData, u32, u32>,
}

/// Everything that a start takes out of the object.
pub(super) struct Loaded {
    pub(super) programs: Vec<(&'static str, OwnedFd)>,
    pub(super) egress: OwnedFd,
    pub(super) edge: OwnedFd,
    /// Not every kernel takes it.
    pub(super) family: Result<OwnedFd, KernelError>,
    /// Nor this one.
    pub(super) names: Result<OwnedFd, KernelError>,
    pub(super) name_maps: names::NameMaps,
    pub(super) policy: PolicyMaps,
    pub(super) relays: HashMap<MapData, u64, u32>,
    pub(super) stats: PerCpuArray<MapData, u64>,
    pub(super) events: RingBuf<MapData>,
}

/// Loads all programs.
pub(super) fn load(pins: &Pins) -> Result<Loaded, KernelError> {
    let maps = pins.maps();
    let mut loader = EbpfLoader::new();
    // The programs carry no relocations against the kernel's types; parsing those costs tens of ms.
    loader.btf(None);
    for name in PINNED {
        loader.map_pin_path(name, maps.join(name));
    }
    let mut object = loader
        .load(OBJECT)
        .map_err(|error| refused("the maps", &flatten(&error)))?;
    let family = family::load(OBJECT, &object);
    let programs = PROGRAMS
        .iter()
        .map(|(name, _)| Ok((*name, program(&mut object, name)?)));
    let programs = programs.collect::<Result<_, KernelError>>()?;
    Ok(Loaded {
        programs,
        egress: program(&mut object, egress::PROGRAM)?,
        edge: program(&mut object, edge::PROGRAM)?,
        family,
        names: program(&mut object, names::PROGRAM),
        name_maps: names::NameMaps {
            names: map(&mut object, "NAMES")?,
            held: map(&mut object, "HELD")?,
            layout: map(&mut object, "LAYOUT")?,
        },
        policy: PolicyMaps {
            config: map(&mut object, "CFG")?,
            agents: map(&mut object, "AGENTS")?,
            parents: map(&mut object, "PARENTS")?,
            known: map(&mut object, "KNOWN")?,
            netns: map(&mut object, "NETNS")?,
            deny_ports: map(&mut object, "DENY_PORTS")?,
        },
        relays: map(&mut object, "RELAYS")?,
        stats: map(&mut object, "STATS")?,
        events: map(&mut object, "EVENTS")?,
    })
}

/// Loads every program that Guard cannot do without over maps of their own, and lets them go: says how many this kernel
/// takes.
pub(super) fn rehearse() -> Result<usize, KernelError> {
    let mut object = EbpfLoader::new()
        .btf(None)
        .load(OBJECT)
        .map_err(|error| refused("the maps", &flatten(&error)))?;
    let mut count = 0;
    for (name, program) in object
        .programs_mut()
        .filter(|(name, _)| ![family::PROGRAM, names::PROGRAM].contains(name))
    {
        load_program(program).map_err(|error| refused(name, &flatten(&error)))?;
        count += 1;
    }
    Ok(count)
}

/// The same for the one that Guard can do without.
pub(super) fn rehearse_family() -> Result<(), KernelError> {
    let object = EbpfLoader::new()
        .btf(None)
        .load(OBJECT)
        .map_err(|error| refused("the maps", &flatten(&error)))?;
    let program = family::load(OBJECT, &object)?;
    family::try_out(&program)
}

/// And for the other one.
pub(super) fn rehearse_names() -> Result<(), KernelError> {
    let mut object = EbpfLoader::new()
        .btf(None)
        .load(OBJECT)
        .map_err(|error| refused("the maps", &flatten(&error)))?;
    program(&mut object, names::PROGRAM).map(drop)
}

fn map<T: TryFrom<Map, Error: std::error::Error>>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<T, KernelError> {
    let map = object.take_map(name).ok_or(KernelError::Missing(name))?;
    T::try_from(map).map_err(|error| refused(name, &flatten(&error)))
}

fn program(object: &mut Ebpf, name: &'static str) -> Result<OwnedFd, KernelError> {
    let program = object.program_mut(name).ok_or(KernelError::Missing(name))?;
    load_program(program)
        .and_then(|()| Ok(program.fd()?.as_fd().try_clone_to_owned()?))
        .map_err(|error| refused(name, &flatten(&error)))
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(_) => <&mut CgroupSockAddr>::try_from(program)?.load(),
        Program::CgroupSkb(_) => <&mut CgroupSkb>::try_from(program)?.load(),
        Program::CgroupSock(_) => <&mut CgroupSock>::try_from(program)?.load(),
        Program::CgroupSockopt(_) => <&mut CgroupSockopt>::try_from(program)?.load(),
        Program::RawTracePoint(_) => <&mut RawTracePoint>::try_from(program)?.load(),
        Program::SchedClassifier(_) => <&mut SchedClassifier>::try_from(program)?.load(),
        Program::SockOps(_) => <&mut SockOps>::try_from(program)?.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

pub(super) fn refused(what: &str, why: &str) -> KernelError {
    KernelError::Load {
        what: what.to_owned(),
        why: last_lines(why),
    }
}

/// An error with its causes, each named once.
fn flatten(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The verifier explains itself in the last of some hundred lines.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.len().checked_sub(LOG_LINES) {
        None | Some(0) => lines.join("\n"),
        Some(cut) => format!(
            "{}\n… {cut} lines …\n{}",
            lines[0],
            lines[cut.max(1)..].join("\n")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::last_lines;

    #[test]
    fn a_long_verifier_log_keeps_its_first_and_last_lines() {
        let log = (0..300).map(|line| format!("line {line}\n")).collect::<String>();
        let cut = last_lines(&log);
        assert!(cut.starts_with("line 0\n") && cut.ends_with("line 299"), "{cut}");
        assert!(cut.lines().count() <= 14, "{cut}");
        assert_eq!(last_lines("one\n\ntwo\n"), "one\ntwo");
    }
}
