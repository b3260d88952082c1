//! `cargo xtask test --kernels`: the kernel suites on the oldest and the newest kernel that we promise.
//!
//! In: the suites `tests/tests/kernel*.rs`, compiled here. Out: each of them run as root in a small machine, under
//! each kernel of [`SERIES`], with the real programs. On failure: the kernel, the suite and its whole output in a
//! log file; a machine that stays silent or never says that it has finished has failed.
//!
//! The kernels are Debian's, unpacked below the target directory; nothing of this machine's own kernel is touched.
//! The machine is emulated (QEMU without KVM), so this works inside virtual machines, at about a tenth of the speed.

mod image;
mod machine;
mod modules;
mod newc;
mod root;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::setup::{self, State, Step, on_path};

/// The oldest kernel that `docs/kernels.md` supports, and the newest one that Debian 12 has.
pub(crate) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// What only this chore needs.
const STEPS: &[Step] = &[
    Step {
        name: "machine emulator",
        why: "boots other kernels, without KVM",
        check: || tool("qemu-system-x86_64"),
        install: || setup::apt_install(&["qemu-system-x86"]),
    },
    Step {
        name: "static busybox",
        why: "the first process and the commands of the small machine",
        check: || tool("busybox"),
        install: || setup::apt_install(&["busybox-static"]),
    },
    Step {
        name: "unpackers",
        why: "Debian's packages and their compressed modules are unpacked, the suites are stripped",
        check: || {
            for name in ["dpkg", "xz", "strip"] {
                if let State::Missing(lack) = tool(name)? {
                    return Ok(State::Missing(lack));
                }
            }
            Ok(State::Present("dpkg, xz, strip".to_owned()))
        },
        install: || setup::apt_install(&["xz-utils", "binutils"]),
    },
];

fn tool(name: &str) -> Result<State> {
    Ok(if on_path(name) {
        State::Present(name.to_owned())
    } else {
        State::Missing(format!("no {name}"))
    })
}

/// Runs every kernel suite under the kernels of these series, under all of [`SERIES`] if none is named.
///
/// # Errors
/// Something cannot be prepared, or a suite fails under a kernel; all kernels are tried first.
pub(crate) fn run(wanted: &[String]) -> Result<()> {
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "the kernels of this chore are for x86_64, this machine is {}",
        std::env::consts::ARCH
    );
    setup::perform(STEPS, false)?;
    let suites = build()?;
    let place = target().join("kernels");
    std::fs::create_dir_all(&place)?;
    let mut failed = Vec::new();
    for series in SERIES {
        if !wanted.is_empty() && !wanted.iter().any(|named| named == series) {
            continue;
        }
        let image = image::fetch(series, &place).with_context(|| format!("fetching Linux {series}"))?;
        say(&format!("Linux {}: building its machine", image.release))?;
        let initramfs = place.join(format!("{}.cpio", image.release));
        root::build(&image, &suites, &initramfs).context("building the initramfs")?;
        let started = Instant::now();
        let log = place.join(format!("{}.log", image.release));
        match machine::boot(&image, &initramfs, &log) {
            Ok(report) => say(&format!(
                "Linux {}: {report}, in {} s",
                image.release,
                started.elapsed().as_secs()
            ))?,
            Err(error) => {
                say(&format!("Linux {}: FAILED: {error:#}", image.release))?;
                say(&format!("  everything that the machine said: {}", log.display()))?;
                failed.push(image.release);
            }
        }
    }
    if !failed.is_empty() {
        bail!("the kernel suites fail on Linux {}", failed.join(", "));
    }
    Ok(())
}

/// What goes into the machine from this build.
pub(super) struct Suites {
    /// Name and executable of each suite.
    suites: Vec<(String, PathBuf)>,
    /// The program under test.
    agent: PathBuf,
}

/// Compiles the daemon and every suite whose name begins with `kernel`.
fn build() -> Result<Suites> {
    let directory = workspace().join("tests/tests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if let (Some(stem), Some("rs")) = (path.file_stem(), path.extension().and_then(|end| end.to_str()))
            && let Some(name) = stem.to_str().filter(|name| name.starts_with("kernel"))
        {
            names.push(name.to_owned());
        }
    }
    ensure!(!names.is_empty(), "no kernel suite in {}", directory.display());
    names.sort();
    let mut wanted = vec!["--package", "guard-tests"];
    for name in &names {
        wanted.extend(["--test", name]);
    }
    let suites = compile("test", &[wanted.as_slice(), &["--no-run"]].concat(), "test")?;
    let agent = compile(
        "build",
        &["--package", "guard-agent", "--bin", "guard-agent"],
        "bin",
    )?;
    ensure!(
        suites.len() == names.len(),
        "cargo built {} of {names:?}",
        suites.len()
    );
    let agent = agent.into_iter().next().context("cargo built no guard-agent")?.1;
    Ok(Suites { suites, agent })
}

/// Runs cargo and gives the name and the path of each executable of this kind that it built or found up to date.
fn compile(command: &str, arguments: &[&str], kind: &str) -> Result<Vec<(String, PathBuf)>> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    cargo
        .arg(command)
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stderr(std::process::Stdio::inherit());
    let output = cargo.output().context("starting cargo")?;
    ensure!(output.status.success(), "{cargo:?}: {}", output.status);
    let mut built = Vec::new();
    for line in output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let message: serde_json::Value = serde_json::from_slice(line).context("cargo's messages")?;
        // Beside a suite, cargo builds the programs of its package.
        let kinds = message["target"]["kind"].as_array();
        if kinds.is_some_and(|kinds| kinds.iter().any(|found| found == kind))
            && let (Some(executable), Some(name)) =
                (message["executable"].as_str(), message["target"]["name"].as_str())
        {
            built.push((name.to_owned(), PathBuf::from(executable)));
        }
    }
    Ok(built)
}

fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

pub(crate) fn target() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    workspace().join(named.unwrap_or_else(|| "target".into()))
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}
