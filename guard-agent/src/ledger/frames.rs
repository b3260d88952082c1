//! A segment's bytes as records, in either format; what is damaged is skipped up to the next record that is whole.

use memchr::memmem;

use super::record::Numbered;
use super::{codec, text};

/// How the records of one segment are written. A segment never mixes formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON lines, of the first version.
    Text,
    /// Frames.
    Binary,
}

impl Format {
    /// The format of a segment that begins with these bytes.
    pub(super) fn of(beginning: &[u8]) -> Self {
        match beginning.first() {
            Some(first) if first.is_ascii_hexdigit() => Self::Text,
            Some(_) | None => Self::Binary,
        }
    }
}

/// What stands at the beginning of some bytes, and how many it takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Record(Numbered, usize),
    /// No record begins here, nor anywhere in as many bytes.
    Damaged(usize),
    /// More bytes are needed to tell.
    More,
}

/// Reads one step. `complete`: nothing follows these bytes.
pub(super) fn step(format: Format, bytes: &[u8], complete: bool) -> Step {
    match format {
        Format::Text => line(bytes, complete),
        Format::Binary => frame(bytes, complete),
    }
}

fn line(bytes: &[u8], complete: bool) -> Step {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if complete {
            Step::Damaged(bytes.len())
        } else {
            Step::More
        };
    };
    let record = bytes.get(..end).and_then(text::decode);
    record.map_or(Step::Damaged(end + 1), |record| Step::Record(record, end + 1))
}

fn frame(bytes: &[u8], complete: bool) -> Step {
    if let Some((length, checksum)) = codec::head(bytes) {
        let end = codec::HEAD + length;
        match bytes.get(codec::HEAD..end) {
            Some(payload) => {
                if let Some(record) = codec::decode(payload, checksum) {
                    return Step::Record(record, end);
                }
            }
            None if !complete => return Step::More,
            None => {}
        }
    } else if !complete && bytes.len() < codec::HEAD {
        return Step::More;
    }
    let rest = bytes.get(1..).unwrap_or_default();
    match memmem::find(rest, &codec::MARKER) {
        Some(at) => Step::Damaged(at + 1),
        None if complete => Step::Damaged(bytes.len()),
        // The marker may be cut by the end of what was read.
        None => match bytes.len().saturating_sub(codec::MARKER.len()) {
            0 => Step::More,
            certain => Step::Damaged(certain),
        },
    }
}

/// A whole segment, read.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Complete records; a stretch that cannot be read is one `None`.
    pub records: Vec<Option<Numbered>>,
    /// Where the last readable record ends.
    pub end: usize,
}

/// Reads a whole segment.
pub(super) fn read(bytes: &[u8]) -> Contents {
    let format = Format::of(bytes);
    let mut contents = Contents::default();
    let mut readable = 0;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match step(format, rest, true) {
            Step::Record(record, used) => {
                at += used;
                contents.records.push(Some(record));
                contents.end = at;
                readable = contents.records.len();
            }
            Step::Damaged(skipped) => {
                at += skipped;
                if format == Format::Text || contents.records.len() == readable {
                    contents.records.push(None);
                }
            }
            Step::More => break,
        }
    }
    contents.records.truncate(readable);
    contents
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::record::Record;
    use crate::ledger::{Scope, ScopeKind};

    fn numbered(seq: u64) -> Numbered {
        let scope = Scope {
            kind: ScopeKind::Run,
            name: "r".into(),
        };
        let record = Record::Forget { at: 5, scope };
        Numbered { seq, record }
    }

    fn frames(count: u64) -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        for seq in 1..=count {
            codec::encode(seq, &numbered(seq).record, &mut bytes);
        }
        let each = bytes.len() / usize::try_from(count).unwrap();
        (bytes, each)
    }

    #[test]
    fn a_hole_costs_the_records_in_it_and_no_other() {
        let (whole, each) = frames(8);
        for begin in 0..whole.len() {
            for length in [1, 7, each, 2 * each] {
                let mut bytes = whole.clone();
                let end = (begin + length).min(bytes.len());
                bytes[begin..end].fill(0);
                if bytes == whole {
                    continue;
                }
                let lost =
                    u64::try_from(begin / each).unwrap() + 1..=u64::try_from((end - 1) / each).unwrap() + 1;
                let expected: Vec<_> = (1..=8).filter(|seq| !lost.contains(seq)).collect();
                let found: Vec<_> = read(&bytes)
                    .records
                    .into_iter()
                    .flatten()
                    .map(|n| n.seq)
                    .collect();
                let missing = expected.iter().all(|seq| found.contains(seq));
                assert!(missing, "a hole of {length} at {begin}: {found:?}");
            }
        }
    }

    #[test]
    fn read_in_pieces_of_any_size_it_is_the_same() {
        let (mut whole, each) = frames(6);
        whole[2 * each + 3] ^= 1;
        whole[3 * each + 1] ^= 1;
        for piece in 1..whole.len() {
            let (mut at, mut window, mut found) = (0, piece, Vec::new());
            while at < whole.len() {
                let end = (at + window).min(whole.len());
                match step(Format::Binary, &whole[at..end], end == whole.len()) {
                    Step::Record(record, used) => {
                        (at, window) = (at + used, piece);
                        found.push(record.seq);
                    }
                    Step::Damaged(skipped) => (at, window) = (at + skipped, piece),
                    Step::More => window *= 2,
                }
            }
            assert_eq!(found, [1, 2, 5, 6], "pieces of {piece}");
        }
    }
}
