//! What it costs to relay a byte: `cargo xtask bench --passthrough`. A copy loop, splice(2) through pipes of several sizes,
//! the relay of the daemon (which copies first, and splices what is much), and a sockmap, one after the other over loopback
//! TCP. Writes its table into `docs/performance.md`.
//!
//! The processor time is that of the relaying thread alone. A sockmap has none: the kernel does its work in the time of
//! the sender and of its own threads, so the whole machine's busy time stands beside it, which says something only on a
//! machine that does nothing else.
#![allow(
    unsafe_code,
    reason = "splice(2), bpf(2) and getrusage(2) have no safe wrapper here; each call passes plain memory of its own"
)]

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use guard_agent::passthrough::{Counted, relay, relay_halves};
use guard_agent::peek::Rewind;
use guard_tests::measured;
use tokio::io::Interest;
use tokio::net::TcpStream as Stream;

/// What one round carries.
const BYTES: u64 = 2 << 30;
/// The middle one of so many counts.
const ROUNDS: usize = 5;
const CHUNK: usize = 64 * 1024;

#[derive(Debug, Clone, Copy)]
enum Way {
    Copy,
    Splice(usize),
    Daemon,
    Sockmap,
}

impl Way {
    const ALL: [(Self, &str); 6] = [
        (Self::Copy, "copy loop, 64 KiB at a time"),
        (Self::Splice(64 << 10), "splice(2) through a pipe of 64 KiB"),
        (Self::Splice(256 << 10), "splice(2) through a pipe of 256 KiB"),
        (Self::Splice(1 << 20), "splice(2) through a pipe of 1 MiB"),
        (
            Self::Daemon,
            "what the daemon does: copy 1 MiB, then splice through 1 MiB",
        ),
        (Self::Sockmap, "sockmap, redirected by a program"),
    ];
}

struct Round {
    lasted: Duration,
    relay: Duration,
    machine: Duration,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().next().unwrap_or_default();
    let mut table = format!(
        "Linux {}, {} processors, load {load} before it began; {} GiB a round, the middle one of {ROUNDS}.\n\n\
         | way | MB/s | processor time of the relay per GB | busy time of the machine per GB |\n|---|---|---|---|\n",
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        thread::available_parallelism()?,
        BYTES >> 30,
    );
    let mut rounds: Vec<Vec<Round>> = Way::ALL.iter().map(|_| Vec::new()).collect();
    // In turns, so that what else the machine does falls on all of them.
    for _ in 0..ROUNDS {
        for ((way, name), rounds) in Way::ALL.iter().zip(&mut rounds) {
            let round = measure(*way).with_context(|| (*name).to_owned())?;
            eprintln!("{name}: {:?}, relay {:?}", round.lasted, round.relay);
            rounds.push(round);
        }
    }
    for ((_, name), rounds) in Way::ALL.iter().zip(&mut rounds) {
        let middle = |pick: fn(&Round) -> Duration, rounds: &mut Vec<Round>| {
            rounds.sort_by_key(pick);
            pick(&rounds[ROUNDS / 2])
        };
        let micros = middle(|round| round.lasted, rounds).as_micros().max(1);
        let per_gb = |time: Duration| time.as_millis() * 1_000_000_000 / u128::from(BYTES);
        writeln!(
            table,
            "| {name} | {} | {} ms | {} ms |",
            u128::from(BYTES) / micros,
            per_gb(middle(|round| round.relay, rounds)),
            per_gb(middle(|round| round.machine, rounds)),
        )?;
    }
    measured::write("passthrough", &table)
}

/// A source and a sink on threads of their own, and the relay between them on this one.
fn measure(way: Way) -> Result<Round> {
    let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let back = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (to, port) = (front.local_addr()?, front.local_addr()?.port());
    #[allow(
        clippy::disallowed_methods,
        reason = "both ends of the relay are this program's own"
    )]
    let source = thread::spawn(move || send(TcpStream::connect(to)?));
    #[allow(clippy::disallowed_methods, reason = "as above")]
    let upstream = TcpStream::connect(back.local_addr()?)?;
    let (client, _) = front.accept()?;
    let (server, _) = back.accept()?;
    for socket in [&client, &upstream] {
        socket.set_nonblocking(true)?;
    }
    let (began, own, machine) = (Instant::now(), own_time()?, machine_time()?);
    let sink = thread::spawn(move || receive(server));
    match way {
        Way::Copy | Way::Splice(_) | Way::Daemon => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let (client, upstream) = (Stream::from_std(client)?, Stream::from_std(upstream)?);
                let counted = Counted::default();
                let (judge, split) = (|_: &_| Ok(()), tokio::io::split);
                match way {
                    Way::Splice(pipe) => splice_all(&client, &upstream, pipe).await?,
                    Way::Daemon => {
                        let client = Rewind::new(bytes::Bytes::new(), client);
                        relay(client, upstream, false, judge, &counted).await?;
                    }
                    _ => relay_halves(split(client), split(upstream), false, judge, &counted).await?,
                }
                anyhow::Ok(())
            })?;
            sink.join()
                .map_err(|_panic| anyhow::anyhow!("the sink panicked"))??;
        }
        Way::Sockmap => {
            let _joined = sockmap(&client, &upstream, port)?;
            sink.join()
                .map_err(|_panic| anyhow::anyhow!("the sink panicked"))??;
        }
    }
    let round = Round {
        lasted: began.elapsed(),
        relay: own_time()?.saturating_sub(own),
        machine: machine_time()?.saturating_sub(machine),
    };
    source
        .join()
        .map_err(|_panic| anyhow::anyhow!("the source panicked"))??;
    Ok(round)
}

