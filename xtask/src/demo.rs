//! `cargo xtask demo`: builds the daemon, the lab and the clients, and shows what Guard does.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Builds what the demonstration needs and runs it; with `json`, standard output has JSON lines only.
///
/// # Errors
/// Not root, a build fails, or a step of the demonstration does not hold.
pub(crate) fn run(json: bool) -> Result<()> {
    need_root("the demonstration")?;
    set_up()?;
    cargo([
        "build",
        "--quiet",
        "--package",
        "guard-agent",
        "--bin",
        "guard-agent",
    ])?;
    cargo(["build", "--quiet", "--package", "guard-tests", "--bin", "demo"])?;
    let mut arguments = vec![
        "run",
        "--quiet",
        "--package",
        "guard-tests",
        "--bin",
        "demo",
        "--",
    ];
    if json {
        arguments.push("--json");
    }
    cargo(arguments).context("the demonstration failed")
}

/// What a clean machine lacks. It talks on standard error, so that standard output is the demonstration's alone.
pub(crate) fn set_up() -> Result<()> {
    let status = Command::new(std::env::current_exe()?)
        .arg("setup")
        .stdout(std::io::stderr())
        .status()
        .context("starting xtask setup")?;
    ensure!(
        status.success(),
        "this machine cannot be prepared: see `cargo xtask setup`"
    );
    Ok(())
}

/// Runs cargo in the root of the repository.
pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<()> {
    cargo_with([], arguments)
}

/// The same, with variables in its environment.
pub(crate) fn cargo_with<'a, A: AsRef<OsStr>>(
    variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    arguments: impl IntoIterator<Item = A>,
) -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(here.parent().unwrap_or(here));
    command.envs(variables);
    let status = command.status().context("starting cargo")?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}

/// Namespaces, cgroups and BPF programs are root's.
pub(crate) fn need_root(what: &str) -> Result<()> {
    let id = Command::new("id").arg("-u").output().context("running id")?;
    ensure!(
        id.stdout == b"0\n",
        "{what} makes namespaces and cgroups and loads BPF programs: run it as root"
    );
    Ok(())
}
