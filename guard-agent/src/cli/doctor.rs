//! `guard-agent doctor`

mod lookups;

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::output::print;
use super::{FAILED, OK};
use crate::kernel::probe::{self, Answer, Finding};

/// Says what this host can enforce.
///
/// It asks the kernel for each feature that Guard needs, loads Guard's programs and lets them go again. Nothing is
/// attached and nothing is changed. It names the services of this host that look names up for whoever asks them. It does
/// not look at the daemon, at container engines, at the trust in Guard's CA or for keys that lie around.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 this host can enforce; 1 it cannot, or that could not be found out.\n\n\
                        Examples:\n  sudo guard-agent doctor\n  \
                        sudo guard-agent doctor --json | jq '.kernel.findings[] | select(.present != true)'"
)]
pub(super) struct Doctor {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The report, as JSON.
#[derive(Serialize)]
struct Report<'a> {
    kernel: Kernel<'a>,
    lookups: Vec<LookUpLine<'a>>,
}

#[derive(Serialize)]
struct LookUpLine<'a> {
    service: &'a str,
    socket: &'a Path,
}

#[derive(Serialize)]
struct Kernel<'a> {
    release: &'a str,
    can_enforce: bool,
    findings: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    feature: &'a str,
    /// Null where the kernel could not be asked.
    present: Option<bool>,
    /// Whether the daemon does not start without it.
    required: bool,
    since: Option<&'a str>,
    lost: &'a str,
    detail: &'a str,
}

impl Doctor {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let host = super::host(config)?;
        let release = probe::release();
        let findings = probe::probe(&host.cgroup_root, &host.bpffs);
        let lookups = lookups::find(Path::new("/"));
        if self.json {
            print(&serde_json::to_string_pretty(&report(
                &release, &findings, &lookups,
            ))?)?;
        } else {
            print(&(text(&release, &findings) + &look_ups(&lookups)))?;
        }
        Ok(if can_enforce(&findings) { OK } else { FAILED })
    }
}

fn can_enforce(findings: &[Finding]) -> bool {
    !findings.is_empty()
        && findings
            .iter()
            .all(|finding| finding.present() || !finding.required)
}

fn report<'a>(release: &'a str, findings: &'a [Finding], lookups: &'a [lookups::LookUp]) -> Report<'a> {
    let line = |finding: &'a Finding| Line {
        feature: finding.feature,
        present: match finding.answer {
            Answer::Present => Some(true),
            Answer::Absent => Some(false),
            Answer::Unknown(_) => None,
        },
        required: finding.required,
        since: finding.since,
        lost: finding.lost,
        detail: match &finding.answer {
            Answer::Unknown(why) => why,
            _ => &finding.fix,
        },
    };
    Report {
        kernel: Kernel {
            release,
            can_enforce: can_enforce(findings),
            findings: findings.iter().map(line).collect(),
        },
        lookups: lookups
            .iter()
            .map(|found| LookUpLine {
                service: found.service,
                socket: &found.socket,
            })
            .collect(),
    }
}

/// Nothing where nobody does.
fn look_ups(found: &[lookups::LookUp]) -> String {
    if found.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "\nThese look names up for whoever asks, and Guard sees no question that goes to them:\n\n",
    );
    for one in found {
        let _written = writeln!(out, "  {:<28}{}", one.service, one.socket.display());
    }
    out.push_str(
        "\nAn agent's connections are judged all the same. To have its questions seen, too, hide the sockets from it:\n\
         InaccessiblePaths= in its unit; a container does not see them unless they are mounted into it.\n",
    );
    out
}

fn text(release: &str, findings: &[Finding]) -> String {
    let mut out = format!("Kernel {release}\n\n");
    for finding in findings {
        let word = match finding.answer {
            Answer::Present => "ok",
            Answer::Absent if finding.required => "missing",
            Answer::Absent => "without",
            Answer::Unknown(_) => "unknown",
        };
        // Writing to a String cannot fail.
        let _written = writeln!(out, "  {word:<9}{finding}");
        if !finding.present() {
            let _written = writeln!(out, "{:11}lost: {}", "", finding.lost);
            if let Answer::Unknown(why) = &finding.answer {
                let _written = writeln!(out, "{:11}why:  {why}", "");
            }
            let _written = writeln!(
                out,
                "{:11}fix:  {}",
                "",
                finding.fix.replace('\n', "\n                 ")
            );
        }
    }
    out.push_str(if can_enforce(findings) {
        "\nThis host can enforce. Whether it does, `guard-agent status` says.\n"
    } else {
        "\nThis host cannot enforce: the daemon will not start.\n"
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        let finding = |feature, answer, since| Finding {
            feature,
            answer,
            since,
            lost: "identity",
            fix: "a newer kernel".to_owned(),
            required: true,
        };
        vec![
            finding("socket storage", Answer::Present, Some("5.2")),
            finding("own errors", Answer::Absent, Some("6.1")),
            finding("pins", Answer::Unknown("EPERM".to_owned()), None),
        ]
    }

    #[test]
    fn what_is_missing_is_shown_with_what_is_lost_and_what_to_do() {
        assert_eq!(
            text("5.15.0", &findings()),
            "Kernel 5.15.0\n\
             \n  ok       socket storage (Linux 5.2)\
             \n  missing  own errors (Linux 6.1)\
             \n           lost: identity\
             \n           fix:  a newer kernel\
             \n  unknown  pins\
             \n           lost: identity\
             \n           why:  EPERM\
             \n           fix:  a newer kernel\
             \n\nThis host cannot enforce: the daemon will not start.\n"
        );
        assert!(text("6.1.0", &findings()[..1]).ends_with("`guard-agent status` says.\n"));
    }

    #[test]
    fn what_guard_can_do_without_is_said_and_keeps_nobody_from_enforcing() {
        let mut all = findings();
        all.truncate(2);
        all[1].required = false;
        assert!(can_enforce(&all));
        let said = text("6.1.0", &all);
        assert!(
            said.contains("\n  without  own errors (Linux 6.1)\n           lost: identity"),
            "{said}"
        );
        assert!(said.ends_with("`guard-agent status` says.\n"), "{said}");
    }

    #[test]
    fn services_that_look_names_up_are_named_with_what_to_do() {
        assert_eq!(look_ups(&[]), "");
        let socket = "/run/nscd/socket".into();
        let said = look_ups(&[lookups::LookUp {
            service: "nscd",
            socket,
        }]);
        assert!(
            said.contains("nscd") && said.contains("/run/nscd/socket"),
            "{said}"
        );
        assert!(said.contains("InaccessiblePaths="), "{said}");
    }

    #[test]
    fn unknown_is_not_enforced_and_null_in_json() {
        let all = findings();
        assert!(can_enforce(&all[..1]) && !can_enforce(&all[..2]) && !can_enforce(&all[2..]));
        assert!(!can_enforce(&[]), "nothing asked is nothing known");
        let json = serde_json::to_value(report("6.1.0", &all, &[])).unwrap();
        assert_eq!(json["kernel"]["can_enforce"], false);
        let present: Vec<_> = (0..3)
            .map(|at| json["kernel"]["findings"][at]["present"].clone())
            .collect();
        assert_eq!(present, [true.into(), false.into(), serde_json::Value::Null]);
        assert_eq!(json["kernel"]["findings"][2]["detail"], "EPERM");
    }
}
