//! A process that lives where a test wants it: in a cgroup, a network namespace, a mount namespace, as a user.
//! Its output is captured as it comes, waiting has a deadline, and it is killed when it is dropped.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::capture::Capture;
use self::entry::Entry;
use crate::cgroup::Cgroup;
use crate::mounts::Mounts;
use crate::netns::NetNs;
use crate::patience::patient;

mod capture;
mod entry;

/// How long [`Spawn::run`] waits unless told.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A process to be.
#[derive(Debug)]
pub struct Spawn {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    input: Vec<u8>,
    cgroup: Option<File>,
    network: Option<OwnedFd>,
    mounts: Option<OwnedFd>,
    user: Option<u32>,
    patience: Duration,
    /// What could not be prepared; told by [`Spawn::start`], so that a description stays one expression.
    trouble: Option<anyhow::Error>,
}

impl Spawn {
    /// Runs `program` with an environment of `PATH`, `HOME` and `LANG` only: what a client is given, a test shows.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: vec![
                ("PATH".into(), path),
                ("HOME".into(), "/root".into()),
                ("LANG".into(), "C.UTF-8".into()),
            ],
            input: Vec::new(),
            cgroup: None,
            network: None,
            mounts: None,
            user: None,
            patience: PATIENCE,
            trouble: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Passes on this process's whole environment: for tools that install, not for clients under test.
    #[must_use]
    pub fn inherit(mut self) -> Self {
        self.environment.extend(std::env::vars_os());
        self
    }

    /// Gives it these bytes on its standard input (nothing unless told).
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Puts it into a cgroup before it is what it will be.
    #[must_use]
    pub fn cgroup(mut self, cgroup: &Cgroup) -> Self {
        let opened = OpenOptions::new().write(true).open(cgroup.procs_file());
        match opened.with_context(|| format!("cgroup {}", cgroup.path().display())) {
            Ok(file) => self.cgroup = Some(file),
            Err(error) => self.trouble = Some(error),
        }
        self
    }

    /// Puts it into a network namespace.
    #[must_use]
    pub fn netns(mut self, namespace: &NetNs) -> Self {
        match namespace.fd().try_clone_to_owned() {
            Ok(fd) => self.network = Some(fd),
            Err(error) => self.trouble = Some(error.into()),
        }
        self
    }

    /// Puts it into a mount namespace; its working directory is then `/`.
    #[must_use]
    pub fn mounts(mut self, mounts: &Mounts) -> Self {
        match mounts.fd().try_clone_to_owned() {
            Ok(fd) => self.mounts = Some(fd),
            Err(error) => self.trouble = Some(error.into()),
        }
        self
    }

    /// Runs it as this user and group, without any other group.
    #[must_use]
    pub fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// How long [`Spawn::run`] waits.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The program cannot be run, or its surroundings cannot be entered.
    pub fn start(self) -> Result<Running> {
        if let Some(trouble) = self.trouble {
            return Err(trouble);
        }
        let shown = self.program.display().to_string();
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let raw = |fd: &Option<OwnedFd>| fd.as_ref().map(AsRawFd::as_raw_fd);
        let entry = Entry {
            cgroup: self.cgroup.as_ref().map(AsRawFd::as_raw_fd),
            network: raw(&self.network),
            mounts: raw(&self.mounts),
            user: self.user,
        };
        entry.of(&mut command);
        let mut child = command.spawn().with_context(|| format!("starting {shown}"))?;
        let stdout = Capture::of(child.stdout.take());
        let stderr = Capture::of(child.stderr.take());
        let running = Running {
            shown,
            child,
            stdout,
            stderr,
            patience: self.patience,
        };
        running.feed(self.input)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// It cannot be started, or it is not done in time (then it is killed, and the error has what it said).
    pub fn run(self) -> Result<Done> {
        let patience = self.patience;
        self.start()?.wait(patience)
    }
}

/// A process that was started; killed, with its session, when this is dropped.
#[derive(Debug)]
pub struct Running {
    shown: String,
    child: Child,
    stdout: Capture,
    stderr: Capture,
    patience: Duration,
}

/// Copies a program that is to be started. A process of its own does it: whatever another thread of this one starts
/// meanwhile would hold the copy open for writing for a moment, and the kernel starts no such file (ETXTBSY).
///
/// # Errors
/// It cannot be read or written.
pub fn copy_program(program: &Path, to: &Path) -> Result<()> {
    let copied = Spawn::new("cp").arg("--").arg(program).arg(to).run()?;
    copied.ok().map(drop)
}

