//! Pictures that stand in a body in base64: how many tokens each may take beyond its bytes.
//!
//! In: a text of the body. Out: nothing where it is no picture. On failure: a picture whose size cannot be read counts as
//! [`UNKNOWN`].
//!
//! Providers bill a picture by its pixels, which compress well. The dearest documented ways, for every size: OpenAI
//! divides it into squares of 32 pixels and counts up to 2.46 tokens for each (gpt-4.1-nano), so one for a square of
//! [`SQUARE`]; Anthropic counts width × height / 750; Google 258 for 768 × 768, or 2,240 at most for any
//! (developers.openai.com/api/docs/guides/images-vision, platform.claude.com/docs/en/build-with-claude/vision,
//! ai.google.dev/gemini-api/docs/media-resolution). [`ANY`] is above the least of each. All of them scale large pictures
//! down, on which nothing here relies.

/// Pixels along one edge of a square that takes one token.
const SQUARE: u64 = 20;
/// Tokens that a picture of any size may take.
const ANY: u64 = 2_560;
/// Tokens of a picture whose size is not known.
const UNKNOWN: u64 = 16_384;
/// Characters of base64 in which the size has to stand; a longer text has more bytes than such a picture takes tokens.
const LOOKED_AT: usize = 256 * 1024;

/// How base64 of the usual kinds begins; JPEG also where `/` is written `_`.
const BEGINS: [&str; 5] = ["iVBORw0KGgo", "/9j/", "_9j_", "R0lGOD", "UklGR"];

/// What pictures of a body add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Pictures {
    /// How many.
    pub count: u64,
    /// Tokens that they may take beyond their bytes.
    pub beyond: u64,
}

impl Pictures {
    /// None at all.
    pub(crate) fn is_none(&self) -> bool {
        self.count == 0
    }

    /// Looks at one text of the body.
    pub(crate) fn look(&mut self, text: &str) {
        let Some(data) = encoded(text) else { return };
        let start = decoded(data.get(..LOOKED_AT).unwrap_or(data));
        let tokens = size(&start).map_or(UNKNOWN, |(width, height)| tokens(width, height));
        self.count = self.count.saturating_add(1);
        self.beyond = self
            .beyond
            .saturating_add(tokens.saturating_sub(data.len() as u64));
    }
}

/// The base64 of a picture.
fn encoded(text: &str) -> Option<&str> {
    let text = text.trim_ascii_start();
    let is_url = text
        .get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
    if is_url {
        let (kind, data) = text.split_once(',')?;
        let image = kind
            .get(5..11)
            .is_some_and(|kind| kind.eq_ignore_ascii_case("image/"));
        return image.then_some(data);
    }
    // HEIF and AVIF: the length of their first box begins with zeros, and its name follows.
    let boxed = text.starts_with("AAAA") && text.get(5..12).is_some_and(|name| name.contains("Z0eX"));
    (boxed || BEGINS.iter().any(|begin| text.starts_with(begin))).then_some(text)
}

/// As far as it can be decoded, in either alphabet.
pub(crate) fn decoded(data: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in data.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.extend(u8::try_from(bits >> held & 0xff));
        }
    }
    out
}

fn tokens(width: u64, height: u64) -> u64 {
    let squares = width.div_ceil(SQUARE).saturating_mul(height.div_ceil(SQUARE));
    squares.saturating_add(ANY)
}

/// Width and height in pixels.
fn size(file: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize, bytes: usize, little: bool| -> Option<u64> {
        let raw = file.get(at..at + bytes)?;
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        Some(if little {
            raw.iter().rev().fold(0, add)
        } else {
            raw.iter().fold(0, add)
        })
    };
    let big = |at, bytes| number(at, bytes, false);
    let little = |at, bytes| number(at, bytes, true);
    match file {
        [0x89, b'P', b'N', b'G', ..] => big(16, 4).zip(big(20, 4)),
        [b'G', b'I', b'F', ..] => little(6, 2).zip(little(8, 2)),
        [b'R', b'I', b'F', b'F', ..] => match file.get(12..16)? {
            b"VP8 " => Some((little(26, 2)? & 0x3fff, little(28, 2)? & 0x3fff)),
            b"VP8L" => {
                let bits = little(21, 4)?;
                Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
            }
            b"VP8X" => Some((little(24, 3)? + 1, little(27, 3)? + 1)),
            _ => None,
        },
        [0xff, 0xd8, ..] => jpeg(file),
        _ => None,
    }
}

/// The frame that a JPEG names before its data.
fn jpeg(file: &[u8]) -> Option<(u64, u64)> {
    let at16 = |at: usize| -> Option<u64> {
        let raw: [u8; 2] = file.get(at..at + 2)?.try_into().ok()?;
        Some(u64::from(u16::from_be_bytes(raw)))
    };
    let mut at = 2;
    loop {
        let marker = match (file.get(at)?, file.get(at + 1)?) {
            (0xff, 0xff) => {
                at += 1;
                continue;
            }
            (0xff, marker) => *marker,
            _ => return None,
        };
        match marker {
            // Frames; the others of this range are tables.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                return Some((at16(at + 7)?, at16(at + 5)?));
            }
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => {
                at = at
                    .checked_add(2)?
                    .checked_add(usize::try_from(at16(at + 2)?).ok()?)?
            }
        }
    }
}

#[cfg(test)]
pub(crate) use tests::heads;
#[cfg(test)]
mod tests;
