//! The tool calls of one reply, while it passes: what they are called, what they carry, and whether they may pass.
//!
//! In: pieces of calls, as a format finds them. Out: a judgement for each, from the gate. On failure (too many calls, one
//! that is too large, one that never ends): denied. Without a gate only the names are kept.

use std::sync::Arc;

use crate::llm::gate::Unjudged;
use crate::llm::{Denial, Gate, InReply, Judgement};
use crate::refusal::Refusal;

/// Most tool names kept from one reply, and most calls that are judged in one.
const CALL_LIMIT: usize = 256;

/// Longest tool name kept; providers allow 128 characters or fewer.
const NAME_LIMIT: usize = 256;

/// Largest arguments of one call that are held back to be judged.
pub(crate) const ARGUMENT_LIMIT: usize = 4 * 1024 * 1024;

/// Where a call stands: in which choice, and at which place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At {
    /// The choice (`n`); 0 where a format has no such thing.
    pub(crate) choice: u64,
    /// Its place, by the format's own count.
    pub(crate) index: u64,
}

/// How far a call has come.
enum State {
    /// Its name has not come yet.
    Unnamed,
    /// Its arguments are awaited.
    Open,
    /// It passes.
    Passed,
    /// It does not. The flag: its text has been put in its place.
    Denied(Box<Denial>, bool),
}

struct Call {
    at: At,
    name: String,
    arguments: String,
    state: State,
}

/// The calls of one reply.
#[derive(Default)]
pub(crate) struct Calls {
    gate: Option<Arc<dyn Gate>>,
    calls: Vec<Call>,
    called: Vec<String>,
    denied: Vec<String>,
    /// A denial that ends the reply.
    fatal: Option<Refusal>,
}

impl Calls {
    /// The calls of a reply that this gate judges.
    pub(super) fn new(gate: Option<Arc<dyn Gate>>) -> Self {
        Self {
            gate,
            ..Self::default()
        }
    }

    // --- what a format tells ---------------------------------------------------------------------------------------

    /// A piece of the call at this place: (more of) its name, more of its arguments.
    pub(crate) fn part(&mut self, at: At, name: Option<&str>, arguments: Option<&str>) {
        let Some(gate) = self.gate.clone() else {
            name.into_iter().for_each(|name| note(&mut self.called, name));
            return;
        };
        let Some(at) = self.open(at, gate.as_ref()) else {
            return;
        };
        let Some(call) = self.calls.get_mut(at) else {
            return;
        };
        let more = name.filter(|name| !name.is_empty());
        if let Some(more) = more {
            // Clients join the pieces of a name, so it is judged again with each of them.
            let begun = !call.name.is_empty();
            call.name.push_str(more);
            if begun && matches!(call.state, State::Passed) {
                // Its first piece has passed: what it becomes now cannot be taken back.
                let denial = gate.unjudged(Unjudged::Call);
                self.fatal.get_or_insert(denial.refusal.clone());
                call.state = State::Denied(Box::new(denial), false);
            } else if !matches!(call.state, State::Denied(..)) {
                call.state = State::Open;
                judge(call, gate.by_name(&call.name));
            }
        }
        if let (State::Open | State::Unnamed, Some(arguments)) = (&call.state, arguments) {
            if call.arguments.len() + arguments.len() > ARGUMENT_LIMIT {
                call.state = State::Denied(Box::new(gate.unjudged(Unjudged::Call)), false);
            } else {
                call.arguments.push_str(arguments);
            }
        }
        self.settle(at);
    }

    /// More arguments of what may be a call at this place: nothing if none has begun there.
    pub(crate) fn more(&mut self, at: At, arguments: &str) {
        if self.find(at).is_some() {
            self.part(at, None, Some(arguments));
        }
    }

    /// The call at this place is complete.
    pub(crate) fn end(&mut self, at: At) {
        let found = self.calls.iter().position(|call| call.at == at);
        if let Some(index) = found {
            self.end_one(index);
        }
    }

