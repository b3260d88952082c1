//! The frame of netlink messages (netlink(7)), in the machine's byte order: what is sent to the kernel, and how what it
//! answers is taken apart. A length that does not fit ends the reading.

use std::io;

pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const REQUEST: u16 = 0x1;
pub(super) const DUMP: u16 = 0x300;
/// nlmsghdr in bytes.
pub(super) const HEADER: usize = 16;
/// Flags in an attribute's type.
const KIND: u16 = 0x3fff;

/// A message to the kernel.
pub(super) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    Ok(message)
}

/// One netlink message.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

impl Message<'_> {
    /// What an error message says; 0 is "done".
    pub(super) fn errno(&self) -> i32 {
        array(self.body, 0).map_or(libc::EPROTO, |bytes| i32::from_ne_bytes(bytes).saturating_neg())
    }
}

/// The messages of one answer.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(array(bytes, 0)?)).ok()?;
        let message = Message {
            kind: u16::from_ne_bytes(array(bytes, 4)?),
            sequence: u32::from_ne_bytes(array(bytes, 8)?),
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The first attribute of this kind.
pub(super) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(array(bytes, 0)?));
        let value = bytes.get(4..length)?;
        if u16::from_ne_bytes(array(bytes, 2)?) & KIND == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// So many bytes from there on, if there are.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::{attribute, messages};

    #[test]
    fn a_length_of_zero_ends_the_reading() {
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert!(attribute(&[0; 64], 21).is_none());
    }
}
