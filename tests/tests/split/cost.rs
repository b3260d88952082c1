//! What a new connection costs; printed, and written down in docs/performance.md.

use anyhow::{Context, Result, ensure};
use guard_tests::lab::Lab;

/// A new TCP connection and the first answer through it: Guard accepts, finds out who called, peeks, dials and relays.
const NEW: &str = "import socket, ssl, time
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
took = []
for i in range(400):
    s = socket.socket(); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    began = time.perf_counter()
    s.connect(('203.0.113.30', 443))
    t = context.wrap_socket(s, server_hostname='www.example.org')
    took.append(time.perf_counter() - began)
    t.close()
took = sorted(took[50:])
print(*(round(took[int(len(took) * part)] * 1e6) for part in (0.5, 0.9, 0.99)))";

/// `GUARD_AGENT_BIN` names another daemon to compare with.
#[test]
fn a_new_connection() -> Result<()> {
    let lab = Lab::builder().start()?;
    for (place, name) in [(lab.coder(), "governed"), (lab.outside(), "not governed")] {
        let done = place.spawn("python3").args(["-c", NEW]).run()?.ok()?;
        let mut parts = done.stdout.split_whitespace().map(str::parse::<u64>);
        let mut next = || parts.next().context("no number")?.context("no number");
        let (p50, p90, p99) = (next()?, next()?, next()?);
        eprintln!("new connection and TLS handshake, {name}: p50 {p50} us, p90 {p90} us, p99 {p99} us");
        ensure!(p50 < 250_000, "{name}: {p50} us");
    }
    let metrics = lab.metrics()?;
    let stage = [("stage", "identify")];
    let seconds = metrics.value("guard_added_seconds_sum", &stage)?;
    let count = metrics.value("guard_added_seconds_count", &stage)?;
    eprintln!(
        "finding out who called, mean of {count}: {:.0} us",
        seconds / count * 1e6
    );
    Ok(())
}
