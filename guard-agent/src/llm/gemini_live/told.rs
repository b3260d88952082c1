//! Where in a turn of the model's a message of Live's stands.
//!
//! A turn begins with the first message that holds anything of it and ends with `turnComplete`. What Guard does not know is
//! taken for a part of a turn, so that nothing passes beside it.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::llm::gemini::usage::WireUsage;
use crate::llm::request::lenient;
use crate::llm::socket::{Mark, Told};

/// Members of a message that are no part of a turn.
const BESIDE: [&str; 6] = [
    "setupComplete",
    "goAway",
    "sessionResumptionUpdate",
    "voiceActivity",
    "voiceActivityDetectionSignal",
    "usageMetadata",
];
/// Members of `serverContent` that hold nothing that the model has made.
const EMPTY: [&str; 7] = [
    "turnComplete",
    "turnCompleteReason",
    "interrupted",
    "waitingForInput",
    "interactionStatus",
    "inputTranscription",
    "interimInputTranscription",
];

/// The turn that is under way.
#[derive(Debug, Default)]
pub(super) struct Turn {
    active: bool,
    /// What it has read and made, as was said last.
    total: Option<u64>,
}

type Members<'a> = HashMap<Cow<'a, str>, &'a RawValue>;

impl Turn {
    /// Whether one is under way.
    pub(super) fn is_active(&self) -> bool {
        self.active
    }

    /// Places a message. Also: what a turn that ends here has read and made, if that was said.
    pub(super) fn place(&mut self, message: &[u8]) -> (Told, Option<Option<u64>>) {
        let Ok(members) = serde_json::from_slice::<Members<'_>>(message) else {
            return (Told::plain(Mark::Part), None);
        };
        let content: Members<'_> = match members.get("serverContent") {
            None => Members::new(),
            Some(raw) => match serde_json::from_str(raw.get()) {
                Ok(content) => content,
                Err(_) => return (Told::plain(Mark::Part), None),
            },
        };
        let beside = |name: &Cow<'_, str>| BESIDE.contains(&&**name) || name == "serverContent";
        let cancels = members.contains_key("toolCallCancellation");
        let made = content.keys().any(|name| !EMPTY.contains(&&**name))
            || members
                .keys()
                .any(|name| !beside(name) && name != "toolCallCancellation");
        let usage = members.get("usageMetadata").copied();
        let told = lenient::<WireUsage>(usage).and_then(|usage| usage.buckets());
        if let Some(told) = told {
            self.total = Some(told.total_tokens());
        }
        let ends = content.get("turnComplete").is_some_and(|raw| raw.get() == "true");
        let interrupted = content.contains_key("interrupted");
        let mark = match (self.active, ends) {
            (true, true) => Mark::End,
            (false, true) if made || usage.is_some() => Mark::Whole,
            (true, false) if made || cancels || interrupted || usage.is_some() => Mark::Part,
            (false, false) if made => Mark::Begin,
            _ => Mark::Aside,
        };
        match mark {
            Mark::Begin => self.active = true,
            Mark::End | Mark::Whole => {
                self.active = false;
                return (Told::plain(mark), Some(self.total.take()));
            }
            _ => {}
        }
        (Told::plain(mark), None)
    }
}
