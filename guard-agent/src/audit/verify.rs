//! Checks the chain offline.

use std::io;
use std::path::{Path, PathBuf};

use super::chain::{self, GENESIS, Link, TORN};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Files read.
    pub files: usize,
    /// Records whose hash and place are right.
    pub records: u64,
    /// Unfinished lines that a later record accounts for.
    pub torn: u64,
    /// The first record is the very first one. False when older files were removed: whether that was retention or a
    /// crime the chain cannot say.
    pub from_genesis: bool,
    /// The last line is unfinished, and no record accounts for it yet: a writer is at work, or died just now.
    pub unfinished: bool,
    /// Hash of the last good record. Records that were removed from the end leave no trace in the chain: compare this
    /// with a head that was noted elsewhere.
    pub head: Option<String>,
    /// Time of the last good record.
    pub last_time: Option<String>,
    /// The first thing that is wrong; nothing behind it was checked.
    pub broken: Option<Broken>,
}

impl VerifyReport {
    /// Whether everything that was read is in order.
    pub fn is_sound(&self) -> bool {
        self.broken.is_none()
    }
}

/// The first broken record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// In which file.
    pub file: PathBuf,
    /// In which line, counted from 1.
    pub line: u64,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.why)
    }
}

/// Checks every record in a directory. An edited, inserted, removed or reordered record is found wherever it is, but for
/// two cases that no chain by itself can show: records cut off at the beginning (`from_genesis` is then false) and
/// whole records cut off at the end (compare `head`). Who can write the files can also write a whole new chain.
pub fn verify(dir: &Path) -> io::Result<VerifyReport> {
    let mut check = Check {
        report: VerifyReport::default(),
        torn: Vec::new(),
    };
    let files = chain::files(dir)?;
    let newest = files.last().cloned();
    for path in files {
        check.report.files += 1;
        let bytes = std::fs::read(&path)?;
        let mut number = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            number += 1;
            if let Err(why) = check.line(line) {
                check.report.broken = Some(Broken {
                    file: path,
                    line: number,
                    why,
                });
                return Ok(check.report);
            }
        }
        // The account of an unfinished line stands in the same file.
        if !check.torn.is_empty() && newest.as_ref() != Some(&path) {
            let why = "not a record, and no later record accounts for it".into();
            check.report.broken = Some(Broken {
                file: path,
                line: number,
                why,
            });
            return Ok(check.report);
        }
    }
    check.report.unfinished = !check.torn.is_empty();
    Ok(check.report)
}

struct Check {
    report: VerifyReport,
    /// Unreadable bytes since the last record.
    torn: Vec<u8>,
}

impl Check {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let Some(link) = Link::read(text) else {
            self.torn.extend_from_slice(line);
            return Ok(());
        };
        if !self.torn.is_empty() {
            let torn = self.torn.strip_suffix(b"\n").unwrap_or(&self.torn);
            let accounted = link.alert.as_deref() == Some(TORN)
                && link.evidence.as_deref() == Some(chain::digest(torn).as_str());
            if !accounted {
                return Err("the line before is not a record, and this one does not account for it".into());
            }
            self.torn.clear();
            self.report.torn += 1;
        }
        match chain::expected_hash(text) {
            None => return Err("the hash is not the last member".into()),
            Some(hash) if hash != link.hash => {
                return Err(format!(
                    "the record was changed: its hash should be {hash}, it says {}",
                    link.hash
                ));
            }
            Some(_) => {}
        }
        match &self.report.head {
            None => self.report.from_genesis = link.prev == GENESIS,
            Some(head) if *head != link.prev => {
                return Err(format!(
                    "records are missing or out of order: the one before is {head}, this one follows {}",
                    link.prev
                ));
            }
            Some(_) => {}
        }
        self.report.records += 1;
        self.report.head = Some(link.hash);
        self.report.last_time = Some(link.time);
        Ok(())
    }
}