    /// The calls of this choice are complete.
    pub(crate) fn end_choice(&mut self, choice: u64) {
        (0..self.calls.len()).for_each(|index| {
            if self.calls.get(index).is_some_and(|call| call.at.choice == choice) {
                self.end_one(index);
            }
        });
    }

    /// A call that the provider runs itself: it is over when it can be read.
    pub(crate) fn by_provider(&mut self, name: &str) {
        note(&mut self.called, name);
    }

    // --- what a format asks when it takes a call out -----------------------------------------------------------------

    /// Whether this call was denied.
    pub(crate) fn is_denied(&self, at: At) -> bool {
        self.find(at)
            .is_some_and(|call| matches!(call.state, State::Denied(..)))
    }

    /// The text to put in the call's place; once, and none for a call that is only to be taken out.
    pub(crate) fn note(&mut self, at: At) -> Option<String> {
        match self
            .calls
            .iter_mut()
            .find(|call| call.at == at)
            .map(|call| &mut call.state)
        {
            Some(State::Denied(denial, told)) if denial.how == InReply::Replace && !*told => {
                *told = true;
                Some(denial.refusal.message.clone())
            }
            _ => None,
        }
    }

    /// Whether something of a call at this place has been told.
    pub(crate) fn begun(&self, at: At) -> bool {
        self.find(at).is_some()
    }

    /// The text that stands in the call's place, where a format tells the same call twice.
    pub(crate) fn message(&self, at: At) -> Option<String> {
        match self.find(at).map(|call| &call.state) {
            Some(State::Denied(denial, _)) if denial.how == InReply::Replace => {
                Some(denial.refusal.message.clone())
            }
            _ => None,
        }
    }

    /// How many denied calls of this choice stand before this place.
    pub(crate) fn denied_before(&self, at: At) -> u64 {
        self.missing_before(at, |call| matches!(call.state, State::Denied(..)))
    }

    /// How many of them leave nothing in their place.
    pub(crate) fn stripped_before(&self, at: At) -> u64 {
        self.missing_before(at, Call::is_stripped)
    }

    /// How many of these stand before this place and came in their turn. One that came when a later place was taken already
    /// moves nothing up: what moved would come to stand where another call is, and clients would join the two.
    fn missing_before(&self, at: At, gone: impl Fn(&Call) -> bool) -> u64 {
        let mut count = 0;
        for (came, call) in self.calls.iter().enumerate() {
            if call.at.choice != at.choice || call.at.index >= at.index || !gone(call) {
                continue;
            }
            let late = self
                .calls
                .iter()
                .take(came)
                .any(|earlier| earlier.at.choice == at.choice && earlier.at.index > call.at.index);
            count += u64::from(!late);
        }
        count
    }

    /// Whether the call was denied and nothing takes its place.
    pub(crate) fn is_stripped(&self, at: At) -> bool {
        self.find(at).is_some_and(Call::is_stripped)
    }

    /// Whether calls of this choice were denied, and none is left.
    pub(crate) fn none_left(&self, choice: u64) -> bool {
        let mut of_choice = self
            .calls
            .iter()
            .filter(|call| call.at.choice == choice)
            .peekable();
        of_choice.peek().is_some() && of_choice.all(|call| matches!(call.state, State::Denied(..)))
    }

    /// Whether every call so far has passed, and with it every event.
    pub(crate) fn all_passed(&self) -> bool {
        self.calls.iter().all(|call| matches!(call.state, State::Passed))
    }

    // --- what the reader asks ----------------------------------------------------------------------------------------

    /// Whether calls are judged at all.
    pub(super) fn gate(&self) -> Option<&Arc<dyn Gate>> {
        self.gate.as_ref()
    }

    /// Whether a call waits for its arguments.
    pub(super) fn undecided(&self) -> bool {
        self.calls
            .iter()
            .any(|call| matches!(call.state, State::Open | State::Unnamed))
    }

