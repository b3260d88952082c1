//! A JSON reply with images in it, without the images: what is kept of it while it passes is small.
//!
//! In: the bytes of one JSON text, cut anywhere. Out: the same text, in which every long string is empty. On failure: a text
//! that is too long without its strings is given up.

/// A string of more bytes than this is left out: no field that is read here is as long.
const LONGEST: usize = 4 * 1024;

/// Keeps the text.
#[derive(Debug, Default)]
pub(super) struct Lean {
    kept: Vec<u8>,
    /// Where the string that is under way begins in `kept`.
    string: Option<usize>,
    escaped: bool,
    /// The string under way was left out.
    dropped: bool,
    limit: usize,
    given_up: bool,
}

impl Lean {
    /// Keeps at most so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut chunk: &[u8]) {
        while let Some(first) = chunk.first().filter(|_| !self.given_up) {
            let end = match self.string {
                // The byte behind a backslash says nothing about the string's end.
                Some(_) if std::mem::take(&mut self.escaped) => 1,
                Some(_) => match memchr::memchr2(b'"', b'\\', chunk) {
                    Some(0) if *first == b'\\' => {
                        self.escaped = true;
                        1
                    }
                    Some(0) => {
                        self.string = None;
                        self.dropped = false;
                        1
                    }
                    Some(at) => at,
                    None => chunk.len(),
                },
                None => match memchr::memchr(b'"', chunk) {
                    Some(at) => {
                        self.string = Some(self.kept.len() + at + 1);
                        at + 1
                    }
                    None => chunk.len(),
                },
            };
            let (part, rest) = chunk.split_at(end);
            if !self.dropped {
                self.kept.extend_from_slice(part);
            }
            if let Some(begins) = self.string.filter(|begins| self.kept.len() - begins > LONGEST) {
                self.kept.truncate(begins);
                self.dropped = true;
            }
            self.given_up = self.kept.len() > self.limit;
            chunk = rest;
        }
    }

    /// The text, unless it was given up.
    pub(super) fn text(&self) -> Option<&[u8]> {
        (!self.given_up).then_some(self.kept.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lean(text: &str, size: usize) -> Option<String> {
        let mut lean = Lean::new(100_000);
        for piece in text.as_bytes().chunks(size) {
            lean.push(piece);
        }
        lean.text().map(|text| String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn long_strings_are_left_out_and_everything_else_stays() {
        let long = "A\\\"\\\\".repeat(10_000);
        let text = format!(
            r#"{{"data":[{{"b64_json":"{long}","a\"b":"short\\"}},{{"b64_json":"é{long}"}}],"usage":1}}"#
        );
        let wanted = r#"{"data":[{"b64_json":"","a\"b":"short\\"},{"b64_json":""}],"usage":1}"#;
        for size in [1, 2, 3, 7, 100, 1_000_000] {
            assert_eq!(lean(&text, size).as_deref(), Some(wanted), "{size}");
            assert_eq!(lean(wanted, size).as_deref(), Some(wanted), "{size}");
        }
    }

    #[test]
    fn a_text_that_is_long_without_its_strings_is_given_up() {
        assert_eq!(lean(&"[".repeat(100_001), 999), None);
        assert!(lean(&"[".repeat(100_000), 999).is_some());
    }
}
