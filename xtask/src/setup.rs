//! `cargo xtask setup`: makes a machine with rustup able to build and test.
//!
//! In: a list of steps, each able to look and to install. Out: what was found, what was installed and why.
//! On failure: the step, the command and what it said; what was installed before stays. A second run finds
//! everything and changes nothing.

mod bpf_linker;
mod toolchain;

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// What to do.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Only look; fail if something is missing
    #[arg(long)]
    pub(crate) check: bool,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// There, and this is what was seen.
    Present(String),
    /// Not there, and this is what is lacking.
    Missing(String),
}

/// One thing that a build or a test needs.
pub(crate) struct Step {
    /// Shown to people.
    pub(crate) name: &'static str,
    /// Who needs it.
    pub(crate) why: &'static str,
    /// Looks, quickly and without changing anything.
    pub(crate) check: fn() -> Result<State>,
    /// Installs what `check` missed.
    pub(crate) install: fn() -> Result<()>,
}

/// Every step, in the order in which they stand on each other. A new need is a new line here.
const STEPS: &[Step] = &[
    Step {
        name: "machine tools",
        why: "the C parts of dependencies are compiled here; the lab uses ip and Python clients",
        check: tools_check,
        install: tools_install,
    },
    Step {
        name: "Python environments",
        why: "the vendors' SDKs are installed into one of their own, below .lab",
        check: venv_check,
        install: || apt_install(&["python3-venv"]),
    },
    Step {
        name: "container engine",
        why: "the Docker suite starts an engine of its own, in namespaces of its own",
        check: || Ok(programs_check(&ENGINE)),
        install: || programs_install(&ENGINE),
    },
    Step {
        name: "Prometheus",
        why: "a real one scrapes the daemon, and promtool checks the metrics and the alert rules",
        check: || Ok(programs_check(&PROMETHEUS)),
        install: || programs_install(&PROMETHEUS),
    },
    Step {
        name: "eBPF tool chain",
        why: "the programs need core compiled for BPF, so the source of core and a compiler that may build it",
        check: toolchain::check,
        install: toolchain::install,
    },
    Step {
        name: "bpf-linker",
        why: "links the programs; its LLVM must be that of the tool chain or newer",
        check: bpf_linker::check,
        install: bpf_linker::install,
    },
];

/// What the matrix of clients needs beside them.
pub(crate) const CLIENTS: &[Step] = &[Step {
    name: "npm",
    why: "half of the clients are npm packages; the Node that runs them comes with them",
    check: || Ok(programs_check(&NPM)),
    install: || programs_install(&NPM),
}];

/// What the fuzzer needs beside them.
pub(crate) const FUZZ: &[Step] = &[
    Step {
        name: "machine tools",
        why: "libFuzzer and the C parts of dependencies are compiled here",
        check: tools_check,
        install: tools_install,
    },
    Step {
        name: "nightly compiler",
        why: "only it counts which paths an input takes",
        check: || {
            Ok(match output("rustup", &["run", "nightly", "rustc", "-V"]) {
                Some(version) => State::Present(version),
                None => State::Missing("no nightly tool chain".to_owned()),
            })
        },
        install: || {
            let install = "toolchain install nightly --profile minimal";
            execute(Command::new("rustup").args(install.split(' ')))
        },
    },
    Step {
        name: "bpf-linker",
        why: "links the programs that the library embeds",
        check: bpf_linker::check,
        install: bpf_linker::install,
    },
    Step {
        name: "cargo-fuzz",
        why: "builds and runs libFuzzer's programs",
        check: || Ok(programs_check(&CARGO_FUZZ)),
        install: || execute(Command::new("cargo").args(["install", "cargo-fuzz", "--locked"])),
    },
];

const CARGO_FUZZ: [(&str, &str); 1] = [("cargo-fuzz", "")];

const NPM: [(&str, &str); 1] = [("npm", "npm")];

/// Runs all steps.
pub(crate) fn run(options: &Options) -> Result<()> {
    perform(STEPS, options.check)
}

