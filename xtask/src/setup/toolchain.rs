//! A compiler that can build core for BPF: nightly with rust-src where that can be had, else Debian's own
//! compiler with its library source, linked into rustup under the name that the build looks for first.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};

use super::{State, apt_install, execute, output};

/// The name under which `guard-agent/build.rs` looks first.
const LINKED: &str = "guard-ebpf";
/// Debian's compiler, package manager, library source and linter; `-web` because its browsers need a recent one.
const DEBIAN: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];

/// A usable tool chain.
pub(super) struct Toolchain {
    /// For `rustup run`.
    pub(super) name: &'static str,
    /// The major version of its LLVM.
    pub(super) llvm: u32,
    version: String,
}

/// The one that the build will take.
pub(super) fn find() -> Option<Toolchain> {
    [LINKED, "nightly"].into_iter().find_map(|name| {
        let sysroot = output("rustup", &["run", name, "rustc", "--print", "sysroot"])?;
        if !Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
        {
            return None;
        }
        let verbose = output("rustup", &["run", name, "rustc", "-vV"])?;
        Some(Toolchain {
            name,
            llvm: llvm(&verbose)?,
            version: verbose.lines().next()?.to_owned(),
        })
    })
}

pub(super) fn check() -> Result<State> {
    Ok(match find() {
        // The programs are linted for their own target, by their own compiler's linter.
        Some(found) if output("rustup", &["run", found.name, "cargo", "clippy", "--version"]).is_none() => {
            State::Missing(format!("tool chain {} has no clippy", found.name))
        }
        Some(found) => State::Present(format!("{} ({}, LLVM {})", found.name, found.version, found.llvm)),
        None => State::Missing("no tool chain has the source of core".into()),
    })
}

pub(super) fn install() -> Result<()> {
    let nightly = output("rustup", &["run", "nightly", "rustc", "-V"]).is_some();
    // Debian first where there is a choice: it has the LLVM for bpf-linker too, nightly's cannot be had.
    if debian_has_it() {
        apt_install(&DEBIAN)?;
        let verbose = output("/usr/bin/rustc", &["-vV"]).context("Debian's rustc does not run")?;
        let llvm = llvm(&verbose).context("Debian's rustc does not say its LLVM")?;
        apt_install(&[&format!("llvm-{llvm}-dev"), &format!("libpolly-{llvm}-dev")])?;
        return execute(Command::new("rustup").args(["toolchain", "link", LINKED, "/usr"]));
    }
    if nightly {
        let add = "component add rust-src clippy --toolchain nightly";
        return execute(Command::new("rustup").args(add.split(' ')));
    }
    let install = "toolchain install nightly --profile minimal --component rust-src --component clippy";
    if execute(Command::new("rustup").args(install.split(' '))).is_err() {
        bail!(
            "neither Debian's {} nor rustup's nightly with rust-src can be had here",
            DEBIAN.join(", ")
        );
    }
    Ok(())
}

fn debian_has_it() -> bool {
    // Prints nothing, successfully, for a package that it does not know.
    output("apt-cache", &["policy", DEBIAN[2]]).is_some_and(|known| known.contains("Candidate"))
}

fn llvm(verbose: &str) -> Option<u32> {
    let version = verbose
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_compiler_names_its_llvm() {
        let verbose = "rustc 1.96.0 (abc 2026-05-01)\nhost: x86_64\nrelease: 1.96.0\nLLVM version: 22.1.8";
        assert_eq!(super::llvm(verbose), Some(22));
        assert_eq!(super::llvm("rustc 1.96.0"), None);
    }
}
