//! `multipart/form-data`, read in the one way in which every reader reads it.
//!
//! In: the content type and the body. Out: the parts, as they stand there. On failure: `Malformed`. Readers differ in what
//! they forgive (text before the first boundary, bare line feeds, white space behind a boundary, headers that encode, names
//! that are escaped, a boundary within a part), so none of it is forgiven: a client must not show the firewall one form
//! and the provider another. Sources: RFC 7578, RFC 2046 §5.1.

use memchr::memmem::Finder;

use crate::llm::Malformed;

/// Most parts of one form: OpenAI takes 16 images beside a dozen fields.
const PARTS: usize = 128;
/// Most bytes of one part's headers.
const HEAD: usize = 4 * 1024;
/// Longest name of a part.
const NAME: usize = 64;
/// Longest boundary (RFC 2046).
const BOUNDARY: usize = 70;

/// One part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// It has a file name, so that readers keep it as a file and not as a field.
    pub(crate) is_file: bool,
    /// Its media type, where it names one.
    pub(crate) media: Option<&'a str>,
    /// Its content.
    pub(crate) content: &'a [u8],
}

impl<'a> Part<'a> {
    /// The text of a field.
    pub(crate) fn text(&self) -> Result<&'a str, Malformed> {
        let plain = self.media.is_none_or(|media| {
            let (kind, rest) = media.split_once(';').unwrap_or((media, ""));
            let utf8 = rest.is_empty() || rest.trim().eq_ignore_ascii_case("charset=utf-8");
            kind.trim().eq_ignore_ascii_case("text/plain") && utf8
        });
        let text = std::str::from_utf8(self.content).ok();
        text.filter(|_| plain && !self.is_file)
            .ok_or_else(|| malformed("a field that decides what the call costs is no plain text"))
    }
}

fn malformed(why: &str) -> Malformed {
    Malformed(format!("the form can't be read: {why}"))
}

/// Whether this content type is that of a form.
pub(crate) fn is_form(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("multipart/form-data")
}

/// The parts of a form.
pub(crate) fn parts<'a>(content_type: &str, body: &'a [u8]) -> Result<Vec<Part<'a>>, Malformed> {
    let boundary = boundary(content_type)?;
    let mark = format!("--{boundary}");
    let finder = Finder::new(mark.as_bytes());
    let mut rest = body
        .strip_prefix(mark.as_bytes())
        .ok_or_else(|| malformed("it does not begin with its boundary"))?;
    let mut parts = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix(b"--") {
            return match end {
                b"" | b"\r\n" if !parts.is_empty() => Ok(parts),
                b"" | b"\r\n" => Err(malformed("it is empty")),
                _ => Err(malformed("something stands behind its end")),
            };
        }
        rest = rest
            .strip_prefix(b"\r\n")
            .ok_or_else(|| malformed("something stands behind a boundary"))?;
        if parts.len() >= PARTS {
            return Err(malformed("it has too many parts"));
        }
        // Wherever the boundary stands, it ends the part: what some readers take for a part's content, others do not.
        let at = finder.find(rest).ok_or_else(|| malformed("its end is missing"))?;
        let (part, after) = rest.split_at(at);
        let part = part
            .strip_suffix(b"\r\n")
            .ok_or_else(|| malformed("a boundary does not begin a line"))?;
        parts.push(read(part)?);
        rest = after.get(mark.len()..).unwrap_or_default();
    }
}

/// The boundary that a content type names, and nothing beside it.
fn boundary(content_type: &str) -> Result<&str, Malformed> {
    let wrong = || malformed("its content type names no plain boundary");
    if !is_form(content_type) {
        return Err(malformed("its content type is not multipart/form-data"));
    }
    let (_, parameter) = content_type.split_once(';').ok_or_else(wrong)?;
    let (name, value) = parameter.trim().split_once('=').ok_or_else(wrong)?;
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').ok_or_else(wrong)?,
        None => value,
    };
    // Those of RFC 2046 that need no quotes, or that no reader takes for the end of an unquoted value.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_-./:=?".contains(&byte);
    let known = name.eq_ignore_ascii_case("boundary")
        && (1..=BOUNDARY).contains(&value.len())
        && value.bytes().all(plain);
    if known { Ok(value) } else { Err(wrong()) }
}

/// One part: its headers, a blank line, its content.
fn read(part: &[u8]) -> Result<Part<'_>, Malformed> {
    let window = part.get(..part.len().min(HEAD)).unwrap_or_default();
    let end = memchr::memmem::find(window, b"\r\n\r\n")
        .ok_or_else(|| malformed("the headers of a part have no end, or are too long"))?;
    let (head, content) = part.split_at(end);
    let head = std::str::from_utf8(head).ok();
    let head = head.ok_or_else(|| malformed("the headers of a part are no text"))?;
    let (mut disposition, mut media, mut encoding) = (None, None, None);
    for line in head.split("\r\n") {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| malformed("a header of a part has no name"))?;
        let place = match name.to_ascii_lowercase().as_str() {
            "content-disposition" => &mut disposition,
            "content-type" => &mut media,
            "content-transfer-encoding" => &mut encoding,
            "content-length" => continue,
            _ => return Err(malformed("a part has a header that forms do not have")),
        };
        if value.contains(['\r', '\n', '\0']) || place.replace(value.trim()).is_some() {
            return Err(malformed("a header of a part stands twice, or in several lines"));
        }
    }
    if encoding.is_some_and(|how| !matches!(how, "binary" | "8bit" | "7bit")) {
        return Err(malformed("a part is encoded"));
    }
    let disposition = disposition.ok_or_else(|| malformed("a part has no name"))?;
    let (name, is_file) = named(disposition)?;
    Ok(Part {
        name,
        is_file,
        media,
        content: content.get(b"\r\n\r\n".len()..).unwrap_or_default(),
    })
}

/// `form-data; name="…"; filename="…"`: the name, and whether there is a file name.
fn named(disposition: &str) -> Result<(&str, bool), Malformed> {
    let wrong = || malformed("the name of a part can be read in several ways");
    let mut rest = disposition.strip_prefix("form-data").ok_or_else(wrong)?;
    let (mut name, mut file, mut extended) = (None, None, None);
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches(' ');
        let (key, value) = parameter.split_once('=').ok_or_else(wrong)?;
        let place = match key {
            "name" => &mut name,
            "filename" => &mut file,
            "filename*" => &mut extended,
            _ => return Err(wrong()),
        };
        let after = match value.strip_prefix('"') {
            Some(quoted) => {
                let (inside, after) = quoted.split_once('"').ok_or_else(wrong)?;
                if inside.contains('\\') || place.replace(inside).is_some() {
                    return Err(wrong());
                }
                after
            }
            // `filename*=UTF-8''…` has no quotes, and some clients (.NET) write none around plain words.
            None => {
                let end = value.find(';').unwrap_or(value.len());
                let (inside, after) = value.split_at(end);
                let token = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
                let plain = match key {
                    "filename*" => !inside.contains(['\\', '"']),
                    _ => !inside.is_empty() && inside.bytes().all(token),
                };
                if !plain || place.replace(inside).is_some() {
                    return Err(wrong());
                }
                after
            }
        };
        rest = after;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-[].".contains(&byte);
    let name = name.filter(|name| (1..=NAME).contains(&name.len()) && name.bytes().all(plain));
    match name {
        Some(name) if rest.is_empty() => Ok((name, file.is_some() || extended.is_some())),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests;