    /// Whether any call was denied.
    pub(super) fn any_denied(&self) -> bool {
        self.calls
            .iter()
            .any(|call| matches!(call.state, State::Denied(..)))
    }

    /// The denial that ends the reply.
    pub(super) fn fatal(&self) -> Option<&Refusal> {
        self.fatal.as_ref()
    }

    /// Denies what is still undecided.
    pub(super) fn deny_undecided(&mut self) {
        let Some(gate) = self.gate.clone() else { return };
        for index in 0..self.calls.len() {
            if let Some(call) = self.calls.get_mut(index)
                && matches!(call.state, State::Open | State::Unnamed)
            {
                call.state = State::Denied(Box::new(gate.unjudged(Unjudged::Call)), false);
                self.settle(index);
            }
        }
    }

    /// The reply is over: the calls that are still open are judged by what they carry.
    pub(super) fn end_all(&mut self) {
        (0..self.calls.len()).for_each(|index| self.end_one(index));
    }

    /// Names of the tools that were called, and of those that were denied.
    pub(super) fn take_names(&mut self) -> (Vec<String>, Vec<String>) {
        (std::mem::take(&mut self.called), std::mem::take(&mut self.denied))
    }

    // --- inside ------------------------------------------------------------------------------------------------------

    fn find(&self, at: At) -> Option<&Call> {
        self.calls.iter().find(|call| call.at == at)
    }

    /// The call at this place, which may begin here. `None`: there are too many, which ends the reply.
    fn open(&mut self, at: At, gate: &dyn Gate) -> Option<usize> {
        if let Some(known) = self.calls.iter().position(|call| call.at == at) {
            return Some(known);
        }
        if self.calls.len() >= CALL_LIMIT {
            self.fatal.get_or_insert(gate.unjudged(Unjudged::Reply).refusal);
            return None;
        }
        self.calls.push(Call {
            at,
            name: String::new(),
            arguments: String::new(),
            state: State::Unnamed,
        });
        Some(self.calls.len() - 1)
    }

    fn end_one(&mut self, index: usize) {
        let (Some(gate), Some(call)) = (self.gate.clone(), self.calls.get_mut(index)) else {
            return;
        };
        match call.state {
            State::Open => judge(call, gate.by_arguments(&call.name, &call.arguments)),
            // A call without a name is none that the allow list could know.
            State::Unnamed => call.state = State::Denied(Box::new(gate.unjudged(Unjudged::Call)), false),
            State::Passed | State::Denied(..) => return,
        }
        if matches!(call.state, State::Open) {
            call.state = State::Denied(Box::new(gate.unjudged(Unjudged::Call)), false);
        }
        self.settle(index);
    }

    /// Notes what was decided.
    fn settle(&mut self, index: usize) {
        let Some(call) = self.calls.get_mut(index) else {
            return;
        };
        match &call.state {
            State::Unnamed | State::Open => {}
            State::Passed => {
                call.arguments = String::new();
                note(&mut self.called, &call.name);
            }
            State::Denied(denial, _) => {
                if denial.how == InReply::Refuse {
                    self.fatal.get_or_insert(denial.refusal.clone());
                }
                call.arguments = String::new();
                note(&mut self.called, &call.name);
                note(&mut self.denied, &call.name);
            }
        }
    }
}

impl Call {
    fn is_stripped(&self) -> bool {
        matches!(&self.state, State::Denied(denial, _) if denial.how == InReply::Strip)
    }
}

fn judge(call: &mut Call, judgement: Judgement) {
    call.state = match judgement {
        Judgement::Pass => State::Passed,
        Judgement::Wait => State::Open,
        Judgement::Deny(denial) => State::Denied(denial, false),
    };
}

/// Adds a tool's name, once, within bounds.
fn note(names: &mut Vec<String>, name: &str) {
    let known = names.iter().any(|known| known == name);
    if !name.is_empty() && name.len() <= NAME_LIMIT && names.len() < CALL_LIMIT && !known {
        names.push(name.to_owned());
    }
}
