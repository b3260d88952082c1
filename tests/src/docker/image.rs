//! The image: a static busybox and empty places. Everything else (`/usr`, the SDKs) is the machine's own, shown
//! read-only to each container, so that the very clients of the other suites run there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::link;
use crate::process::Spawn;

/// Where Debian's busybox-static puts it.
const BUSYBOX: &str = "/usr/bin/busybox";
/// Programs that tests use by their bare names.
const APPLETS: [&str; 6] = ["sh", "cat", "echo", "nc", "sleep", "true"];

/// Makes the archive for `docker import`.
pub(super) fn archive(directory: &Path) -> Result<PathBuf> {
    let tree = directory.join("image");
    for name in ["bin", "usr", "etc", "tmp", "root", "proc", "dev", "sys"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::copy(BUSYBOX, tree.join("bin/busybox")).context("apt-get install busybox-static")?;
    for applet in APPLETS {
        link(&tree, &format!("bin/{applet}"), "busybox")?;
    }
    for name in ["lib", "lib64"] {
        link(&tree, name, &format!("usr/{name}"))?;
    }
    let archive = directory.join("image.tar");
    Spawn::new("tar")
        .arg("-C")
        .arg(&tree)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .run()?
        .ok()?;
    Ok(archive)
}

/// Where the Python of a virtual environment really lives, unless that is below `/usr` anyway.
pub(super) fn python_home(python: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(python).ok()?;
    let home = real.parent()?.parent()?;
    (!home.starts_with("/usr")).then(|| home.to_owned())
}
