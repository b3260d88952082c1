//! `cargo xtask test --fuzz`: every parser under libFuzzer, or with `--planted` the proof that each target would find a
//! mistake of its kind.
//!
//! In: the targets of `fuzz/Cargo.toml`, their seeds and everything found before. Out: a line for each: how many inputs
//! held in how much processor time, or what does not. On failure: the input is kept in `fuzz/artifacts/TARGET/`; put it
//! into `fuzz/found/TARGET/`, where the ordinary tests try it for ever, and mend what it shows.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::check::root;
use crate::mistakes::{self, Mistake};
use crate::setup;

/// What to run.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "fuzzing")]
pub(crate) struct Options {
    /// With --fuzz: how many seconds of processor time each target takes; a busy machine makes the run longer, not the
    /// search shorter
    #[arg(long, default_value_t = 30, requires = "fuzz")]
    pub(crate) seconds: u64,
    /// With --fuzz: run the targets only while nothing else wants the processor (SCHED_IDLE)
    #[arg(long, requires = "fuzz")]
    pub(crate) idle: bool,
    /// With --fuzz: build with the mistakes of fuzz/planted.toml, and fail unless each target finds its own
    #[arg(long, requires = "fuzz")]
    pub(crate) planted: bool,
    /// With --fuzz: only these targets
    #[arg(requires = "fuzz", value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
}

#[derive(Deserialize)]
struct Manifest {
    bin: Vec<Program>,
}

#[derive(Deserialize)]
struct Program {
    name: String,
}

#[derive(Deserialize)]
struct Planted {
    mistake: Vec<PlantedMistake>,
}

#[derive(Deserialize)]
struct PlantedMistake {
    target: String,
    #[serde(flatten)]
    mistake: Mistake,
}

/// Runs the targets one after the other.
///
/// # Errors
/// A target found something (or with `--planted`, did not), or cannot be built.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::perform(setup::FUZZ, false)?;
    let root = root()?;
    let targets = chosen(&root, &options.targets)?;
    let source = if options.planted {
        planted(&root)?
    } else {
        root.clone()
    };
    build(&root, &source, &targets)?;
    let mut wrong = Vec::new();
    for target in &targets {
        if !one(&root, target, options)? {
            wrong.push(target.as_str());
        }
    }
    match (wrong.is_empty(), options.planted) {
        (true, _) => Ok(()),
        (false, true) => bail!("not found: the mistakes planted for {}", wrong.join(", ")),
        (false, false) => bail!(
            "found something: {}; the inputs are in fuzz/artifacts",
            wrong.join(", ")
        ),
    }
}

fn chosen(root: &Path, asked: &[String]) -> Result<Vec<String>> {
    let manifest: Manifest = toml::from_str(&fs::read_to_string(root.join("fuzz/Cargo.toml"))?)?;
    let all: Vec<String> = manifest.bin.into_iter().map(|program| program.name).collect();
    if let Some(unknown) = asked.iter().find(|name| !all.contains(name)) {
        bail!("there is no target {unknown}; the targets are {}", all.join(", "));
    }
    Ok(all
        .into_iter()
        .filter(|name| asked.is_empty() || asked.contains(name))
        .collect())
}

/// A copy of the source with every mistake in it.
fn planted(root: &Path) -> Result<PathBuf> {
    let copy = root.join("fuzz/target/planted");
    let planted: Planted = toml::from_str(&fs::read_to_string(root.join("fuzz/planted.toml"))?)?;
    let each = planted.mistake.iter();
    mistakes::work_in(
        root,
        &copy,
        each.map(|one| (one.target.as_str(), one.mistake.clone())),
    )?;
    Ok(copy)
}

fn cargo_fuzz(root: &Path, source: &Path, chore: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz", chore, "--sanitizer", "none"]);
    command.arg("--fuzz-dir").arg(source.join("fuzz"));
    command.arg("--target-dir").arg(root.join("fuzz/target"));
    command.current_dir(source);
    // Set by an outer rustup or cargo, these would decide for the inner one.
    for outer in [
        "RUSTUP_TOOLCHAIN",
        "CARGO",
        "RUSTC",
        "RUSTFLAGS",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(outer);
    }
    command
}

fn build(root: &Path, source: &Path, targets: &[String]) -> Result<()> {
    match targets {
        [one] => setup::execute(cargo_fuzz(root, source, "build").arg(one)),
        _ => setup::execute(&mut cargo_fuzz(root, source, "build")),
    }
}

