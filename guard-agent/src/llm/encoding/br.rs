//! The `br` coding (RFC 7932).

use std::io::Write;

use super::{DecodeError, Sink};

/// Whether a stream that begins with this byte asks for a window that the coding does not have: encoders know one of up to
/// 1 GiB, which the decoder here would set up for a stream of nine bytes. RFC 7932 §9.1 has 16 MiB at most, and says that
/// this pattern is invalid.
pub(super) fn beyond(first: u8) -> bool {
    first & 0x7f == 0b001_0001
}

/// Decodes one stream, to at most `limit` bytes; says too how many bytes there are behind it.
pub(super) fn decode(body: &[u8], limit: usize) -> Result<(Vec<u8>, usize), DecodeError> {
    if body.first().is_some_and(|first| beyond(*first)) {
        return Err(DecodeError::Malformed);
    }
    let mut decoder = brotli::DecompressorWriter::new(Sink::new(limit), 16 * 1024);
    // One write takes everything up to the stream's end.
    let taken = decoder.write(body);
    let whole = taken.is_ok() && decoder.close().is_ok();
    let sink = decoder.into_inner().unwrap_or_else(|sink| sink);
    match taken {
        _ if sink.full => Err(DecodeError::TooLarge(limit)),
        Ok(taken) if whole => Ok((sink.out, body.len() - taken)),
        _ => Err(DecodeError::Malformed),
    }
}
