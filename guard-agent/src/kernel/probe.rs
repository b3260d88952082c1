//! What this kernel offers of what Guard needs, found by asking it, never by its version: distributions backport.
//!
//! In: where the programs would be attached and pinned. Out: one finding for each need, with what is lost without
//! it. On failure: a question that the kernel does not answer is `Unknown`, and unknown is not enforced.
//!
//! Asking attaches nothing and leaves nothing: programs and maps that are loaded here are gone when this returns.

mod features;

use std::{fmt, path::Path};

use super::{KernelError, cgroup, load, sys};

/// What the kernel answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// It could not be asked; why.
    Unknown(String),
}

/// One need of Guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was asked for.
    pub feature: &'static str,
    /// What the kernel answered.
    pub answer: Answer,
    /// The first kernel of kernel.org that has it, if it is a matter of the kernel's age.
    pub since: Option<&'static str>,
    /// What Guard cannot do without it.
    pub lost: &'static str,
    /// What to do about it, or the kernel's own words.
    pub fix: String,
    /// Whether the daemon does not start without it.
    pub required: bool,
}

impl Finding {
    /// Whether it was seen to be there.
    #[must_use]
    pub fn present(&self) -> bool {
        self.answer == Answer::Present
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.feature)?;
        if let Some(since) = self.since {
            write!(f, " (Linux {since})")?;
        }
        Ok(())
    }
}

/// Asks for everything. All present means that the programs load here and that there is a place for them; that
/// they stay attached is watched by the daemon itself.
#[must_use]
pub fn probe(cgroup_root: &Path, bpffs: &Path) -> Vec<Finding> {
    let mut findings = features::ask();
    findings.push(cgroup2(cgroup_root));
    findings.push(bpf_fs(bpffs));
    findings.push(programs());
    findings.push(family());
    findings.push(edge());
    findings.push(names());
    findings
}

/// The release of the running kernel, as `uname -r` says it.
#[must_use]
pub fn release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_unreadable| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// A refusal of the kernel, with what the kernel lacks if that can be told.
pub(super) fn explain(error: KernelError) -> KernelError {
    if !matches!(error, KernelError::Load { .. } | KernelError::Attach { .. }) {
        return error;
    }
    unable(&features::ask(), error)
}

fn unable(findings: &[Finding], error: KernelError) -> KernelError {
    let missing: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.answer == Answer::Absent)
        .collect();
    if missing.is_empty() {
        return error;
    }
    let named: Vec<String> = missing.iter().map(ToString::to_string).collect();
    KernelError::Unable {
        release: release(),
        missing: named.join(", "),
        source: Box::new(error),
    }
}

fn cgroup2(root: &Path) -> Finding {
    let opened = cgroup::id_of(root).and_then(|id| cgroup::path_of(id, root));
    let (answer, fix) = match opened {
        _ if !cgroup::is_cgroup2(root) => (
            Answer::Absent,
            format!(
                "{} is not one: set host.cgroup_root to where cgroup2 is mounted",
                root.display()
            ),
        ),
        Ok(_) => (Answer::Present, root.display().to_string()),
        Err(error) => (Answer::Unknown(error.to_string()), "run this as root".to_owned()),
    };
    Finding {
        feature: "cgroup hierarchy of version 2, opened by id",
        answer,
        since: Some("5.5"),
        lost: "agents are cgroups: nobody can be governed or recognised",
        fix,
        required: true,
    }
}

/// The directory need not be there yet; the file system must.
fn bpf_fs(directory: &Path) -> Finding {
    let existing = directory.ancestors().find(|at| at.exists()).unwrap_or(directory);
    let (answer, fix) = match sys::filesystem(existing) {
        Ok(load::BPF_FS_MAGIC) => (Answer::Present, directory.display().to_string()),
        Ok(_) => (
            Answer::Absent,
            format!(
                "{} is on another: mount -t bpf bpf /sys/fs/bpf, or set host.bpffs",
                directory.display()
            ),
        ),
        Err(error) => (Answer::Unknown(error.to_string()), "run this as root".to_owned()),
    };
    Finding {
        feature: "bpf file system for the pins",
        answer,
        since: None,
        lost: "enforcement would end with the daemon",
        fix,
        required: true,
    }
}

