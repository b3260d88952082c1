//! DNS of governed processes through the whole daemon, with a resolver beside it on the host's loopback.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;

use anyhow::Result;
use guard_tests::lab::Lab;
use guard_tests::process::Spawn;

/// Where a C library asks that is told of no resolver.
const RESOLVER: &str = "127.0.0.1:53";
const A: u16 = 1;
const HTTPS: u16 = 65;
/// What no governed process may get.
const ECH: &[u8] = b"ech-configuration";

/// Answers A with the lab's site, HTTPS with a binding that has HTTP/3 and ECH in it, and all else with nothing.
fn answer(query: &[u8]) -> Vec<u8> {
    let end = query[12..].iter().position(|byte| *byte == 0).unwrap() + 12 + 5;
    let kind = u16::from_be_bytes([query[end - 4], query[end - 3]]);
    let data = match kind {
        A => vec![203, 0, 113, 30],
        HTTPS => {
            let mut data = vec![0, 1, 0];
            let ech_length = u16::try_from(ECH.len()).unwrap();
            data.extend([0, 1, 0, 6, 2, b'h', b'3', 2, b'h', b'2', 0, 5]);
            data.extend((ech_length + 2).to_be_bytes());
            data.extend(ech_length.to_be_bytes());
            data.extend(ECH);
            data
        }
        _ => Vec::new(),
    };
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(!data.is_empty()), 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if !data.is_empty() {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 60]);
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    answer
}

/// A resolver on the host's loopback, over UDP and TCP, until the test process ends.
fn resolver(lab: &Lab) -> Result<()> {
    let datagrams = lab.host().run(|| Ok(UdpSocket::bind(RESOLVER)?))?;
    let streams = lab.host().run(|| Ok(TcpListener::bind(RESOLVER)?))?;
    thread::spawn(move || {
        let mut query = [0; 4096];
        while let Ok((length, client)) = datagrams.recv_from(&mut query) {
            drop(datagrams.send_to(&answer(&query[..length]), client));
        }
    });
    thread::spawn(move || {
        for mut stream in streams.incoming().flatten() {
            let mut length = [0; 2];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut query).is_err() {
                continue;
            }
            let answer = answer(&query);
            let mut framed = u16::try_from(answer.len()).unwrap().to_be_bytes().to_vec();
            framed.extend(answer);
            drop(stream.write_all(&framed));
        }
    });
    Ok(())
}

const ASK: &str = r#"
import socket, struct, sys
def query(name, kind):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack("!6H", 0x1234, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, 1)
def udp(host, message):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)
    s.sendto(message, (host, 53)); answer, source = s.recvfrom(4096)
    assert source == (host, 53), source
    return answer
def tcp(host, message):
    s = socket.create_connection((host, 53), 20); s.sendall(struct.pack("!H", len(message)) + message)
    file = s.makefile("rb"); return file.read(struct.unpack("!H", file.read(2))[0])
def show(answer):
    assert answer[:2] == b"\x12\x34", answer
    print(answer[3] & 15, b"ech-configuration" in answer, b"h3" in answer, b"h2" in answer, flush=True)
"#;

fn python(spawn: Spawn, script: &str) -> Result<String> {
    let done = spawn.arg("-c").arg(format!("{ASK}\n{script}")).run()?.ok()?;
    Ok(done.stdout.trim().to_owned())
}

#[test]
fn look_ups_are_answered_by_the_resolver_that_was_asked_without_ech_and_the_agent_is_known() -> Result<()> {
    let lab = Lab::builder().start()?;
    resolver(&lab)?;
    let agent = |script: &str| python(lab.coder().spawn("python3"), script);
    let found =
        agent("print(socket.getaddrinfo('a.example', 443, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])")?;
    assert_eq!(found, "203.0.113.30");
    let ask =
        "show(udp('127.0.0.1', query('a.example', 65))); show(tcp('127.0.0.1', query('a.example', 65)))";
    assert_eq!(agent(ask)?, "0 False False True\n0 False False True");
    // Nobody else's answers are touched, and what is taken out is there.
    let outside = python(lab.outside().spawn("python3"), ask)?;
    assert_eq!(outside, "0 True True True\n0 True True True");
    let metrics = lab.metrics()?;
    let count = |outcome| {
        metrics.count(
            "guard_dns_queries_total",
            &[("agent", "coder"), ("outcome", outcome)],
        )
    };
    assert!(count("answered")? >= 1);
    assert_eq!(count("stripped")?, 2);
    Ok(())
}

#[test]
fn a_tunnel_is_refused_and_told_once_and_a_resolver_that_is_silent_is_a_failure() -> Result<()> {
    let lab = Lab::builder().start()?;
    resolver(&lab)?;
    let agent = |script: &str| python(lab.coder().spawn("python3"), script);
    let said = agent(
        "codes = [udp('127.0.0.1', query(f'{n:0>60}.{n:0>60}.{n:0>60}.t.example', 1))[3] & 15 for n in range(300)]
print(codes[:100].count(0), codes[-50:].count(5))",
    )?;
    assert_eq!(said, "100 50");
    let alerts = lab
        .audit()?
        .into_iter()
        .filter(|record| record.to_string().contains("dns.tunnel"))
        .count();
    assert!(alerts <= 1, "{alerts}");
    let metrics = lab.metrics()?;
    let findings = metrics.count(
        "guard_findings_total",
        &[("agent", "coder"), ("kind", "dns_tunnel")],
    )?;
    assert_eq!(findings, 1);
    // Another agent still asks; nobody listens at this address.
    let other = python(
        lab.other().spawn("python3"),
        "print(udp('127.0.0.99', query('a.example', 1))[3] & 15)",
    )?;
    assert_eq!(other, "2");
    Ok(())
}
