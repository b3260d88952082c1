//! The worker has no privilege, and nothing inside it can get one.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_tests::lab::{Lab, WORKER_ID, status};
use guard_tests::process::{Spawn, copy_program};

/// Each system call by its name, to be made later.
macro_rules! unsafe_calls {
    ($($name:literal => $call:expr),* $(,)?) => {
        // SAFETY: every pointer is null or leads to memory that lives longer than the calls, and each is to be refused
        // before it is looked at.
        [$(($name, &|| unsafe { $call })),*]
    };
}

/// Where the process that tries everything learns what it may write, and what it must not reach.
const STATE: &str = "GUARD_TEST_STATE";
const SECRET: &str = "GUARD_TEST_SECRET";
const SOCKET: &str = "GUARD_TEST_SOCKET";

#[test]
fn the_worker_runs_without_capabilities_and_behind_a_filter() -> Result<()> {
    let lab = Lab::builder().start()?;
    let worker = lab.worker()?;
    let says = |name: &str| status(worker, name);
    let id = WORKER_ID.to_string();
    assert!(says("Uid")?.split('\t').all(|uid| uid == id), "{}", says("Uid")?);
    assert!(says("Gid")?.split('\t').all(|gid| gid == id), "{}", says("Gid")?);
    assert_eq!(says("Groups")?, "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&says(set)?, 16)?, 0, "{set}");
    }
    assert_eq!(
        (says("NoNewPrivs")?.as_str(), says("Seccomp")?.as_str()),
        ("1", "2")
    );
    // Every thread of it, those that were started last among them.
    for thread in fs::read_dir(format!("/proc/{worker}/task"))? {
        let text = fs::read_to_string(thread?.path().join("status"))?;
        assert!(
            text.contains("Seccomp:\t2\n") && text.contains("CapEff:\t0000000000000000\n"),
            "{text}"
        );
    }
    let environment = fs::read_to_string(format!("/proc/{worker}/environ"))?;
    assert!(!environment.contains("KEY"), "{environment}");
    // The keeper is the one that has them.
    assert_ne!(u64::from_str_radix(&status(lab.keeper()?, "CapEff")?, 16)?, 0);
    assert_eq!(
        lab.coder().call("openai --model gpt-5 --max-tokens 100")?["ok"],
        true
    );
    Ok(())
}

#[test]
fn keys_are_readable_by_neither_the_worker_s_user_nor_an_agent() -> Result<()> {
    let lab = Lab::builder().start()?;
    assert_eq!(
        lab.coder().call("openai --model gpt-5 --max-tokens 100")?["ok"],
        true
    );
    let read = |user: u32, file: PathBuf| lab.coder().spawn("cat").arg(file).user(user).run();
    let state = lab.state_dir();
    for user in [WORKER_ID, 65_534] {
        let done = read(user, lab.directory().join("keys/openai"))?;
        assert!(
            done.stderr.contains("Permission denied"),
            "{user}: {}",
            done.stderr
        );
        // Another process of the worker's user sees nothing of the worker's memory.
        let done = read(user, format!("/proc/{}/mem", lab.worker()?).into())?;
        assert!(
            done.stderr.contains("Permission denied"),
            "{user}: {}",
            done.stderr
        );
    }
    for file in ["ca/root.key", "placeholder.key"] {
        assert!(state.join(file).is_file(), "{file}");
        let done = read(65_534, state.join(file))?;
        assert!(
            done.stderr.contains("Permission denied"),
            "{file}: {}",
            done.stderr
        );
    }
    let listed = lab.coder().spawn("ls").arg(&state).user(65_534).run()?;
    assert!(listed.stderr.contains("Permission denied"), "{}", listed.stderr);
    // What agents need is there for every user.
    let bundle = read(65_534, state.join("ca/bundle.pem"))?;
    assert!(
        bundle.success() && bundle.stdout.contains("BEGIN CERTIFICATE"),
        "{}",
        bundle.stderr
    );
    Ok(())
}

