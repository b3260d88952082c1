//! The kernel's features, one line each: what is asked, since when it is there, what is lost without it.
//!
//! A helper is offered to some kinds of programs and not to others, so the pair is what is asked for. The verifier
//! answers: it reads a program of one call, and says whether it knows that call.

use std::os::unix::net::UnixStream;

use aya::{
    maps::MapType,
    programs::{ProgramError, ProgramType},
    sys::{BpfHelper, is_helper_supported, is_map_supported},
};

use super::{Answer, Finding};
use crate::kernel::{netns_cookie, sys};

struct Feature {
    name: &'static str,
    since: &'static str,
    lost: &'static str,
    question: Question,
}

enum Question {
    Map(MapType),
    Helper(ProgramType, BpfHelper),
    Links,
    NetnsCookie,
}

use Question::{Helper, Links, Map, NetnsCookie};

/// Everything that the programs and the daemon call, oldest first. Sources of the versions: `docs/kernels.md`.
const FEATURES: [Feature; 15] = [
    Feature {
        name: "socket storage",
        since: "5.2",
        lost: "who made a socket or a connection cannot be kept with it: no identity",
        question: Map(MapType::SkStorage),
    },
    Feature {
        name: "socket storage in connect hooks",
        since: "5.3",
        lost: "the record of a connection cannot be made: no identity",
        question: Helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_sk_storage_get),
    },
    Feature {
        name: "socket storage in socket operations",
        since: "5.3",
        lost: "the record of a connection does not reach the accepted socket: no identity",
        question: Helper(ProgramType::SockOps, BpfHelper::BPF_FUNC_sk_storage_get),
    },
    Feature {
        name: "socket storage in getsockopt hooks",
        since: "5.3",
        lost: "the daemon cannot read the record of an accepted connection: no identity",
        question: Helper(ProgramType::CgroupSockopt, BpfHelper::BPF_FUNC_sk_storage_get),
    },
    Feature {
        name: "caller's cgroup in connect hooks",
        since: "5.7",
        lost: "who connects cannot be told: nobody can be governed",
        question: Helper(
            ProgramType::CgroupSockAddr,
            BpfHelper::BPF_FUNC_get_current_ancestor_cgroup_id,
        ),
    },
    Feature {
        name: "caller's cgroup in socket hooks",
        since: "5.7",
        lost: "who makes a socket cannot be told: sockets made inside and used outside get around",
        question: Helper(
            ProgramType::CgroupSock,
            BpfHelper::BPF_FUNC_get_current_ancestor_cgroup_id,
        ),
    },
    Feature {
        name: "namespace cookie in connect hooks",
        since: "5.7",
        lost: "the listener of the caller's own network namespace cannot be found",
        question: Helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_netns_cookie),
    },
    Feature {
        name: "cgroup links that can be updated",
        since: "5.7",
        lost: "enforcement would end with the daemon, and an upgrade would leave a gap",
        question: Links,
    },
    Feature {
        name: "ring buffer",
        since: "5.8",
        lost: "refusals by the programs are not reported",
        question: Map(MapType::RingBuf),
    },
    Feature {
        name: "socket storage in socket hooks",
        since: "5.9",
        lost: "sockets made inside and used outside get around",
        question: Helper(ProgramType::CgroupSock, BpfHelper::BPF_FUNC_sk_storage_get),
    },
    Feature {
        name: "namespace cookie of a socket",
        since: "5.14",
        lost: "the daemon cannot tell the programs where its listeners are",
        question: NetnsCookie,
    },
    Feature {
        name: "namespace cookie in socket operations",
        since: "5.15",
        lost: "connections of two namespaces can be mixed up: no identity",
        question: Helper(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie),
    },
    Feature {
        name: "own errors in getsockopt hooks",
        since: "5.18",
        lost: "a connection without a record cannot be told from one whose record was not read",
        question: Helper(ProgramType::CgroupSockopt, BpfHelper::BPF_FUNC_set_retval),
    },
    Feature {
        name: "own errors in connect hooks",
        since: "6.1",
        lost: "refused clients would see EPERM, which some of them retry, instead of a refused connection",
        question: Helper(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval),
    },
    Feature {
        name: "own errors in socket hooks",
        since: "6.1",
        lost: "clients of Multipath TCP would fail instead of falling back to TCP",
        question: Helper(ProgramType::CgroupSock, BpfHelper::BPF_FUNC_set_retval),
    },
];

