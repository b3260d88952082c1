//! Compiles the eBPF programs and puts the object where `kernel/load.rs` embeds it.
//!
//! In: `guard-ebpf`, and a tool chain that can build core for BPF: the one that `cargo xtask setup` links
//! (named `guard-ebpf`), or nightly with rust-src. Out: `$OUT_DIR/guard-ebpf`. On failure: one sentence
//! that says what to run.
//!
//! aya-build is not used: it reads `RUSTC_BOOTSTRAP` from this process's own environment, where a build
//! script cannot set it safely, and it would inherit the workspace's LTO, which bpf-linker does itself.
#![allow(
    clippy::print_stdout,
    reason = "a build script talks to cargo on its standard output"
)]

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The tool chain that `cargo xtask setup` links, looked at first because somebody asked for it.
const LINKED: &str = "guard-ebpf";
const CRATE: &str = "guard-ebpf";
const SETUP: &str = "the eBPF programs cannot be compiled here yet: run `cargo xtask setup` once";

fn main() {
    if let Err(sentence) = build() {
        // Enough to stop cargo; an exit code would add pages of script output around the sentence.
        println!("cargo::error={sentence}");
    }
}

fn build() -> Result<(), String> {
    let here = directory("CARGO_MANIFEST_DIR")?;
    let root = here.parent().ok_or("guard-agent has no parent directory")?;
    let object = directory("OUT_DIR")?.join(CRATE);
    println!("cargo::rerun-if-env-changed=GUARD_EBPF_OBJECT");
    for watched in [
        "guard-ebpf/src",
        "guard-ebpf/Cargo.toml",
        "guard-common/src",
        "guard-common/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let built = match env::var_os("GUARD_EBPF_OBJECT") {
        Some(prebuilt) => PathBuf::from(prebuilt),
        None => compile(root, &directory("OUT_DIR")?.join("bpf"))?,
    };
    std::fs::copy(&built, &object)
        .map_err(|error| format!("{} cannot be copied: {error}", built.display()))?;
    Ok(())
}

fn compile(root: &Path, target_dir: &Path) -> Result<PathBuf, String> {
    let toolchain = toolchain().ok_or_else(|| format!("{SETUP} (no tool chain with the source of core)"))?;
    if !runs(Command::new("bpf-linker").arg("--version")) {
        return Err(format!("{SETUP} (bpf-linker is missing or does not start)"));
    }
    let target = if env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() == Ok("big") {
        "bpfeb"
    } else {
        "bpfel"
    };
    let target = format!("{target}-unknown-none");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| error.to_string())?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ];

    let mut cargo = Command::new("rustup");
    cargo.args([
        "run",
        toolchain,
        "cargo",
        "build",
        "--release",
        "--locked",
        "--package",
        CRATE,
    ]);
    cargo
        .args(["-Zbuild-std=core", "--target", &target, "--target-dir"])
        .arg(target_dir);
    cargo.current_dir(root);
    // Debian's compiler is a stable one; this lets it build core. Nightly ignores it.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // bpf-linker optimises the whole program; the host's LTO setting would hand it half-linked code.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off");
    // What the outer cargo (or clippy) set for the host must not reach the inner one.
    for host_only in [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
        "RUSTUP_TOOLCHAIN",
        "CLIPPY_ARGS",
    ] {
        cargo.env_remove(host_only);
    }
    let output = cargo
        .output()
        .map_err(|error| format!("{SETUP} (rustup does not start: {error})"))?;
    if !output.status.success() {
        // The whole of it: these are compiler messages about our own code.
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning={line}");
        }
        return Err(format!(
            "the eBPF programs did not compile with tool chain {toolchain} (see above)"
        ));
    }
    Ok(target_dir.join(target).join("release").join(CRATE))
}

/// A tool chain whose sysroot has the source of core.
fn toolchain() -> Option<&'static str> {
    [LINKED, "nightly"].into_iter().find(|name| {
        let mut rustc = Command::new("rustup");
        rustc
            .args(["run", name, "rustc", "--print", "sysroot"])
            .env_remove("RUSTUP_TOOLCHAIN");
        rustc.stderr(Stdio::null()).output().is_ok_and(|output| {
            let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
            output.status.success() && sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
        })
    })
}

fn runs(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn directory(variable: &str) -> Result<PathBuf, String> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo did not set {variable}"))
}
