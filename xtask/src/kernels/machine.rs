//! Boots a kernel and listens to its serial console.
//!
//! In: a kernel and an initramfs. Out: how many tests passed in each suite. On failure: the first thing that went
//! wrong; a machine that does not say that it has finished has failed, whatever it said before.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::image::Image;

/// A run takes five to ten minutes; a machine that hangs must not hold up the others for ever.
const PATIENCE: Duration = Duration::from_secs(2400);
/// What the machine's first process says begins so.
const MARK: &str = "guard-machine: ";
/// A console line longer than this is cut: a wild machine must not fill our memory.
const LINE_MAX: u64 = 64 * 1024;

/// Boots, listens to the end, and judges.
pub(super) fn boot(image: &Image, initramfs: &Path, log: &Path) -> Result<Report> {
    let mut machine = Machine(
        Command::new("qemu-system-x86_64")
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                "2048",
            ])
            .args([
                "-nodefaults",
                "-display",
                "none",
                "-serial",
                "stdio",
                "-no-reboot",
            ])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(initramfs)
            // A kernel that finds a fault in itself stops, and the run has failed.
            .args(["-append", "console=ttyS0 quiet oops=panic panic=-1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting qemu-system-x86_64")?,
    );
    let console = machine.0.stdout.take().context("no console")?;
    let log = File::create(log).with_context(|| log.display().to_string())?;
    let listener = thread::Builder::new()
        .name("console".into())
        .spawn(move || listen(console, log))?;
    let deadline = Instant::now() + PATIENCE;
    let mut late = false;
    while machine.0.try_wait()?.is_none() {
        if Instant::now() > deadline {
            late = true;
            machine.0.kill()?;
        }
        thread::sleep(Duration::from_millis(100));
    }
    let Ok(heard) = listener.join() else {
        bail!("the listener died");
    };
    let heard = heard?;
    ensure!(!late, "not done after {} s; {heard}", PATIENCE.as_secs());
    heard.judge(&image.release)
}

/// Killed when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Gone already is as good.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What the console said.
#[derive(Debug, Default)]
struct Heard {
    kernel: Option<String>,
    suites: Vec<Suite>,
    /// The summary of the suite that is running.
    summary: Option<String>,
    failures: Vec<String>,
    ended: bool,
}

#[derive(Debug)]
struct Suite {
    name: String,
    code: String,
    /// The test runner's own last line.
    summary: Option<String>,
}

/// What a good run says.
#[derive(Debug)]
pub(super) struct Report(Vec<Suite>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = self.0.iter().map(|suite| {
            let summary = suite.summary.as_deref().unwrap_or_default();
            format!(
                "suite {}: {}",
                suite.name,
                summary.split(';').next().unwrap_or_default()
            )
        });
        f.write_str(&said.collect::<Vec<_>>().join("; "))
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.kernel, self.failures.first()) {
            (_, Some(failure)) => write!(f, "{failure}"),
            (None, None) => f.write_str("the machine did not reach its first process"),
            (Some(_), None) => write!(f, "{} suites had ended", self.suites.len()),
        }
    }
}

fn listen(console: impl Read, mut log: File) -> Result<Heard> {
    let mut heard = Heard::default();
    let mut console = BufReader::new(console);
    let mut line = Vec::new();
    loop {
        line.clear();
        if console.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(heard);
        }
        log.write_all(&line)?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        heard.line(line);
        if line.starts_with(MARK) || line.starts_with("test ") {
            super::say(&format!("  {line}"))?;
        }
    }
}

impl Heard {
    fn line(&mut self, line: &str) {
        if line.starts_with("test result: ") {
            self.summary = Some(line.trim_start_matches("test result: ").to_owned());
        }
        if line.contains("Kernel panic") || (line.starts_with("test ") && line.ends_with("... FAILED")) {
            self.failures.push(line.to_owned());
        }
        let Some(said) = line.strip_prefix(MARK) else {
            return;
        };
        let words: Vec<&str> = said.split(' ').collect();
        match words.as_slice() {
            ["kernel", release] => self.kernel = Some((*release).to_owned()),
            ["suite", name, code] => self.suites.push(Suite {
                name: (*name).to_owned(),
                code: (*code).to_owned(),
                summary: self.summary.take(),
            }),
            ["end"] => self.ended = true,
            _ => self.failures.push(said.to_owned()),
        }
    }

    fn judge(self, release: &str) -> Result<Report> {
        if let Some(failure) = self.failures.first() {
            bail!("{failure}");
        }
        ensure!(self.ended, "the machine went down before it had finished; {self}");
        let kernel = self.kernel.as_deref().unwrap_or_default();
        ensure!(kernel == release, "the machine ran {kernel:?}, not {release}");
        ensure!(!self.suites.is_empty(), "no suite ran");
        for suite in &self.suites {
            ensure!(
                suite.code == "0",
                "suite {} ended with {}",
                suite.name,
                suite.code
            );
            let summary = suite.summary.as_deref().unwrap_or_default();
            ensure!(
                summary.starts_with("ok. ") && !summary.starts_with("ok. 0 passed"),
                "suite {} passed no test: {summary:?}",
                suite.name
            );
        }
        Ok(Report(self.suites))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "guard-machine: kernel 6.1.0-56
test a ... ok
test result: ok. 49 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 99.00s
guard-machine: suite kernel 0
guard-machine: end";

    fn judge(text: &str) -> Result<String> {
        let mut heard = Heard::default();
        text.lines().for_each(|line| heard.line(line));
        Ok(heard.judge("6.1.0-56")?.to_string())
    }

    #[test]
    fn only_a_whole_run_of_the_right_kernel_is_good() {
        let said = judge(GOOD).unwrap();
        assert_eq!(said, "suite kernel: ok. 49 passed");
        let bad = [
            (GOOD.replace("guard-machine: end", ""), "before it had finished"),
            (GOOD.replace("kernel 6.1.0-56", "kernel 6.18.0"), "not 6.1.0-56"),
            (
                GOOD.replace("suite kernel 0", "suite kernel 101"),
                "ended with 101",
            ),
            (
                GOOD.replace("test a ... ok", "test a ... FAILED"),
                "test a ... FAILED",
            ),
            (GOOD.replace("49 passed", "0 passed"), "passed no test"),
            (
                GOOD.replace("guard-machine: suite kernel 0\n", ""),
                "no suite ran",
            ),
            (
                GOOD.replace("test a", "guard-machine: failed: veth cannot be loaded\ntest a"),
                "veth",
            ),
            (
                format!("{GOOD}\n[ 9.9] Kernel panic - not syncing: Fatal exception"),
                "Kernel panic",
            ),
            (String::new(), "did not reach its first process"),
        ];
        for (text, why) in bad {
            let said = judge(&text).unwrap_err().to_string();
            assert!(said.contains(why), "{why}: {said}");
        }
    }
}
