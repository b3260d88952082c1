//! The real clients: the vendors' own Python SDKs at pinned versions, in a virtual environment below the repository
//! that git does not see.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Spawn;

/// What is installed: the versions against which the suites were written.
const PACKAGES: [&str; 2] = ["openai==3.54.0", "anthropic==2.12.0"];

/// What the suite of formats needs beside that, in an environment of its own: these are large.
const FORMATS: [&str; 4] = [
    "openai==3.54.0",
    "google-genai==3.6.1",
    "cohere==7.3.1",
    "boto3==1.44.8",
];

/// What the suite of sockets needs: the SDK with its own choice of a WebSocket library, which offers compression.
const SOCKETS: [&str; 2] = ["openai==3.54.0", "websockets==17.4"];

/// The agent CLI that prefers a WebSocket.
const CODEX: &str = "@openai/codex@0.169.0";

/// The root of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A script of `tests/clients/`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// The Python that has the SDKs, made on first use.
///
/// # Errors
/// `python3` or its venv module is missing, or a package cannot be installed.
pub fn ensure() -> Result<PathBuf> {
    environment("venv", &PACKAGES)
}

/// The Python that has the SDKs of Google, Cohere and Amazon, made on first use.
///
/// # Errors
/// As [`ensure`].
pub fn formats() -> Result<PathBuf> {
    environment("venv-formats", &FORMATS)
}

/// The Python that has OpenAI's SDK and a WebSocket library, made on first use.
///
/// # Errors
/// As [`ensure`].
pub fn sockets() -> Result<PathBuf> {
    environment("venv-sockets", &SOCKETS)
}

/// The program of Codex, installed on first use.
///
/// # Errors
/// `npm` is missing, or the package cannot be installed.
pub fn codex() -> Result<PathBuf> {
    let lab = repository().join(".lab");
    fs::create_dir_all(&lab)?;
    let lock = File::create(lab.join("codex.lock"))?;
    lock.lock().context("waiting for the client's installation")?;
    let (prefix, marker) = (lab.join("codex"), lab.join("codex.packages"));
    let program = prefix.join("node_modules/.bin/codex");
    if program.exists() && fs::read_to_string(&marker).is_ok_and(|have| have == CODEX) {
        return Ok(program);
    }
    fs::create_dir_all(&prefix)?;
    fs::write(prefix.join("package.json"), "{\"private\": true}\n")?;
    Spawn::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--save-exact", "--prefix"])
        .arg(&prefix)
        .arg(CODEX)
        .inherit()
        .patience(Duration::from_secs(600))
        .run()?
        .ok()
        .context("npm install (Debian: apt-get install npm)")?;
    fs::write(&marker, CODEX)?;
    Ok(program)
}

fn environment(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let lab = repository().join(".lab");
    fs::create_dir_all(&lab)?;
    let lock = File::create(lab.join(format!("{name}.lock")))?;
    // suites run at the same time; the first one installs, the others wait
    lock.lock().context("waiting for the client environment")?;
    let (venv, marker) = (lab.join(name), lab.join(format!("{name}.packages")));
    let python = venv.join("bin/python");
    let wanted = packages.join("\n");
    if python.exists() && fs::read_to_string(&marker).is_ok_and(|have| have == wanted) {
        return Ok(python);
    }
    let patience = Duration::from_secs(600);
    Spawn::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&venv)
        .patience(patience)
        .run()?
        .ok()
        .context("python3 -m venv (Debian: apt-get install python3-venv)")?;
    Spawn::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(packages)
        .inherit()
        .patience(patience)
        .run()?
        .ok()
        .context("installing the SDKs with pip")?;
    fs::write(&marker, wanted)?;
    Ok(python)
}
