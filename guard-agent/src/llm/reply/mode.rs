//! Where the reader of a reply stands.

/// How the reply comes.
pub(super) enum Mode {
    /// Not clear from the head: the first byte decides.
    Undecided,
    /// One JSON value. `None`: it outgrew the limit.
    Json(Option<Vec<u8>>),
    /// A stream of events.
    Events,
}

/// What became of the event that ended last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The client has it.
    Forwarded,
    /// Hidden, or kept from the client.
    Dropped,
    /// It waits for a call to be judged.
    Queued,
}
