//! An ordinary web site: it says what it was asked, so that a test sees whether anyone changed it on the way.

use serde_json::json;

use super::{Answer, Seen};

pub(super) fn answer(seen: &Seen) -> Answer {
    Answer::json(
        200,
        json!({
            "site": "www.example.org",
            "method": seen.method.as_str(),
            "path": seen.path,
            "credential": seen.credential(),
            "body": String::from_utf8_lossy(&seen.body),
        }),
    )
}
