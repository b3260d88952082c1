//! The first format of the journal, still read: `LLLLLLLL CCCCCCCC {json}\n`, length and CRC-32 of the JSON text in
//! hexadecimal. Nothing is written in it any more.

use super::record::Numbered;

/// Bytes before the JSON text.
const HEAD: usize = 18;
/// No record is longer; a longer length field is damage, not a record.
const MAX_JSON: usize = 64 << 20;

/// The record of a line (without its newline); `None` when length, checksum or content is wrong.
pub(super) fn decode(line: &[u8]) -> Option<Numbered> {
    let hex = |range| u32::from_str_radix(std::str::from_utf8(line.get(range)?).ok()?, 16).ok();
    let length = usize::try_from(hex(0..8)?).ok()?;
    let checksum = hex(9..17)?;
    let json = line.get(HEAD..)?;
    if length > MAX_JSON || json.len() != length || crc32fast::hash(json) != checksum {
        return None;
    }
    serde_json::from_slice(json).ok()
}
