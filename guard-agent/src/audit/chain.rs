//! Lines, their hashes, and the files that hold them.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// `prev` of the very first record.
pub(super) const GENESIS: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
/// `,"hash":"sha256:` + 64 digits + `"}`
const SEAL: usize = 16 + 64 + 2;

/// Name of the alert that accounts for an unfinished line.
pub(super) const TORN: &str = "audit.torn";

/// `sha256:` and the hash of some bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// Completes a record's JSON text (which ends in `}`) with its hash, and gives both.
pub(super) fn seal(line: &str) -> (String, String) {
    let hash = digest(line.as_bytes());
    let open = line.strip_suffix('}').unwrap_or(line);
    (format!("{open},\"hash\":\"{hash}\"}}\n"), hash)
}

/// What a line says of its place in the chain.
#[derive(Debug, Deserialize)]
pub(super) struct Link {
    pub prev: String,
    pub hash: String,
    pub time: String,
    #[serde(default)]
    pub alert: Option<String>,
    #[serde(default)]
    pub evidence: Option<String>,
}

impl Link {
    /// Reads a line (without its newline); `None` when it is no complete record.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

/// The hash that a line should have: of everything but its last member, which must be `hash`.
pub(super) fn expected_hash(line: &[u8]) -> Option<String> {
    let (open, seal) = line.split_at_checked(line.len().checked_sub(SEAL)?)?;
    if !seal.starts_with(br#","hash":"sha256:"#) || !seal.ends_with(br#""}"#) {
        return None;
    }
    let mut text = open.to_vec();
    text.push(b'}');
    Some(digest(&text))
}

/// The files of a directory, oldest first; their names sort by day and number.
pub(super) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let ours = path
            .file_name()
            .and_then(|n| n.to_str())
            .is_some_and(|name| parse_name(name).is_some());
        if ours {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Day and number of a file name.
pub(super) fn parse_name(name: &str) -> Option<(u32, u32)> {
    let (day, number) = name
        .strip_prefix("audit-")?
        .strip_suffix(".jsonl")?
        .split_once('-')?;
    (day.len() == 8 && number.len() == 6).then_some(())?;
    Some((day.parse().ok()?, number.parse().ok()?))
}

pub(super) fn file_name(day: u32, number: u32) -> String {
    format!("audit-{day:08}-{number:06}.jsonl")
}

/// The end of what a directory holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Hash of the last record.
    pub head: String,
    /// The last file.
    pub file: Option<PathBuf>,
    /// Bytes behind the last record, in the last file.
    pub torn: Vec<u8>,
    /// The last record is complete but for its newline.
    pub unterminated: bool,
}

/// Finds the end of the chain. Reads the last file, and older ones only while no record is found.
pub(super) fn end(dir: &Path) -> Result<End, (PathBuf, io::Error)> {
    let files = files(dir).map_err(|e| (dir.to_owned(), e))?;
    let mut end = End {
        head: GENESIS.into(),
        file: files.last().cloned(),
        torn: Vec::new(),
        unterminated: false,
    };
    for path in files.iter().rev() {
        let bytes = std::fs::read(path).map_err(|e| (path.clone(), e))?;
        let mut last = None;
        let mut offset = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            offset += line.len();
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            if let Some(link) = Link::read(text) {
                last = Some((link.hash, offset, text.len() == line.len()));
            }
        }
        let behind = last.as_ref().map_or(0, |(_, offset, _)| *offset);
        if Some(path) == end.file.as_ref() {
            end.torn = bytes.get(behind..).unwrap_or_default().to_vec();
            end.unterminated = last.as_ref().is_some_and(|(_, _, unterminated)| *unterminated);
        }
        if let Some((hash, _, _)) = last {
            end.head = hash;
            break;
        }
    }
    Ok(end)
}
