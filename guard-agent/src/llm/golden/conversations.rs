//! Golden conversations on a socket.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::fuzz::replies::Rules;
use crate::llm::frames::{MESSAGE_END, message};
use crate::llm::socket::{Request, Session};
use crate::llm::{Gate, InReply, ReplyFacts};

/// The lines of one, in the directory of its format.
pub(in crate::llm) fn lines(format: &str, name: &str) -> Vec<String> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/llm/golden")
        .join(format)
        .join(name);
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What passes of a provider's messages, and what was learnt.
pub(in crate::llm) fn read(
    session: &dyn Session,
    request: &Request,
    how: Option<InReply>,
    messages: &[Value],
) -> (Vec<Value>, ReplyFacts) {
    let gate = how.map(|how| Arc::new(Rules::new(how)) as Arc<dyn Gate>);
    let mut reader = session.reader(request, gate.as_ref());
    let mut out = Vec::new();
    for one in messages {
        out.extend_from_slice(&reader.feed(Bytes::from(message(one.to_string().as_bytes()))));
    }
    let (rest, facts) = reader.finish();
    out.extend_from_slice(&rest);
    let each = out
        .split(|byte| *byte == MESSAGE_END)
        .filter(|text| !text.is_empty());
    (
        each.map(|text| serde_json::from_slice(text).unwrap()).collect(),
        facts,
    )
}
