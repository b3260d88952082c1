//! The root file system of the small machine: busybox, the suites, the daemon, iproute2 and Python.
//!
//! In: an unpacked kernel and what was compiled here. Out: an initramfs. On failure: the file that is lacking.
//! Programs stand where they stand on this machine, so that their own paths and libraries hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::{Suites, image::Image, modules, newc::Archive};
use crate::setup::output;

/// The machine's first process.
const INIT: &str = include_str!("init.sh");

/// Parts of Python's library that no client of a suite uses, most of its size.
const NOT_PYTHON: [&str; 9] = [
    "config-",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tkinter",
];

/// Writes the initramfs.
pub(super) fn build(image: &Image, suites: &Suites, to: &Path) -> Result<()> {
    let mut archive = Archive::create(to)?;
    let mut programs = BTreeSet::new();
    for directory in ["/proc", "/sys", "/dev", "/tmp", "/run", "/root", "/etc"] {
        archive.directory(Path::new(directory))?;
    }
    // The kernel opens it for the first process, before anything is mounted.
    archive.device(Path::new("/dev/console"), 5, 1)?;
    archive.file(Path::new("/init"), 0o755, INIT.as_bytes())?;
    archive.file(
        Path::new("/etc/passwd"),
        0o644,
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    archive.file(
        Path::new("/etc/hosts"),
        0o644,
        b"127.0.0.1 localhost\n::1 localhost\n",
    )?;

    let busybox = find("busybox")?;
    archive.copy(&busybox, Path::new("/bin/busybox"))?;
    archive.link(Path::new("/bin/sh"), Path::new("busybox"))?;
    programs.insert(busybox);

    let ip = fs::canonicalize(find("ip")?)?;
    archive.copy(&ip, Path::new("/usr/sbin/ip"))?;
    programs.insert(ip);

    python(&mut archive, &mut programs)?;
    for (name, executable) in &suites.suites {
        stripped(&mut archive, executable, &Path::new("/suites").join(name), to)?;
        programs.insert(executable.clone());
    }
    stripped(
        &mut archive,
        &suites.agent,
        Path::new("/usr/sbin/guard-agent"),
        to,
    )?;
    programs.insert(suites.agent.clone());

    for library in libraries(&programs)? {
        archive.copy(&library, &library)?;
    }
    for (number, (name, bytes)) in modules::collect(&image.modules)?.iter().enumerate() {
        // The number keeps the order for a shell's glob.
        archive.file(
            Path::new(&format!("/modules/{number:02}-{name}.ko")),
            0o644,
            bytes,
        )?;
    }
    archive.finish()
}

/// Debug information is nine tenths of a test binary, and all of it would have to be read at boot.
fn stripped(archive: &mut Archive, executable: &Path, path: &Path, beside: &Path) -> Result<()> {
    let small = beside.with_extension("stripped");
    let status = Command::new("strip")
        .arg("-o")
        .arg(&small)
        .arg(executable)
        .status()?;
    ensure!(status.success(), "strip {}: {status}", executable.display());
    archive.copy(&small, path)?;
    fs::remove_file(&small)?;
    Ok(())
}

/// The suites' clients are Python programs.
fn python(archive: &mut Archive, programs: &mut BTreeSet<PathBuf>) -> Result<()> {
    // The system's own before one that a user's tools put into the path, which may be a script.
    let own = Path::new("/usr/bin/python3");
    let python = if own.exists() {
        own.to_owned()
    } else {
        find("python3")?
    };
    let question = "import os, sys, sysconfig\n\
                    print(os.path.realpath(sys.executable))\n\
                    print(os.path.realpath(sysconfig.get_path('stdlib')))";
    let answer = output(&python, &["-c", question]).context("python3 does not say where it is")?;
    let mut lines = answer.lines().map(PathBuf::from);
    let (Some(executable), Some(library)) = (lines.next(), lines.next()) else {
        bail!("python3 does not say where it is");
    };
    archive.copy(&executable, &executable)?;
    if executable != own {
        archive.link(own, &executable)?;
    }
    archive.tree(&library, &|name| {
        NOT_PYTHON
            .iter()
            .any(|skipped| name == *skipped || (skipped.ends_with('-') && name.starts_with(skipped)))
    })?;
    let extensions = library.join("lib-dynload");
    for entry in fs::read_dir(&extensions).into_iter().flatten().flatten() {
        let name = entry.file_name();
        // The windows of Tk are on no server.
        if !name.to_string_lossy().starts_with("_tkinter") {
            programs.insert(entry.path());
        }
    }
    programs.insert(executable);
    Ok(())
}

fn find(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file());
    found.with_context(|| format!("no {program} in PATH"))
}

/// Every shared library of these programs, where the loader looks for it.
fn libraries(programs: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for program in programs {
        // A static program has none; ldd says so with an exit code of 1.
        let said = Command::new("ldd")
            .arg(program)
            .output()
            .context("starting ldd")?;
        for line in String::from_utf8_lossy(&said.stdout).lines() {
            ensure!(
                !line.contains("not found"),
                "{} lacks a library: {line}",
                program.display()
            );
            found.extend(
                line.split_whitespace()
                    .filter(|word| word.starts_with('/'))
                    .map(PathBuf::from),
            );
        }
    }
    Ok(found)
}
