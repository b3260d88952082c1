//! The only place that writes to the standard streams.

use std::io::{self, Write};

/// Writes a result.
///
/// # Errors
/// Standard output cannot be written to.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Writes what is not a result: warnings, errors, hints.
pub(super) fn complain(text: &str) {
    // If standard error is gone there is nobody left to tell.
    let _told = writeln!(io::stderr().lock(), "{text}");
}

/// Whether the reader of our output went away (`| head`), which is not a failure.
pub(super) fn is_broken_pipe(why: &anyhow::Error) -> bool {
    why.downcast_ref::<io::Error>()
        .is_some_and(|why| why.kind() == io::ErrorKind::BrokenPipe)
}