/// Runs one target; whether it went as it should.
fn one(root: &Path, target: &str, options: &Options) -> Result<bool> {
    let fuzz = root.join("fuzz");
    let artifacts = match options.planted {
        true => fuzz.join("target/planted-artifacts").join(target),
        false => fuzz.join("artifacts").join(target),
    };
    fs::create_dir_all(&artifacts)?;
    let log = artifacts.with_extension("log");
    let output = File::create(&log)?;
    let mut command = program(&fuzz, target, &artifacts, options)?;
    command.stdout(output.try_clone()?).stderr(output);
    let child = command
        .spawn()
        .with_context(|| format!("{target} does not start"))?;
    let (status, used) = until(child, Duration::from_secs(options.seconds))?;
    let said = fs::read(&log)?;
    let said = String::from_utf8_lossy(&said);
    let tried = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .map_or("an unknown number of", str::trim);
    let panicked = said.contains("panicked at");
    let (good, word) = match (options.planted, status.success()) {
        (true, false) if panicked => (true, "found the planted mistake"),
        (true, _) => (false, "did NOT find the planted mistake"),
        (false, true) => (true, "held"),
        (false, false) => (false, "FOUND SOMETHING"),
    };
    println!("{target:<20} {word}: {tried} inputs, {} s", used.as_secs());
    if !good {
        println!("  {}", log.display());
    }
    Ok(good)
}

/// A target's program, with its inputs and bounds.
fn program(fuzz: &Path, target: &str, artifacts: &Path, options: &Options) -> Result<Command> {
    // A planted mistake is looked for from the seeds on.
    let corpus = match options.planted {
        true => fuzz.join("target/planted-corpus").join(target),
        false => fuzz.join("corpus").join(target),
    };
    if options.planted && corpus.exists() {
        fs::remove_dir_all(&corpus)?;
    }
    fs::create_dir_all(&corpus)?;
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let program = fuzz.join("target").join(triple).join("release").join(target);
    let mut command = Command::new(if options.idle { Path::new("chrt") } else { &program });
    if options.idle {
        command.args(["--idle", "0"]).arg(&program);
    }
    let found = fuzz.join("found").join(target);
    command.args([&corpus, &fuzz.join("seeds").join(target)]);
    command.args(found.is_dir().then_some(found));
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(format!("-dict={}", fuzz.join("dictionary").display()));
    // By the clock on the wall, so one that waits for the processor is not taken for one that is stuck.
    command.arg(if options.idle {
        "-timeout=300"
    } else {
        "-timeout=60"
    });
    command.args(["-max_len=16384", "-rss_limit_mb=1024", "-print_final_stats=1"]);
    if options.planted {
        command.env("GUARD_PLANTED", target);
    }
    Ok(command)
}

/// Waits until the program has ended or taken so much processor time; then it is asked to end in good order. Gives how it
/// ended, and the time that it had taken.
fn until(mut child: Child, most: Duration) -> Result<(ExitStatus, Duration)> {
    let mut used = Duration::ZERO;
    let mut asked = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, used));
        }
        used = processor_time(child.id()).unwrap_or(used);
        if used >= most && !asked {
            asked = true;
            setup::execute(Command::new("kill").arg("-USR1").arg(child.id().to_string()))?;
        }
        sleep(Duration::from_millis(200));
    }
}

/// What a process has taken of the processor, in user and kernel mode (proc(5): fields 14 and 15, in hundredths of a
/// second). None once it has ended.
fn processor_time(id: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before may have anything in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields
        .split_ascii_whitespace()
        .skip(11)
        .map(|field| field.parse::<u64>().ok());
    let ticks = times.next()?? + times.next()??;
    Some(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_runs_for_its_time_on_the_processor_and_is_then_asked_to_end() {
        let busy = |script: &str| Command::new("sh").args(["-c", script]).spawn().unwrap();
        let most = Duration::from_millis(300);
        let (status, used) = until(busy("trap 'exit 3' USR1; while :; do :; done"), most).unwrap();
        assert_eq!(status.code(), Some(3));
        assert!(used >= most, "{used:?}");
        // Waiting is no work.
        let (status, used) = until(busy("sleep 0.5"), most).unwrap();
        assert!(status.success() && used < most, "{used:?}");
    }
}
