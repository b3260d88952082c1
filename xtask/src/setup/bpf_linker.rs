//! bpf-linker, built against the LLVM of the tool chain: it reads the bitcode that the compiler writes.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use super::{State, execute, output, toolchain};

/// Links against LLVM 21 to 23.
const VERSION: &str = "0.13.0";

pub(super) fn check() -> Result<State> {
    // Starting it also loads its LLVM: a linker whose library is gone is not there.
    Ok(match output("bpf-linker", &["--version"]) {
        Some(version) => State::Present(version),
        None => State::Missing("bpf-linker is not there or does not start".into()),
    })
}

pub(super) fn install() -> Result<()> {
    let llvm = toolchain::find().context("the eBPF tool chain comes first")?.llvm;
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if !prefix.join("bin/llvm-config").is_file() {
        bail!(
            "no LLVM {llvm} in {}: install its development files (Debian: llvm-{llvm}-dev, libpolly-{llvm}-dev)",
            prefix.display()
        );
    }
    let feature = format!("llvm-{llvm}");
    let mut cargo = Command::new("cargo");
    cargo.args([
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--force",
    ]);
    // This version finds its LLVM by LLVM_PREFIX; the variable of llvm-sys alone is not enough.
    cargo
        .args(["--no-default-features", "--features", &feature])
        .env("LLVM_PREFIX", &prefix);
    execute(&mut cargo)
}
