//! `cargo xtask test --switched-off`: each counter-measure outside the kernel is what stops its attack.
//!
//! In: `tests/countermeasures.toml`, which says for each what switches it off and which test runs the attack. Out: a line
//! for each. All tests must pass in a copy of the source that has every switch, with all of them on; with its own
//! counter-measure switched off each test must fail, and say that the attack got through. On failure: what the test said is
//! in `target/switched-off/logs`. What is built elsewhere has no such switch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::check::root;
use crate::mistakes::{self, Mistake};

/// What names the counter-measure that is off, in the copy's environment.
const VARIABLE: &str = "GUARD_OFF";
/// Stands in a replacement for the condition that the counter-measure is off.
const OFF: &str = "@off@";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    /// What every switch needs: a process that starts another one without its own environment hands the switch on.
    everywhere: Vec<Mistake>,
    countermeasure: Vec<Countermeasure>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Countermeasure {
    name: String,
    tests: Vec<Attack>,
    /// What switches it off.
    off: Vec<Mistake>,
}

/// A test that runs an attack from inside a governed cgroup.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attack {
    /// `suite::test`
    test: String,
    /// What the test says when the attack gets through.
    says: String,
}

impl Attack {
    fn suite(&self) -> &str {
        self.test.split("::").next().unwrap_or_default()
    }

    /// The test's name within its suite.
    fn name(&self) -> &str {
        self.test.split_once("::").map_or("", |(_, name)| name)
    }
}

/// Runs the proof for all counter-measures, or for those that are named.
///
/// # Errors
/// A test fails with everything on, or passes or fails in another way with its counter-measure off.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let root = root()?;
    let text = fs::read_to_string(root.join("tests/countermeasures.toml"))?;
    let All {
        everywhere,
        countermeasure: all,
    } = toml::from_str(&text)?;
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|one| one.name != **name)) {
        let known: Vec<_> = all.iter().map(|one| one.name.as_str()).collect();
        bail!(
            "there is no counter-measure {unknown}; those are {}",
            known.join(", ")
        );
    }
    let home = root.join("target/switched-off");
    let source = home.join("source");
    let everywhere = everywhere.into_iter().map(|mistake| ("every switch", mistake));
    mistakes::work_in(&root, &source, everywhere.chain(all.iter().flat_map(switch)))?;
    clients(&root, &source)?;
    let suites = build(&source, &home)?;
    let chosen: Vec<_> = all
        .iter()
        .filter(|one| names.is_empty() || names.contains(&one.name))
        .collect();
    with_all(&chosen, &suites, &source, &home)?;
    let mut wrong = Vec::new();
    for one in &chosen {
        for attack in &one.tests {
            if !without(&one.name, attack, &suites, &source, &home)? {
                wrong.push(one.name.as_str());
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "not shown to stop their attacks: {}",
        wrong.join(", ")
    );
    println!(
        "Each of {} counter-measures is what stops its attack.",
        chosen.len()
    );
    Ok(())
}

/// What works the switch of one into the copy.
fn switch(one: &Countermeasure) -> impl Iterator<Item = (&str, Mistake)> {
    let condition = format!(
        "std::env::var_os({VARIABLE:?}).is_some_and(|off| off == {:?})",
        one.name
    );
    let off = one.off.iter();
    off.map(move |mistake| (one.name.as_str(), mistake.with(OFF, &condition)))
}

/// The copy uses the clients that are installed already.
fn clients(root: &Path, source: &Path) -> Result<()> {
    let installed = root.join(".lab");
    fs::create_dir_all(&installed)?;
    let shown = source.join(".lab");
    if !shown.exists() {
        symlink(installed, shown)?;
    }
    Ok(())
}

/// Builds the copy; the suites' programs by name.
fn build(source: &Path, home: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cargo = |arguments: &[&str]| -> Result<Output> {
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(arguments)
            .args(["--target-dir", &home.to_string_lossy()])
            // Built once, so nothing is kept for a next time.
            .env("CARGO_INCREMENTAL", "0")
            .current_dir(source)
            .stderr(Stdio::inherit())
            .output()
            .context("starting cargo")?;
        ensure!(output.status.success(), "the copy with switches cannot be built");
        Ok(output)
    };
    cargo(&["build", "--package", "guard-agent", "--bin", "guard-agent"])?;
    let tests = [
        "test",
        "--package",
        "guard-tests",
        "--no-run",
        "--message-format",
        "json",
    ];
    let built = cargo(&tests)?;
    let mut suites = BTreeMap::new();
    for line in String::from_utf8_lossy(&built.stdout).lines() {
        let message: Value = serde_json::from_str(line)?;
        if let (Some(name), Some(program)) =
            (message["target"]["name"].as_str(), message["executable"].as_str())
            && message["target"]["kind"] == serde_json::json!(["test"])
        {
            suites.insert(name.to_owned(), PathBuf::from(program));
        }
    }
    Ok(suites)
}

/// Runs these tests of a suite.
fn suite(program: &Path, source: &Path, tests: &[&str], off: Option<&str>) -> Result<Output> {
    let mut command = Command::new(program);
    command
        .arg("--exact")
        .args(tests)
        .current_dir(source.join("tests"));
    command
        .env_remove(VARIABLE)
        .envs(off.map(|name| (VARIABLE, name)));
    command
        .output()
        .with_context(|| format!("{} does not start", program.display()))
}

fn program<'a>(suites: &'a BTreeMap<String, PathBuf>, suite: &str) -> Result<&'a PathBuf> {
    suites
        .get(suite)
        .with_context(|| format!("there is no suite {suite}"))
}

/// All the tests, with everything on.
fn with_all(
    chosen: &[&Countermeasure],
    suites: &BTreeMap<String, PathBuf>,
    source: &Path,
    home: &Path,
) -> Result<()> {
    let mut by_suite: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for attack in chosen.iter().flat_map(|one| &one.tests) {
        by_suite.entry(attack.suite()).or_default().insert(attack.name());
    }
    for (name, tests) in by_suite {
        let tests: Vec<_> = tests.into_iter().collect();
        let output = suite(program(suites, name)?, source, &tests, None)?;
        let said = log(home, &format!("all-on-{name}"), &output)?;
        ensure!(
            output.status.success() && said.contains(&format!("{} passed", tests.len())),
            "{name}: not all of {} tests pass with everything on; see {}/logs",
            tests.len(),
            home.display()
        );
        println!("{name:<28} everything on: {} tests pass", tests.len());
    }
    Ok(())
}

/// One test, with its counter-measure off: whether it fails by the attack's success.
fn without(
    name: &str,
    attack: &Attack,
    suites: &BTreeMap<String, PathBuf>,
    source: &Path,
    home: &Path,
) -> Result<bool> {
    let output = suite(
        program(suites, attack.suite())?,
        source,
        &[attack.name()],
        Some(name),
    )?;
    let said = log(
        home,
        &format!("{name}-{}", attack.name().replace("::", "-")),
        &output,
    )?;
    let failed = said.contains("1 failed");
    let got_through = failed && said.contains(&attack.says);
    let word = match (got_through, failed) {
        (true, _) => "the attack gets through",
        (false, true) => "the test fails, but NOT because the attack gets through",
        (false, false) => "the test does NOT fail",
    };
    println!("{name:<28} off: {word}: {}", attack.test);
    Ok(got_through)
}

/// Keeps what a run said.
fn log(home: &Path, name: &str, output: &Output) -> Result<String> {
    let logs = home.join("logs");
    fs::create_dir_all(&logs)?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let said = said.concat();
    fs::write(logs.join(name).with_extension("log"), &said)?;
    Ok(said)
}
