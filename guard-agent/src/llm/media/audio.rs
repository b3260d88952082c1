//! How long a recording can be, from its bytes alone.
//!
//! In: a file. Out: thousandths of a second, at most. On failure: `None`, where the file is of no kind that is known here.
//!
//! What is not compressed, and MPEG audio, tells its length exactly: the samples that a reader gets out of it are counted.
//! In every other format a second takes at least [`LEAST`] bytes: the lowest bit rate that Opus has for speech (RFC 6716
//! §2: 6 kbit/s), below those of AAC and of FLAC. Silence can be packed closer than that. What a provider bills beyond
//! the bound is booked when it says so, and raised as a finding.

/// Bytes that a second of compressed sound takes at least.
const LEAST: u64 = 750;
/// Bytes of a second of MPEG audio, at least: its lowest bit rate is 8 kbit/s.
const LEAST_MPEG: u64 = 1_000;
/// Chunks of a WAV file that are looked at.
const CHUNKS: usize = 64;

/// The longest that it can last.
pub(super) fn longest_millis(file: &[u8]) -> Option<u64> {
    let at = |from: usize, mark: &[u8]| file.get(from..).is_some_and(|rest| rest.starts_with(mark));
    if at(0, b"RIFF") && at(8, b"WAVE") {
        return wav(file);
    }
    if at(0, b"fLaC") {
        return flac(file);
    }
    let ogg_or_webm = at(0, b"OggS") || at(0, &[0x1a, 0x45, 0xdf, 0xa3]);
    if ogg_or_webm || at(4, b"ftyp") {
        return Some(packed(file, LEAST));
    }
    let sound = file.get(tagged(file)..)?;
    match sound {
        // Layer 0 is no MPEG audio but AAC with the same mark (ADTS).
        [0xff, second, ..] if second & 0xf6 == 0xf0 => Some(packed(file, LEAST)),
        [0xff, second, ..] if second & 0xe0 == 0xe0 => {
            Some(mpeg(sound).unwrap_or_else(|| packed(file, LEAST_MPEG)))
        }
        _ => None,
    }
}

fn packed(file: &[u8], least: u64) -> u64 {
    (file.len() as u64).saturating_mul(1_000).div_ceil(least)
}

fn le16(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u64::from(u16::from_le_bytes(bytes)))
}

fn le32(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u64::from(u32::from_le_bytes(bytes)))
}

/// All bytes as samples, whatever the file says about its length: some readers believe it, others read on.
fn wav(file: &[u8]) -> Option<u64> {
    let mut rest = file.get(12..)?;
    let mut format: Option<&[u8]> = None;
    let mut found = false;
    for _ in 0..CHUNKS {
        let Some((name, size)) = rest.get(..4).zip(le32(rest, 4)) else {
            // No more chunks: nothing in it is read as sound.
            found = true;
            break;
        };
        let size = usize::try_from(size).ok()?;
        let content = rest.get(8..)?;
        match name {
            // Which of two would count?
            b"fmt " if format.is_some() => return None,
            b"fmt " => format = Some(content.get(..size)?),
            b"data" => {
                found = true;
                break;
            }
            _ => {}
        }
        rest = content.get(size.checked_add(size & 1)?..).unwrap_or_default();
    }
    // Among more chunks than these there could be another format.
    let format = format.filter(|_| found)?;
    let (mut kind, channels) = (le16(format, 0)?, le16(format, 2)?);
    let (rate, bits) = (le32(format, 4)?, le16(format, 14)?);
    if kind == 0xfffe {
        kind = le16(format, 24)?;
    }
    // PCM, floats, A-law and µ-law; anything else is compressed.
    if !matches!(kind, 1 | 3 | 6 | 7) {
        return Some(packed(file, LEAST));
    }
    // Readers take a sample of these two for a byte, whatever is said of it.
    if matches!(kind, 6 | 7) && bits != 8 {
        return None;
    }
    let second = rate.checked_mul(channels)?.checked_mul(bits.div_ceil(8))?;
    let millis = (file.len() as u64).checked_mul(1_000)?;
    (second > 0).then(|| millis.div_ceil(second))
}