/// The proof: the programs themselves, as this kernel's verifier sees them.
fn programs() -> Finding {
    let (answer, fix) = match load::rehearse() {
        Ok(count) => (
            Answer::Present,
            format!("{count} programs were loaded and let go"),
        ),
        Err(error) => (Answer::Absent, error.to_string()),
    };
    Finding {
        feature: "Guard's own programs",
        answer,
        since: None,
        lost: "everything: the daemon does not start",
        fix,
        required: true,
    }
}

/// Every kernel of today's distributions for servers has it; Guard does not stand or fall with it.
fn family() -> Finding {
    let (answer, fix) = match load::rehearse_family() {
        Ok(()) => (Answer::Present, "tried out".to_owned()),
        Err(error) => (
            Answer::Absent,
            format!("take CAP_NET_RAW from agents, and give units RestrictAddressFamilies= ({error})"),
        ),
    };
    Finding {
        feature: "programs in front of socket()",
        answer,
        since: Some("5.7"),
        lost: "packet sockets (with CAP_NET_RAW), AF_VSOCK and other families are not refused to agents",
        fix,
        required: false,
    }
}

/// It stands in for the programs in front of `socket()` where a container has a network namespace of its own.
fn edge() -> Finding {
    let (answer, fix) = match sys::tcx::is_known() {
        Ok(true) => (Answer::Present, "asked".to_owned()),
        Ok(false) => (
            Answer::Absent,
            "take CAP_NET_RAW from agents, unless programs in front of socket() are there".to_owned(),
        ),
        Err(error) => (Answer::Unknown(error.to_string()), "run this as root".to_owned()),
    };
    Finding {
        feature: "programs on network devices, by links",
        answer,
        since: Some("6.6"),
        lost: "frames of packet sockets are not dropped at the host's end of containers' veth pairs",
        fix,
        required: false,
    }
}

/// Without it only the first moments of a unit that is matched by its own name are lost.
fn names() -> Finding {
    let (answer, fix) = match load::rehearse_names() {
        Ok(()) => (Answer::Present, "loaded and let go".to_owned()),
        Err(error) => (Answer::Absent, format!("match slices instead of units ({error})")),
    };
    Finding {
        feature: "a program that sees each new cgroup",
        answer,
        since: Some("5.5"),
        lost: "a unit that is matched by its own name is governed some milliseconds after it starts",
        fix,
        required: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(feature: &'static str, answer: Answer, since: &'static str) -> Finding {
        Finding {
            feature,
            answer,
            since: Some(since),
            lost: "something",
            fix: String::new(),
            required: true,
        }
    }

    fn refused() -> KernelError {
        KernelError::Load {
            what: "fw_connect4".to_owned(),
            why: "unknown func bpf_set_retval#187".to_owned(),
        }
    }

    #[test]
    fn a_start_on_a_kernel_that_is_too_old_names_what_is_missing_and_the_oldest_that_has_it() {
        let findings = [
            finding("socket storage", Answer::Present, "5.2"),
            finding("own errors in connect hooks", Answer::Absent, "6.1"),
            finding("links", Answer::Unknown("EPERM".to_owned()), "5.7"),
        ];
        let said = unable(&findings, refused()).to_string();
        let release = release();
        assert_eq!(
            said,
            format!(
                "this kernel ({release}) cannot enforce: it lacks own errors in connect hooks (Linux 6.1). Guard needs \
                 Linux 6.1 or a kernel with these features; `guard-agent doctor` has the details"
            )
        );
    }

    #[test]
    fn a_refusal_that_no_feature_explains_keeps_the_kernels_own_words() {
        let error = unable(&[finding("socket storage", Answer::Present, "5.2")], refused());
        assert!(error.to_string().contains("unknown func"), "{error}");
        let elsewhere = explain(KernelError::Missing("CFG"));
        assert!(matches!(elsewhere, KernelError::Missing("CFG")), "{elsewhere}");
    }

    #[test]
    fn a_place_that_cannot_be_used_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(cgroup2(directory.path()).answer, Answer::Absent);
        assert_eq!(bpf_fs(&directory.path().join("not/yet")).answer, Answer::Absent);
    }
}