fn send(mut to: TcpStream) -> io::Result<()> {
    let chunk = vec![7; CHUNK];
    let mut left = BYTES;
    while left > 0 {
        to.write_all(&chunk)?;
        left = left.saturating_sub(CHUNK as u64);
    }
    to.shutdown(std::net::Shutdown::Write)
}

/// As many bytes as were sent: a sockmap passes no end on.
fn receive(mut from: TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; 4 * CHUNK];
    let mut left = BYTES;
    while left > 0 {
        match from.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left = left.saturating_sub(read as u64),
        }
    }
    Ok(())
}

/// One direction is all that is measured.
async fn splice_all(from: &Stream, to: &Stream, most: usize) -> io::Result<()> {
    let (out, into) = pipe(most)?;
    loop {
        from.readable().await?;
        let Some(mut held) = would_block(from.try_io(Interest::READABLE, || splice(from, &into, most)))?
        else {
            continue;
        };
        if held == 0 {
            return Ok(());
        }
        while held > 0 {
            to.writable().await?;
            if let Some(gone) = would_block(to.try_io(Interest::WRITABLE, || splice(&out, to, most)))? {
                held = held.saturating_sub(gone);
            }
        }
    }
}

fn would_block(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        outcome => outcome.map(Some),
    }
}

fn splice(from: &impl AsRawFd, to: &impl AsRawFd, most: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let (none, nowhere) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: both descriptors are open; no offsets are given.
    let moved = unsafe { libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), nowhere, most, flags) };
    usize::try_from(moved).map_err(|_negative| io::Error::last_os_error())
}

fn pipe(size: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: there is room for both descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just given both to us alone.
    let [out, into] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
    let size = i32::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open.
    check(unsafe { libc::fcntl(into.as_raw_fd(), libc::F_SETPIPE_SZ, size) })?;
    Ok((out, into))
}

/// Two sockets in a map, and a program that sends what one receives out by the other. Holds while what it gives is kept.
fn sockmap(client: &TcpStream, upstream: &TcpStream, port: u16) -> Result<[OwnedFd; 2]> {
    const SOCKMAP: u32 = 15;
    const SK_SKB: u32 = 14;
    const STREAM_VERDICT: u32 = 5;
    const REDIRECT: u32 = 52;
    const LOCAL_PORT: u64 = 136;
    let map = owned(bpf(0, &[u64::from(SOCKMAP) | 4 << 32, 4 | 2 << 32])?)?;
    let fd = u64::from(map.as_raw_fd().cast_unsigned());
    // What arrives at the client's socket, whose own port is the relay's, goes to entry 1, all else to entry 0.
    let program: [u64; 9] = [
        0x61 | 1 << 12 | LOCAL_PORT << 16,      // r0 = context.local_port
        0xb7 | 3 << 8,                          // r3 = 0
        0x55 | 1 << 16 | u64::from(port) << 32, // if r0 != port, over the next
        0xb7 | 3 << 8 | 1 << 32,                // r3 = 1
        0x18 | 2 << 8 | 1 << 12 | fd << 32,     // r2 = the map
        0,
        0xb7 | 4 << 8, // r4 = 0
        0x85 | u64::from(REDIRECT) << 32,
        0x95,
    ];
    let license = c"GPL";
    let mut load = [0; 9];
    load[0] = u64::from(SK_SKB) | 9 << 32;
    load[1] = program.as_ptr() as u64;
    load[2] = license.as_ptr() as u64;
    load[8] = u64::from(STREAM_VERDICT) << 32;
    let verdict = owned(bpf(5, &load).context("loading the program")?)?;
    let verdict_fd = u64::from(verdict.as_raw_fd().cast_unsigned());
    bpf(8, &[fd | verdict_fd << 32, u64::from(STREAM_VERDICT)]).context("attaching it")?;
    for (key, socket) in [client, upstream].into_iter().enumerate() {
        let (key, value) = (u32::try_from(key)?, socket.as_raw_fd());
        let entry = [fd, &raw const key as u64, &raw const value as u64, 0];
        bpf(2, &entry).context("adding a socket")?;
    }
    Ok([map, verdict])
}

fn bpf(command: libc::c_long, attributes: &[u64]) -> io::Result<libc::c_long> {
    // SAFETY: the attributes are plain numbers and pointers to live memory, as long as is said.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            std::mem::size_of_val(attributes),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    // SAFETY: the kernel has just given it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd)?) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Of this thread.
fn own_time() -> io::Result<Duration> {
    // SAFETY: all-zero is a valid rusage; the kernel fills it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is ours.
    check(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) })?;
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(time.tv_usec.cast_unsigned())
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// Of all processors, by everybody.
fn machine_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let numbers = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let all: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>()?;
    // user, nice, system, then idle and waiting, then interrupts.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|at| all.get(*at)).sum();
    Ok(Duration::from_millis(busy * 10))
}
