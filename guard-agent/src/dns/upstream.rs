//! Asks a resolver.
//!
//! In: a query and a socket that is connected to the resolver. Out: the bytes of an answer to this very query. On failure:
//! no answer in five seconds. The id is new and random, as is the source port; what does not match is not listened to.

use std::io;
use std::net::{TcpStream as StdTcpStream, UdpSocket as StdUdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::Query;

/// As long as a client waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST: usize = 65_535;

pub(super) async fn over_udp(socket: OwnedFd, query: &Query) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::from_std(StdUdpSocket::from(socket))?;
    let id = rand::random();
    socket.send(&query.with_id(id)).await?;
    let answer = async {
        let mut buffer = vec![0; LARGEST];
        loop {
            let length = socket.recv(&mut buffer).await?;
            let answer = buffer.get(..length).unwrap_or_default();
            if query.is_answered_by(answer, id) {
                return Ok(answer.to_vec());
            }
        }
    };
    timeout(PATIENCE, answer).await?
}

pub(super) async fn over_tcp(socket: OwnedFd, query: &Query) -> io::Result<Vec<u8>> {
    let id = rand::random();
    let answer = async {
        let mut stream = TcpStream::from_std(StdTcpStream::from(socket))?;
        // It is connected once it can be written to.
        stream.writable().await?;
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        let bytes = query.with_id(id);
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&bytes);
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        if query.is_answered_by(&answer, id) {
            Ok(answer)
        } else {
            Err(io::Error::other("the answer is to another question"))
        }
    };
    timeout(PATIENCE, answer).await?
}