/// Asks for each feature. If this process may not ask at all, that is the one finding.
pub(super) fn ask() -> Vec<Finding> {
    if let Err(why) = may_ask() {
        return vec![why];
    }
    FEATURES
        .iter()
        .map(|feature| Finding {
            feature: feature.name,
            answer: answer(&feature.question),
            since: Some(feature.since),
            lost: feature.lost,
            fix: format!("Linux {} or later has it", feature.since),
            required: true,
        })
        .collect()
}

fn may_ask() -> Result<(), Finding> {
    let told = is_helper_supported(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_prandom_u32);
    let (answer, fix) = match told {
        Ok(true) => return Ok(()),
        Ok(false) => (
            Answer::Absent,
            "the kernel was built without CONFIG_BPF_SYSCALL or CONFIG_CGROUP_BPF".to_owned(),
        ),
        Err(error) => (
            Answer::Absent,
            format!(
                "run this as root, with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN ({})",
                words(&error)
            ),
        ),
    };
    Err(Finding {
        feature: "permission to load programs",
        answer,
        since: None,
        lost: "everything: the daemon does not start",
        fix,
        required: true,
    })
}

fn answer(question: &Question) -> Answer {
    match question {
        Map(kind) => known(is_map_supported(*kind).map_err(|error| error.io_error.to_string())),
        Helper(program, helper) => {
            known(is_helper_supported(*program, *helper).map_err(|error| words(&error)))
        }
        Links => known(sys::has_links().map_err(|error| error.to_string())),
        NetnsCookie => match UnixStream::pair().and_then(|(socket, _)| netns_cookie(socket)) {
            Ok(_) => Answer::Present,
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Answer::Absent,
            Err(error) => Answer::Unknown(error.to_string()),
        },
    }
}

fn known(told: Result<bool, String>) -> Answer {
    match told {
        Ok(true) => Answer::Present,
        Ok(false) => Answer::Absent,
        Err(why) => Answer::Unknown(why),
    }
}

fn words(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(call) => call.io_error.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(helper: BpfHelper) -> Answer {
        answer(&Helper(ProgramType::CgroupSockAddr, helper))
    }

    /// The answer "no" is real: this helper is only for programs that see packets.
    #[test]
    fn a_helper_that_is_not_offered_to_a_kind_of_program_is_absent() {
        if nix::unistd::geteuid().is_root() {
            assert_eq!(offered(BpfHelper::BPF_FUNC_sk_cgroup_id), Answer::Absent);
            assert_eq!(offered(BpfHelper::BPF_FUNC_get_netns_cookie), Answer::Present);
            assert_eq!(answer(&Links), Answer::Present);
        } else {
            assert!(matches!(
                offered(BpfHelper::BPF_FUNC_get_netns_cookie),
                Answer::Unknown(_)
            ));
            assert_eq!(ask().len(), 1);
        }
    }

    #[test]
    fn the_list_is_in_the_order_of_the_kernels_and_ends_at_the_oldest_that_has_all() {
        let number = |since: &str| {
            let (major, minor) = since.split_once('.').unwrap();
            (major.parse::<u32>().unwrap(), minor.parse::<u32>().unwrap())
        };
        let versions: Vec<_> = FEATURES.iter().map(|feature| number(feature.since)).collect();
        assert!(versions.is_sorted());
        assert_eq!(
            versions.last(),
            Some(&(6, 1)),
            "the minimum in KernelError and docs/kernels.md"
        );
    }
}