/// What its first block says, where that is longer than its bytes let one think.
fn flac(file: &[u8]) -> Option<u64> {
    let info = file.get(8..8 + 34)?;
    let byte = |at: usize| info.get(at).copied().map_or(0, u64::from);
    let rate = byte(10) << 12 | byte(11) << 4 | byte(12) >> 4;
    let low = (14..18).fold(0, |sum, at| sum << 8 | byte(at));
    let samples = (byte(13) & 0xf) << 32 | low;
    let said = samples.checked_mul(1_000)?.div_ceil(rate.max(1));
    Some(packed(file, LEAST).max(said))
}

/// The length of the tag that some files have in front (ID3v2).
fn tagged(file: &[u8]) -> usize {
    match file {
        [b'I', b'D', b'3', _, _, _, a, b, c, d, ..] => {
            let size = [a, b, c, d]
                .iter()
                .fold(0, |sum, byte| sum << 7 | usize::from(**byte & 0x7f));
            size + 10
        }
        _ => 0,
    }
}

/// Every frame of MPEG audio. `None`: what stands there is not frames alone.
fn mpeg(sound: &[u8]) -> Option<u64> {
    let mut rest = sound;
    let mut micros: u64 = 0;
    loop {
        let Some(frame) = rest.get(..4).and_then(|head| Frame::of(head.try_into().ok()?)) else {
            // A tag may stand at the end (ID3v1, APE), and nothing else.
            let tag = rest.starts_with(b"TAG") || rest.starts_with(b"APETAGEX");
            return (rest.len() < 4 || tag && rest.len() <= 4_096).then(|| micros.div_ceil(1_000));
        };
        micros = micros.checked_add(frame.micros)?;
        rest = rest.get(frame.bytes..).unwrap_or_default();
    }
}

/// A frame of MPEG audio: how many bytes, and how long it sounds.
struct Frame {
    bytes: usize,
    micros: u64,
}

/// Bit rates in kbit/s, by version and layer.
const V1_L1: [u64; 14] = [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448];
const V1_L2: [u64; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
const V1_L3: [u64; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
const V2_L1: [u64; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];
const V2_L23: [u64; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];
const RATES: [u64; 3] = [44_100, 48_000, 32_000];

impl Frame {
    fn of(head: [u8; 4]) -> Option<Self> {
        let [first, second, third, _] = head;
        if first != 0xff || second & 0xe0 != 0xe0 {
            return None;
        }
        let layer = 4 - u64::from(second >> 1 & 3);
        // 3 is version 1, 2 version 2, 0 version 2.5.
        let version = second >> 3 & 3;
        let first_version = version == 3;
        let table = match (first_version, layer) {
            (true, 1) => V1_L1,
            (true, 2) => V1_L2,
            (true, 3) => V1_L3,
            (false, 1) => V2_L1,
            (false, 2 | 3) if version != 1 => V2_L23,
            _ => return None,
        };
        // The first index stands for a rate of the file's own.
        let kilobits = table.get(usize::from(third >> 4).checked_sub(1)?)?;
        let rate = RATES.get(usize::from(third >> 2 & 3))?;
        let rate = match version {
            3 => *rate,
            2 => rate / 2,
            _ => rate / 4,
        };
        let padding = u64::from(third >> 1 & 1);
        let samples = match (layer, first_version) {
            (1, _) => 384,
            (3, false) => 576,
            _ => 1_152,
        };
        let bytes = match layer {
            1 => (12_000 * kilobits / rate + padding) * 4,
            _ => samples / 8 * 1_000 * kilobits / rate + padding,
        };
        Some(Self {
            bytes: usize::try_from(bytes).ok().filter(|bytes| *bytes >= 4)?,
            micros: (samples * 1_000_000).div_ceil(rate),
        })
    }
}

#[cfg(test)]
mod tests;
