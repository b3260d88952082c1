//! Reads records while the daemon writes them; needs no more than read access to the directory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chain;

/// Bytes taken from a file at once.
const CHUNK: u64 = 1 << 20;

/// The last `count` lines, oldest first.
pub fn last(dir: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for path in chain::files(dir)?.iter().rev() {
        let bytes = std::fs::read(path)?;
        let text = String::from_utf8_lossy(complete(&bytes));
        found.extend(text.lines().rev().take(count - found.len()).map(str::to_owned));
        if found.len() >= count {
            break;
        }
    }
    found.reverse();
    Ok(found)
}

/// The record of this id (of a call, mostly; the newest one), looked for from the end.
pub fn find(dir: &Path, id: &str) -> io::Result<Option<String>> {
    let wanted = format!("\"id\":{}", serde_json::to_string(id)?);
    for path in chain::files(dir)?.iter().rev() {
        let bytes = std::fs::read(path)?;
        let mut rest = complete(&bytes);
        while let Some(at) = memchr::memmem::rfind(rest, wanted.as_bytes()) {
            let begin = memchr::memrchr(b'\n', rest.get(..at).unwrap_or_default()).map_or(0, |at| at + 1);
            let tail = bytes.get(begin..).unwrap_or_default();
            let line = tail.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line).into_owned();
            // The text can also stand inside another record: only the record's own member counts.
            let own = serde_json::from_str::<serde_json::Value>(&line)
                .is_ok_and(|record| record.get("id").and_then(|own| own.as_str()) == Some(id));
            if own {
                return Ok(Some(line));
            }
            rest = rest.get(..begin).unwrap_or_default();
        }
    }
    Ok(None)
}

/// Up to and with the last newline.
fn complete(bytes: &[u8]) -> &[u8] {
    let end = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
    bytes.get(..end).unwrap_or_default()
}

/// Gives new lines as they come, across files.
#[derive(Debug)]
pub struct Follow {
    dir: PathBuf,
    file: Option<PathBuf>,
    offset: u64,
}

impl Follow {
    /// Begins behind the last line that is there now.
    pub fn from_end(dir: &Path) -> io::Result<Self> {
        let file = chain::files(dir)?.pop();
        let offset = match &file {
            Some(path) => u64::try_from(complete(&std::fs::read(path)?).len()).unwrap_or(u64::MAX),
            None => 0,
        };
        Ok(Self {
            dir: dir.to_owned(),
            file,
            offset,
        })
    }

    /// The lines that have come since; empty when there are none. Call it again after a moment.
    pub fn poll(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        for path in chain::files(&self.dir)? {
            match &self.file {
                Some(current) if path < *current => continue,
                Some(current) if path == *current => {}
                Some(_) | None => {
                    self.file = Some(path.clone());
                    self.offset = 0;
                }
            }
            self.read(&path, &mut lines)?;
        }
        Ok(lines)
    }

    fn read(&mut self, path: &Path, lines: &mut Vec<String>) -> io::Result<()> {
        let mut file = File::open(path)?;
        loop {
            file.seek(SeekFrom::Start(self.offset))?;
            let mut bytes = Vec::new();
            file.by_ref().take(CHUNK).read_to_end(&mut bytes)?;
            let whole = complete(&bytes);
            if whole.is_empty() {
                return Ok(());
            }
            self.offset = self
                .offset
                .saturating_add(u64::try_from(whole.len()).unwrap_or(u64::MAX));
            lines.extend(String::from_utf8_lossy(whole).lines().map(str::to_owned));
        }
    }
}
