//! A plain reply under a gate: it is held until it is there as a whole, and then passes, is edited, or is replaced.

use bytes::Bytes;
use serde_json::Value;

use crate::llm::Gate;
use crate::llm::gate::Unjudged;
use crate::llm::reply::{Edit, Format, Mode, Reader};
use crate::llm::values::few_values;
use crate::refusal::Refusal;

impl<F: Format> Reader<F> {
    /// Whether nothing passes before the end.
    pub(super) fn holds_all(&self) -> bool {
        self.calls.gate().is_some() && matches!(self.mode, Mode::Json(_))
    }

    /// The whole reply: as it came, edited, or a refusal.
    pub(super) fn judge_whole(&mut self, body: Option<Vec<u8>>, readable: bool) -> Bytes {
        let Some(gate) = self.calls.gate().cloned() else {
            return Bytes::new();
        };
        self.calls.end_all();
        let Some(body) = body.filter(|_| readable) else {
            return self.replaced(gate.unjudged(Unjudged::Reply).refusal, gate.as_ref());
        };
        if let Some(refusal) = self.calls.fatal().cloned() {
            return self.replaced(refusal, gate.as_ref());
        }
        if !self.calls.any_denied() {
            return Bytes::from(body);
        }
        let edit = match few_values(&body).then(|| serde_json::from_slice(&body)) {
            Some(Ok(value)) => self.format.without_in_whole(value, &mut self.calls),
            _ => Edit::Cannot,
        };
        match edit {
            Edit::Events(values) => Bytes::from(values.iter().map(Value::to_string).collect::<String>()),
            // A denied call was read in it: what has stayed the same still has it.
            Edit::Same | Edit::Cannot => self.replaced(gate.unjudged(Unjudged::Call).refusal, gate.as_ref()),
        }
    }

    fn replaced(&mut self, refusal: Refusal, gate: &dyn Gate) -> Bytes {
        let words = self.format.instead(&refusal, gate.request_id());
        self.replaced = Some(refusal);
        words
    }
}
