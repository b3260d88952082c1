//! kill -9 of the daemon at random moments, under load: nothing governed slips out, nobody else notices.
//!
//! `GUARD_KILLS` says how often; `cargo xtask test --kills 200` sets it.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use guard_tests::lab::Lab;
use guard_tests::process::Running;

const KILLS: u32 = 20;
const CALL: &str = "openai --model gpt-5 --max-tokens 1000";
/// Every how many kills it is the worker alone that dies.
const WORKER_ONLY: u32 = 4;
/// The port that only governed clients try: Guard itself never goes there, since they say nothing.
const GOVERNED: u16 = 7443;
/// The same for others.
const OUTSIDE: u16 = 7444;

/// Says which of the two ports it saw a packet to, on any device but loopback: each once, until it is asked for more.
const CAPTURE: &str = "import socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)); s.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)
print('ready', flush=True); told = set()
while True:
    packet, where = s.recvfrom(2048)
    if where[0] == 'lo' or len(packet) < 24 or packet[0] >> 4 != 4 or packet[9] not in (6, 17): continue
    at = (packet[0] & 15) * 4; port = struct.unpack('!H', packet[at + 2:at + 4])[0]
    if port in (7443, 7444) and (port, packet[9]) not in told:
        told.add((port, packet[9])); print('tcp' if packet[9] == 6 else 'udp', port, flush=True)";

/// Connects and sends for ever, in four threads; says every hundredth time that it does. It is not quicker than a daemon
/// without optimisation can serve on a busy machine, which would then be late for everybody.
const HAMMER: &str = "import socket, sys, threading, time
def hammer(port):
    n = 0
    while True:
        n += 1
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            s = socket.socket(socket.AF_INET, kind); s.settimeout(5)
            try:
                s.connect(('203.0.113.10', port))
                if kind == socket.SOCK_DGRAM: s.send(b'x')
            except OSError: pass
            s.close()
        time.sleep(0.01)
        if n % 100 == 0: print(n, flush=True)
for _ in range(4): threading.Thread(target=hammer, args=(int(sys.argv[1]),)).start()";

/// Somebody else's work: a connection must be made each time.
const BYSTANDER: &str = "import socket, time
n = 0
while True:
    try: s = socket.create_connection(('203.0.113.10', 443), 10); s.close(); n += 1
    except OSError as error: print('failed:', error, flush=True)
    if n % 100 == 1: print('fine', n, flush=True)
    time.sleep(0.002)";

/// Moments that differ from run to run; the seed is shown.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let seed = (u64::from(std::process::id()) << 20) | 1;
        eprintln!("seed {seed}");
        Self(seed)
    }

    fn pause(&mut self, most: u64) {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        thread::sleep(Duration::from_millis(self.0 % most));
    }
}

#[test]
fn killed_at_random_moments_nothing_governed_gets_out_and_nobody_else_fails() -> Result<()> {
    let kills = std::env::var("GUARD_KILLS").map_or(Ok(KILLS), |text| text.parse())?;
    let lab = Lab::builder().start()?;
    let python = |place: guard_tests::lab::Place<'_>, script: &str, arguments: &[&str]| -> Result<Running> {
        let spawn = place.spawn("python3").args(["-c", script]).args(arguments);
        spawn.start()
    };
    let mut capture = python(lab.outside(), CAPTURE, &[])?;
    assert_eq!(capture.line()?, "ready");
    let mut governed = python(lab.coder(), HAMMER, &[&GOVERNED.to_string()])?;
    let mut bystander = python(lab.outside(), BYSTANDER, &[])?;
    assert_eq!(bystander.line()?, "fine 1");
    governed.line()?;

    let mut moments = Moments::new();
    for kill in 1..=kills {
        moments.pause(600);
        if kill % WORKER_ONLY == 0 {
            lab.kill_one(lab.worker()?)?;
            continue;
        }
        lab.kill_daemon()?;
        moments.pause(300);
        lab.start_daemon()
            .with_context(|| format!("start after kill {kill}"))?;
    }

    let said = governed.said().0;
    assert!(said.lines().count() > 4, "there was load: {said}");
    governed.kill();
    bystander.kill();
    let (said, trouble) = bystander.said();
    assert!(
        !said.contains("failed") && said.contains("fine 101"),
        "{said}{trouble}"
    );
    assert_eq!(capture.said().0, "ready\n", "in {kills} kills");
    // The capture would have seen them.
    let mut outside = python(lab.outside(), HAMMER, &[&OUTSIDE.to_string()])?;
    let mut seen = [capture.line()?, capture.line()?];
    seen.sort();
    assert_eq!(seen, [format!("tcp {OUTSIDE}"), format!("udp {OUTSIDE}")]);
    outside.kill();
    assert_eq!(lab.coder().call(CALL)?["ok"], true, "and work goes on");
    Ok(())
}
