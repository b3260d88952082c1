//! `cargo xtask test --systemd`: Guard's own unit, and agents that are units, under a real systemd.
//!
//! In: the suite `tests/tests/systemd.rs`. Out: it has run as root with a small Debian root, made once below the target
//! directory, that it boots in namespaces of its own. On failure: the suite's own words; a root that is only half made is
//! never used.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::kernels::target;
use crate::setup::{self, State, Step, execute, on_path};

/// What only this chore needs.
const STEPS: &[Step] = &[Step {
    name: "systemd machine",
    why: "makes a small Debian root, and boots it in namespaces",
    check: || {
        let lacking = ["debootstrap", "systemd-nspawn"]
            .into_iter()
            .find(|tool| !on_path(tool));
        Ok(match lacking {
            Some(tool) => State::Missing(format!("no {tool}")),
            None => State::Present("debootstrap, systemd-nspawn".to_owned()),
        })
    },
    install: || setup::apt_install(&["debootstrap", "systemd-container"]),
}];

/// What the root has beside Debian's smallest set.
const PACKAGES: &str = "--include=systemd,systemd-sysv,dbus,curl,ca-certificates,procps";

/// Runs the suite.
///
/// # Errors
/// The root cannot be made, or a test fails.
pub(crate) fn run() -> Result<()> {
    setup::perform(STEPS, false)?;
    let place = target().join("systemd");
    let (root, part) = (place.join("base"), place.join("base.part"));
    if !root.is_dir() {
        fs::create_dir_all(&place)?;
        if part.exists() {
            fs::remove_dir_all(&part).with_context(|| part.display().to_string())?;
        }
        let mut make = Command::new("debootstrap");
        make.args(["--variant=minbase", PACKAGES, "bookworm"]);
        execute(make.arg(&part))?;
        fs::rename(&part, &root)?;
    }
    execute(Command::new("cargo").args(["build", "--package", "guard-agent", "--bin", "guard-agent"]))?;
    let mut suite = Command::new("cargo");
    suite.args(["test", "--package", "guard-tests", "--test", "systemd", "--"]);
    execute(
        suite
            .args(["--ignored", "--test-threads=1"])
            .env("GUARD_SYSTEMD_ROOT", &root),
    )
}
