//! Server-sent events, cut out of a byte stream as it passes (WHATWG HTML §9.2.6).
//!
//! In: chunks of any size. Out: each event's data, and where in the chunk it ends. On failure: an event longer than
//! `EVENT_LIMIT` is reported as oversize; its bytes are not kept.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// Bytes of one event that are kept while its end has not come. A provider's largest ordinary events are inline
/// images of a few megabytes; a stream costs this much memory only while it is inside such an event.
pub const EVENT_LIMIT: usize = 8 * 1024 * 1024;

/// What the scanner found at an event's end.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A complete event: its data lines joined with LF. Empty for comments and named events without data.
    Event(Cow<'a, [u8]>),
    /// An event larger than `EVENT_LIMIT`; what it said is unknown.
    Oversize,
}

/// The incremental scanner. One value per stream.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The event begun in earlier chunks, raw.
    partial: Vec<u8>,
    /// The current event outgrew the limit.
    oversize: bool,
    /// The last byte ended a line with CR: an LF that follows belongs to it.
    after_cr: bool,
    /// Inside a line, so that a terminator ends this line and not the event.
    in_line: bool,
    /// The first event was seen: no byte order mark after it.
    started: bool,
}

/// Where the next event ended.
#[derive(Debug)]
pub struct Step<'a> {
    /// What ended here.
    pub found: Found<'a>,
    /// Offset in the chunk just behind the event's blank line.
    pub end: usize,
}

impl Scanner {
    /// Finds the end of the next event in `chunk` from offset `from` on. `None`: the rest of the chunk was taken in and
    /// the event goes on in the next one. Call again with `from = step.end` until `None`.
    pub fn next<'a>(&mut self, chunk: &'a [u8], mut from: usize) -> Option<Step<'a>> {
        if self.owes_lf() && from < chunk.len() {
            self.after_cr = false;
            from += usize::from(chunk.get(from) == Some(&b'\n'));
        }
        let mut at = from;
        while let Some(&byte) = chunk.get(at) {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                at += 1;
                continue;
            }
            if !self.in_line && (byte == b'\r' || byte == b'\n') {
                let after = chunk.get(at + 1);
                self.after_cr = byte == b'\r' && after.is_none();
                let crlf = byte == b'\r' && after == Some(&b'\n');
                return Some(self.end(chunk, from, at + 1 + usize::from(crlf)));
            }
            let rest = chunk.get(at..).unwrap_or_default();
            match memchr2(b'\r', b'\n', rest) {
                None => {
                    self.in_line = true;
                    break;
                }
                Some(offset) => {
                    self.in_line = false;
                    self.after_cr = rest.get(offset) == Some(&b'\r');
                    at += offset + 1;
                }
            }
        }
        self.keep(chunk.get(from..).unwrap_or_default());
        None
    }

    /// Whether an event has begun that has not ended.
    pub fn inside_event(&self) -> bool {
        self.oversize || !self.partial.is_empty()
    }

    /// Whether an LF at the start of the next chunk belongs to the event that ended last.
    pub fn owes_lf(&self) -> bool {
        self.after_cr && !self.inside_event()
    }

    /// Bytes of the unfinished event that are kept.
    pub fn kept(&self) -> usize {
        self.partial.len()
    }

    /// The stream ended inside an event: what it holds so far. A browser drops it; a meter reads it, because the
    /// last event of some providers lacks the blank line.
    pub fn take_rest(&mut self) -> Option<Found<'static>> {
        if std::mem::take(&mut self.oversize) {
            return Some(Found::Oversize);
        }
        let raw = std::mem::take(&mut self.partial);
        (!raw.is_empty()).then(|| Found::Event(Cow::Owned(data_of(&raw, !self.started).into_owned())))
    }

    fn end<'a>(&mut self, chunk: &'a [u8], from: usize, end: usize) -> Step<'a> {
        let tail = chunk.get(from..end).unwrap_or_default();
        let first = !std::mem::replace(&mut self.started, true);
        let found = if std::mem::take(&mut self.oversize) || self.partial.len() + tail.len() > EVENT_LIMIT {
            self.partial = Vec::new();
            Found::Oversize
        } else if self.partial.is_empty() {
            Found::Event(data_of(tail, first))
        } else {
            let mut raw = std::mem::take(&mut self.partial);
            raw.extend_from_slice(tail);
            Found::Event(Cow::Owned(data_of(&raw, first).into_owned()))
        };
        Step { found, end }
    }

    fn keep(&mut self, tail: &[u8]) {
        if self.oversize || self.partial.len() + tail.len() > EVENT_LIMIT {
            self.oversize = self.oversize || !tail.is_empty();
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(tail);
        }
    }
}