impl Running {
    fn feed(mut self, input: Vec<u8>) -> Result<Self> {
        if let Some(mut pipe) = self.child.stdin.take() {
            // a client that does not read its input must not hold the test
            thread::Builder::new()
                .name("input".into())
                .spawn(move || pipe.write_all(&input))?;
        }
        Ok(self)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// The next whole line of its standard output, without the line feed.
    ///
    /// # Errors
    /// It ends, or patience does, before there is one.
    pub fn line(&mut self) -> Result<String> {
        self.stdout.line(patient(self.patience)).with_context(|| {
            format!(
                "{} said no further line; on standard error: {}",
                self.shown,
                self.stderr.text()
            )
        })
    }

    /// What it said so far on standard output and standard error.
    pub fn said(&self) -> (String, String) {
        (self.stdout.text(), self.stderr.text())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal(&self, signal: nix::sys::signal::Signal) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        Ok(nix::sys::signal::kill(pid, signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It is not done after `patience`: it is killed, and the error has what it said.
    pub fn wait(mut self, patience: Duration) -> Result<Done> {
        let patience = patient(patience);
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                let (stdout, stderr) = self.said();
                bail!(
                    "{} is not done after {patience:?}; it said {stdout:?} and {stderr:?}",
                    self.shown
                );
            }
            thread::sleep(Duration::from_millis(2));
        };
        // a child that it left behind may hold the pipes open: what was said by now is what counts
        self.stdout.close(Duration::from_secs(1));
        self.stderr.close(Duration::from_secs(1));
        Ok(Done {
            status,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        })
    }

    /// Kills it and waits for its end; what it said stays readable.
    pub fn kill(&mut self) {
        let session = i32::try_from(self.child.id()).map(nix::unistd::Pid::from_raw);
        if let Ok(session) = session
            && matches!(self.child.try_wait(), Ok(None))
            && let Err(error) = nix::sys::signal::killpg(session, nix::sys::signal::Signal::SIGKILL)
        {
            eprintln!("killing {}: {error}", self.shown);
        }
        if let Err(error) = self.child.wait() {
            eprintln!("waiting for {}: {error}", self.shown);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A process that ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// How.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Done {
    /// Whether it exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Its exit code; 128 + the signal's number when a signal ended it, as a shell has it.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or_default())
    }

    /// The JSON objects that it printed, one a line.
    ///
    /// # Errors
    /// A line is not JSON.
    pub fn json_lines(&self) -> Result<Vec<serde_json::Value>> {
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("not JSON: {line}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Itself, if it exited with 0.
    ///
    /// # Errors
    /// It did not; the error has what it said.
    pub fn ok(self) -> Result<Self> {
        if self.success() {
            return Ok(self);
        }
        bail!(
            "exit code {}; it said {:?} and {:?}",
            self.code(),
            self.stdout,
            self.stderr
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_where_it_was_put_before_it_runs() {
        let (cgroup, namespace) = (Cgroup::new().unwrap(), NetNs::new().unwrap());
        let mounts = Mounts::new(&[]).unwrap();
        let done = Spawn::new("sh")
            .arg("-c")
            .arg("cat /proc/self/cgroup; id -u; id -G; ls /sys/class/net >/dev/null; ip -o link | wc -l; env")
            .cgroup(&cgroup)
            .netns(&namespace)
            .mounts(&mounts)
            .user(65534)
            .env("GREETING", "hello")
            .run()
            .unwrap()
            .ok()
            .unwrap();
        let name = cgroup.path().file_name().unwrap().to_str().unwrap();
        assert!(
            done.stdout.contains(&format!("0::/{name}\n65534\n65534\n1\n")),
            "{}",
            done.stdout
        );
        assert!(done.stdout.contains("GREETING=hello"));
        assert!(!done.stdout.contains("CARGO"), "the environment is its own");
    }

    #[test]
    fn gives_lines_as_they_come_and_dies_when_dropped() {
        let mut running = Spawn::new("sh")
            .arg("-c")
            .arg("echo one; read x; echo $x; sleep 600")
            .input("two\n");
        running = running.patience(Duration::from_secs(10));
        let mut running = running.start().unwrap();
        assert_eq!(running.line().unwrap(), "one");
        assert_eq!(running.line().unwrap(), "two");
        assert!(running.is_running().unwrap());
        let pid = running.pid();
        drop(running);
        assert!(!crate::cgroup::alive(pid));
    }

    #[test]
    fn waiting_has_an_end_and_says_what_was_heard() {
        let late = Spawn::new("sh")
            .args(["-c", "echo before; sleep 600"])
            .patience(Duration::from_millis(300))
            .run()
            .unwrap_err();
        assert!(late.to_string().contains("before"), "{late}");
        assert_eq!(Spawn::new("sh").args(["-c", "exit 7"]).run().unwrap().code(), 7);
        assert_eq!(
            Spawn::new("sh").args(["-c", "kill -9 $$"]).run().unwrap().code(),
            137
        );
        assert!(Spawn::new("/no/such/program").run().is_err());
    }
}
