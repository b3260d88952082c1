//! Whether a tool's result says that the tool failed.

/// Bytes at the beginning of a result that are looked at.
const LOOKED_AT: usize = 256;

/// How results of failed tools begin, in lower case, without leading quotes and brackets. A guess: it may warn, and
/// nothing is refused because of it.
const BEGINNINGS: [&str; 12] = [
    "error",
    "traceback",
    "exception",
    "fatal",
    "failed",
    "failure",
    "panic",
    "permission denied",
    "command failed",
    "tool error",
    "timed out",
    "exit code",
];

/// Whether a tool failed, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sign {
    /// Nothing says that it failed.
    #[default]
    Fine,
    /// It reads like a failure.
    Likely,
    /// The format's own flag says that it failed.
    Declared,
}

/// Reads the sign of a result. `failed` is the format's own flag, where it has one and the request sets it.
pub(super) fn sign(raw: &str, failed: Option<bool>) -> Sign {
    match failed {
        Some(true) => Sign::Declared,
        Some(false) => Sign::Fine,
        None if reads_like_failure(raw) => Sign::Likely,
        None => Sign::Fine,
    }
}

fn reads_like_failure(raw: &str) -> bool {
    let end = raw.floor_char_boundary(LOOKED_AT);
    let head = raw.get(..end).unwrap_or_default().to_ascii_lowercase();
    // Content parts: the text stands behind the part's own names.
    let text = match head.find("\"text\"") {
        Some(at) if head.starts_with(['[', '{']) => head.get(at + 6..).unwrap_or_default(),
        Some(_) | None => head.as_str(),
    };
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric());
    BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
}
