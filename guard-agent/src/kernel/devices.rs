//! The veth devices of the calling thread's network namespace, and word of every change among its devices. This speaks
//! rtnetlink(7) itself; the layouts are those of linux/if_link.h, in the machine's byte order.

use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket},
};
use socket2::Socket;

use super::netlink::{DUMP, HEADER, NLMSG_DONE, NLMSG_ERROR, REQUEST, array, attribute, message, messages};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// ifinfomsg in bytes, and where the device's number is in it.
const ANSWER: usize = 16;
const INDEX: usize = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// Changes of devices.
const RTMGRP_LINK: u32 = 1;
/// The kernel fills at most this much of a dump at once.
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once; this only bounds a mistake.
const PATIENCE: Duration = Duration::from_secs(5);

/// The numbers of all veth devices.
pub(super) fn pairs() -> io::Result<Vec<u32>> {
    let netlink = open(0)?;
    netlink.set_read_timeout(Some(PATIENCE))?;
    (&netlink).write_all(&message(RTM_GETLINK, REQUEST | DUMP, 1, &[0; ANSWER])?)?;
    let mut found = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = (&netlink).read(&mut buffer)?;
        for message in messages(buffer.get(..length).unwrap_or_default()) {
            match message.kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(io::Error::from_raw_os_error(message.errno())),
                RTM_NEWLINK => found.extend(pair(message.body)),
                _ => {}
            }
        }
    }
}

/// The number of the device that this is about, if it is a veth device.
fn pair(body: &[u8]) -> Option<u32> {
    let info = attribute(body.get(ANSWER..)?, IFLA_LINKINFO)?;
    let kind = attribute(info, IFLA_INFO_KIND)?;
    (kind.strip_suffix(&[0]).unwrap_or(kind) == b"veth").then_some(())?;
    array(body, INDEX).map(u32::from_ne_bytes)
}

/// Hears of every change among the devices.
#[derive(Debug)]
pub(super) struct Changes(Socket);

impl Changes {
    /// From now on, in the calling thread's namespace.
    pub(super) fn hear() -> io::Result<Self> {
        let socket = open(RTMGRP_LINK)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// Back when something changed, or after this long.
    pub(super) fn wait(&self, at_most_ms: u16) -> io::Result<()> {
        poll(
            &mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)],
            PollTimeout::from(at_most_ms),
        )?;
        // What it was does not matter, nor that some of it was lost: the devices are looked at.
        let mut buffer = [0; HEADER];
        while (&self.0).read(&mut buffer).is_ok_and(|length| length > 0) {}
        Ok(())
    }
}

fn open(groups: u32) -> io::Result<Socket> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &NetlinkAddr::new(0, groups),
    )?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_veth_device_is_told_from_others_and_a_cut_answer_is_none() {
        let answer = |kind: &[u8]| {
            let mut body = vec![0; ANSWER];
            body[INDEX..INDEX + 4].copy_from_slice(&7_u32.to_ne_bytes());
            body.extend(attribute_of(3, b"veth0\0"));
            // Newer kernels set the flag of a nested attribute.
            body.extend(attribute_of(
                IFLA_LINKINFO | 0x8000,
                &attribute_of(IFLA_INFO_KIND, kind),
            ));
            body
        };
        assert_eq!(pair(&answer(b"veth\0")), Some(7));
        assert_eq!(pair(&answer(b"bridge\0")), None);
        let whole = answer(b"veth\0");
        for cut in 0..whole.len() - 4 {
            assert_eq!(pair(&whole[..cut]), None, "{cut}");
        }
    }
}
