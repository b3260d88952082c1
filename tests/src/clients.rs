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
const FORMATS: [&str; 6] = [
    "openai==3.54.0",
    // Claude on Vertex AI
    "anthropic==2.12.0",
    "ollama==0.6.3",
    "google-genai==3.6.1",
    "cohere==7.3.1",
    "boto3==1.44.8",
];

/// What the suite of sockets needs: the SDK with its own choice of a WebSocket library, which offers compression.
const SOCKETS: [&str; 2] = ["openai==3.54.0", "websockets==17.4"];

/// The agent CLI that prefers a WebSocket.
const CODEX: &str = "@openai/codex@0.169.0";

/// A fake provider that is not Guard's: npm, MIT.
const AIMOCK: &str = "@copilotkit/aimock@1.43.0";

/// How long an installation may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// The root of the repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A script of `tests/clients/`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Python that talks to a server over a bare socket, or is one: `tests/clients/talk.py`.
pub fn talk(python: Spawn, arguments: &[&str]) -> Spawn {
    python.arg(script("talk.py")).args(arguments)
}

/// The Python that has the SDKs, made on first use.
///
/// # Errors
/// `python3` or its venv module is missing, or a package cannot be installed.
pub fn ensure() -> Result<PathBuf> {
    environment("venv", &PACKAGES)
}

/// The Python that has the SDKs of Google, Cohere, Amazon and Ollama, made on first use.
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
    npm("codex", CODEX, "codex")
}

/// The independent fake provider of the suite `independent`, installed on first use.
///
/// # Errors
/// As [`codex`].
pub fn aimock() -> Result<PathBuf> {
    npm("aimock", AIMOCK, "llmock")
}

/// A program of an npm package, in a directory of its own.
fn npm(name: &str, package: &str, program: &str) -> Result<PathBuf> {
    installed(name, package, &format!("node_modules/.bin/{program}"), |at| {
        npm_install(at, &[package])?
            .patience(PATIENCE)
            .run()?
            .ok()
            .context("npm install (Debian: apt-get install npm)")?;
        Ok(())
    })
}

fn environment(name: &str, packages: &[&str]) -> Result<PathBuf> {
    installed(name, &packages.join("\n"), "bin/python", |at| {
        python_install(at, packages, PATIENCE)
    })
}

/// A program below a directory of the lab's, which is made unless it was made for the same list.
fn installed(
    name: &str,
    wanted: &str,
    program: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let lab = repository().join(".lab");
    fs::create_dir_all(&lab)?;
    let lock = File::create(lab.join(format!("{name}.lock")))?;
    // suites run at the same time; the first one installs, the others wait
    lock.lock().context("waiting for another installation")?;
    let (at, marker) = (lab.join(name), lab.join(format!("{name}.packages")));
    let program = at.join(program);
    if program.exists() && fs::read_to_string(&marker).is_ok_and(|have| have == wanted) {
        return Ok(program);
    }
    install(&at)?;
    fs::write(&marker, wanted)?;
    Ok(program)
}

/// Makes a Python environment with these packages.
pub(crate) fn python_install(at: &Path, packages: &[&str], patience: Duration) -> Result<()> {
    Spawn::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(at)
        .patience(patience)
        .run()?
        .ok()
        .context("python3 -m venv (Debian: apt-get install python3-venv)")?;
    Spawn::new(at.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(packages)
        .inherit()
        .patience(patience)
        .run()?
        .ok()
        .context("installing the packages with pip")?;
    Ok(())
}

/// What installs these npm packages into a directory.
pub(crate) fn npm_install(at: &Path, packages: &[&str]) -> Result<Spawn> {
    fs::create_dir_all(at)?;
    fs::write(at.join("package.json"), "{\"private\": true}\n")?;
    Ok(Spawn::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--save-exact", "--prefix"])
        .arg(at)
        .args(packages)
        .inherit())
}