/// Looks for each thing and installs what is missing, or with `only_look` fails then.
pub(crate) fn perform(steps: &[Step], only_look: bool) -> Result<()> {
    let mut missing = Vec::new();
    for step in steps {
        match (step.check)().with_context(|| format!("looking for {}", step.name))? {
            State::Present(seen) => println!("found      {}: {seen}", step.name),
            State::Missing(lack) if only_look => {
                println!("missing    {}: {lack}", step.name);
                missing.push(step.name);
            }
            State::Missing(lack) => install(step, &lack)?,
        }
    }
    if !missing.is_empty() {
        bail!("missing: {}. Run `cargo xtask setup`", missing.join(", "));
    }
    Ok(())
}

fn install(step: &Step, lack: &str) -> Result<()> {
    println!("installing {}: {lack} ({})", step.name, step.why);
    (step.install)().with_context(|| format!("installing {}", step.name))?;
    match (step.check)()? {
        State::Present(seen) => println!("installed  {}: {seen}", step.name),
        State::Missing(lack) => bail!("{} was installed and still: {lack}", step.name),
    }
    Ok(())
}

/// A program, the Debian package that has it.
const TOOLS: [(&str, &str); 6] = [
    ("cc", "build-essential"),
    ("make", "build-essential"),
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("rustup", ""),
];

/// What the Docker suite starts and stops; nothing of it runs otherwise.
const ENGINE: [(&str, &str); 5] = [
    ("dockerd", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    ("busybox", "busybox-static"),
];

/// What reads the metrics; both come in one package, whose service is not started.
const PROMETHEUS: [(&str, &str); 2] = [("prometheus", "prometheus"), ("promtool", "prometheus")];

fn tools_check() -> Result<State> {
    Ok(programs_check(&TOOLS))
}

fn programs_check(programs: &[(&str, &str)]) -> State {
    let names = || programs.iter().map(|(program, _)| *program);
    let lacking: Vec<&str> = names().filter(|program| !on_path(program)).collect();
    if lacking.is_empty() {
        State::Present(names().collect::<Vec<_>>().join(", "))
    } else {
        State::Missing(format!("no {}", lacking.join(", no ")))
    }
}

/// Debian's Python can make an environment only with a package of its own.
fn venv_check() -> Result<State> {
    Ok(
        match output(
            "python3",
            &["-c", "import ensurepip, venv; print('python3 -m venv')"],
        ) {
            Some(seen) => State::Present(seen.trim().to_owned()),
            None => State::Missing("no ensurepip".to_owned()),
        },
    )
}

fn tools_install() -> Result<()> {
    programs_install(&TOOLS)
}

fn programs_install(programs: &[(&'static str, &'static str)]) -> Result<()> {
    let lacking = programs.iter().filter(|(program, _)| !on_path(program));
    let mut packages: Vec<&str> = lacking.map(|(_, package)| *package).collect();
    if packages.contains(&"") {
        bail!("install rustup first: the eBPF tool chain is linked through it");
    }
    packages.dedup();
    apt_install(&packages)
}

/// Whether a program of this name can be run.
pub(crate) fn on_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

/// Installs Debian packages.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    if !on_path("apt-get") {
        bail!(
            "this is not a Debian-like machine: install what the packages {} bring",
            packages.join(", ")
        );
    }
    let update = ["apt-get", "update", "-q"];
    let install = ["apt-get", "install", "-q", "-y", "--no-install-recommends"];
    execute(as_root(&update)?.env("DEBIAN_FRONTEND", "noninteractive"))?;
    execute(
        as_root(&install)?
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn as_root(words: &[&str]) -> Result<Command> {
    let root = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)?;
    let words: Vec<&str> = match root {
        true => words.to_vec(),
        false if on_path("sudo") => [&["sudo", "--preserve-env=DEBIAN_FRONTEND"], words].concat(),
        false => bail!("run this once as root: {} …", words.join(" ")),
    };
    let (program, arguments) = words.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Runs a command to its end, its words on the terminal.
pub(crate) fn execute(command: &mut Command) -> Result<()> {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        write!(shown, " {}", argument.to_string_lossy())?;
    }
    println!("           $ {shown}");
    let status = command
        .status()
        .with_context(|| format!("{shown} does not start"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}

/// What a command prints, if it succeeds.
pub(crate) fn output(program: impl AsRef<Path>, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program.as_ref());
    // Set by an outer rustup, it would decide which compiler answers.
    command
        .args(arguments)
        .env_remove("RUSTUP_TOOLCHAIN")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
