//! Who sent a DNS query, asked by the descriptor of the socket that it arrived at.
//!
//! In: one of Guard's UDP sockets, and the marks of a datagram. Out: its record; the original destination is the resolver
//! that was asked. On failure: the query has no sender, and must be refused. Needs no capability.

use std::{net::SocketAddr, os::fd::BorrowedFd, time::Duration};

use guard_common::dns::{Query, SOCKOPT_QUERY_LEVEL, option_name};

use super::{
    flow::{Flow, NoFlow, read, socket_address},
    sys::monotonic_ns,
};

/// How old a record may be: a query waits in the socket's buffer for milliseconds, and longer while a worker is replaced.
const FRESH: Duration = Duration::from_secs(10);

/// Reads the record of the query with this id that came from `client`.
pub fn query_of(fd: BorrowedFd<'_>, client: SocketAddr, id: u16) -> Result<Flow, NoFlow> {
    let mut record = Query::default();
    read(
        fd,
        SOCKOPT_QUERY_LEVEL,
        option_name(client.port(), id),
        &mut record,
    )?;
    let sender = socket_address(&record.client, client.port());
    let age = monotonic_ns().saturating_sub(record.ktime_ns);
    if sender.ip() != client.ip().to_canonical() || u128::from(age) > FRESH.as_nanos() {
        return Err(NoFlow::NoRecord);
    }
    Ok(Flow::from(&record.flow))
}