/// The values of the `data` fields of one raw event, joined with LF.
fn data_of(raw: &[u8], first: bool) -> Cow<'_, [u8]> {
    let mut rest = match (first, raw.strip_prefix(b"\xef\xbb\xbf".as_slice())) {
        (true, Some(without_mark)) => without_mark,
        _ => raw,
    };
    let mut data: Option<Cow<'_, [u8]>> = None;
    while !rest.is_empty() {
        let end = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let line = rest.get(..end).unwrap_or_default();
        rest = rest.get(end + 1..).unwrap_or_default();
        let Some(value) = data_value(line) else { continue };
        match &mut data {
            None => data = Some(Cow::Borrowed(value)),
            Some(joined) => {
                let joined = joined.to_mut();
                joined.push(b'\n');
                joined.extend_from_slice(value);
            }
        }
    }
    data.unwrap_or_default()
}

/// The value of a line when its field is `data`: without one leading space.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    let colon = memchr(b':', line).unwrap_or(line.len());
    if line.get(..colon) != Some(b"data") {
        return None;
    }
    let value = line.get(colon + 1..).unwrap_or_default();
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<String> {
        let mut scanner = Scanner::default();
        let mut all = Vec::new();
        let mut push = |found: Found<'_>| match found {
            Found::Event(data) => all.push(String::from_utf8(data.into_owned()).unwrap()),
            Found::Oversize => all.push("OVERSIZE".to_owned()),
        };
        for chunk in chunks {
            let mut from = 0;
            while let Some(step) = scanner.next(chunk, from) {
                assert!(step.end > from && step.end <= chunk.len());
                from = step.end;
                push(step.found);
            }
        }
        if let Some(found) = scanner.take_rest() {
            push(found);
        }
        all
    }

    #[test]
    fn reads_every_line_ending_and_joins_data_lines() {
        for text in [
            "data: a\ndata:b\n\ndata\n\n: note\n\nevent: x\nid: 1\ndata:  c\n\n",
            "data: a\r\ndata:b\r\n\r\ndata\r\n\r\n: note\r\n\r\nevent: x\r\nid: 1\r\ndata:  c\r\n\r\n",
            "data: a\rdata:b\r\rdata\r\r: note\r\revent: x\rid: 1\rdata:  c\r\r",
            "\u{feff}data: a\r\ndata:b\n\ndata\r\r: note\n\nevent: x\rid: 1\ndata:  c\r\n\r\n",
        ] {
            let whole = events(&[text.as_bytes()]);
            assert_eq!(whole, ["a\nb", "", "", " c"], "{text:?}");
            for cut in 0..text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                assert_eq!(events(&[head, tail]), whole, "{text:?} at {cut}");
            }
        }
    }

    #[test]
    fn an_event_without_its_blank_line_is_still_read() {
        assert_eq!(events(&[b"data: a\n\ndata: b"]), ["a", "b"]);
        assert_eq!(events(&[b"data: a\n\ndata: b\n"]), ["a", "b"]);
        assert_eq!(events(&[b"data: a\n\n"]), ["a"]);
    }

    #[test]
    fn other_fields_are_not_data() {
        assert_eq!(events(&[b"database: no\ndata : no\n data: no\n\n"]), [""]);
    }

    #[test]
    fn an_oversize_event_is_dropped_and_the_next_one_read() {
        let big = vec![b'x'; EVENT_LIMIT];
        assert_eq!(events(&[b"data: ", &big, b"\n\ndata: b\n\n"]), ["OVERSIZE", "b"]);
        let mut one = b"data: ".to_vec();
        one.extend_from_slice(&big);
        one.extend_from_slice(b"\n\ndata: b\n\n");
        assert_eq!(events(&[&one]), ["OVERSIZE", "b"]);
        assert_eq!(events(&[b"data: ", &big, b"x"]), ["OVERSIZE"]);
    }
}