#[test]
fn a_worker_without_its_user_is_not_started() -> Result<()> {
    let lab = Lab::builder().start_without_daemon()?;
    let mut text = fs::read_to_string(lab.directory().join("passwd"))?;
    text = text
        .lines()
        .filter(|line| !line.starts_with("guard:"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(lab.directory().join("passwd"), text)?;
    let error = format!("{:#}", lab.start_daemon().err().context("it started")?);
    assert!(error.contains("systemd-sysusers"), "{error}");
    Ok(())
}

/// Not a test of its own: what [`nothing_is_left_to_do_inside`] starts as the worker's user, in the worker's sandbox.
#[test]
fn inside() -> Result<()> {
    let Ok(state) = std::env::var(STATE) else {
        return Ok(());
    };
    let (secret, socket) = (std::env::var(SECRET)?, std::env::var(SOCKET)?);
    // Its mode closes this one to nobody: what does is the sandbox.
    fs::read(&secret)?;
    guard_agent::sandbox::enter(state.as_ref())?;
    system_calls()?;
    for file in [
        "/etc/shadow",
        "/root/.bashrc",
        &secret,
        "/sys/fs/bpf",
        "/proc/1/environ",
    ] {
        ensure!(denied(fs::read(file)), "{file}");
    }
    ensure!(
        denied(fs::write("/tmp/guard-test-by-the-worker", "x")),
        "a file outside"
    );
    ensure!(denied(UnixStream::connect(socket)), "the engine's socket");
    // And what it is there for goes on.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(5))?;
    let thread = std::thread::spawn(|| ());
    ensure!(thread.join().is_ok(), "no thread");
    Ok(fs::write(format!("{state}/attempted"), "x")?)
}

fn denied<T>(tried: io::Result<T>) -> bool {
    tried.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[allow(unsafe_code, reason = "system calls as an attacker inside would make them")]
fn system_calls() -> Result<()> {
    let null = std::ptr::null::<u8>();
    let zeros = [0_u8; 128];
    let (some, length) = (zeros.as_ptr(), zeros.len());
    let new_user = libc::CLONE_NEWUSER | libc::SIGCHLD;
    let kernel: [(&str, &dyn Fn() -> libc::c_long); 17] = unsafe_calls!(
        "bpf" => libc::syscall(libc::SYS_bpf, 0, some, length),
        "mount" => libc::syscall(libc::SYS_mount, null, null, null, 0, null),
        "ptrace" => libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, libc::getppid(), 0, 0),
        "process_vm_readv" => libc::syscall(libc::SYS_process_vm_readv, libc::getppid(), null, 0, null, 0, 0),
        "execve" => libc::syscall(libc::SYS_execve, c"/bin/true".as_ptr(), null, null),
        "unshare" => libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
        "setns" => libc::syscall(libc::SYS_setns, 0, 0),
        "clone" => libc::syscall(libc::SYS_clone, new_user, 0, 0, 0, 0),
        "io_uring_setup" => libc::syscall(libc::SYS_io_uring_setup, 1, some),
        "keyctl" => libc::syscall(libc::SYS_keyctl, 0, 0, 0, 0, 0),
        "userfaultfd" => libc::syscall(libc::SYS_userfaultfd, 0),
        "setuid" => libc::syscall(libc::SYS_setuid, 0),
        "open_by_handle_at" => libc::syscall(libc::SYS_open_by_handle_at, 0, some, 0),
        "a packet socket" => libc::syscall(libc::SYS_socket, libc::AF_PACKET, libc::SOCK_RAW, 0),
        "a raw socket" => libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_RAW, 255),
        "a vsock socket" => libc::syscall(libc::SYS_socket, libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        "kill" => libc::syscall(libc::SYS_kill, libc::getppid(), libc::SIGTERM),
    );
    for (name, call) in kernel {
        let answer = call();
        let error = io::Error::last_os_error();
        let by_rule = matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES));
        ensure!(answer < 0 && by_rule, "{name}: {answer}, {error}");
    }
    Ok(())
}

#[test]
fn nothing_is_left_to_do_inside() -> Result<()> {
    use std::os::unix::fs::{PermissionsExt, chown};
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711))?;
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("state"))?;
    chown(at("state"), Some(WORKER_ID), Some(WORKER_ID))?;
    fs::write(at("secret"), "anybody's, but not the worker's")?;
    // The engine's socket is root's and its group's.
    let _engine = UnixListener::bind(at("docker.sock"))?;
    fs::set_permissions(at("docker.sock"), fs::Permissions::from_mode(0o660))?;
    // The test's own program may lie where that user cannot go.
    copy_program(&std::env::current_exe()?, &at("attempt"))?;
    fs::set_permissions(at("attempt"), fs::Permissions::from_mode(0o755))?;
    let done = Spawn::new(at("attempt"))
        .args(["--exact", "privilege::inside", "--nocapture", "--test-threads=1"])
        .env(STATE, at("state"))
        .env(SECRET, at("secret"))
        .env(SOCKET, at("docker.sock"))
        .user(WORKER_ID)
        .run()?
        .ok()?;
    assert!(at("state/attempted").is_file(), "{}{}", done.stdout, done.stderr);
    Ok(())
}
