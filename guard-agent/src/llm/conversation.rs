//! What a request shows of the conversation so far, whatever its format: the model's tool calls with their results,
//! and where the user spoke.
//!
//! In: the turns of a request body, told one by one by the format's own reader. Out: a [`Conversation`] of bounded
//! size, made of hashes: no word of a prompt, an argument or a result is kept. On failure: there is none. What cannot be
//! read is left out, so that a rule over it sees less, never something else.
//!
//! **For a new format.** Read the body's turns in order and tell a [`Teller`] of them: `user` for what a person said,
//! `turn` for each reply of the model, `call` for each tool call in it, `result` for each result. Then put
//! `Teller::finish` into `RequestFacts::conversation`. A format whose requests carry only what is new (and name what the
//! provider has stored) calls `finish_partial`: the policy then goes on from what it saw before.
//!
//! **Who speaks.** A message of the user's begins a new part of the conversation, and loops are looked for in the last
//! part only, so that a person is heard after a loop was stopped. Harnesses write in the user's name too: a text beside
//! tool results counts as the user's only if it is not marked up and says something new, and the same text on its own
//! only three times among the last eight.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

mod arguments;
mod result;

use arguments::Digest;
pub use result::Sign;

/// Tool calls that are kept: the last ones.
pub const STEPS: usize = 128;
/// Messages of the user that are remembered to tell a new one from a repeated one.
const SAID: usize = 8;
/// How often the same words count as the user's own among these.
const SAME_WORDS: usize = 3;
/// Longest name of a tool that is kept, in characters.
const NAME: usize = 64;

/// The last part of a conversation: since the user spoke.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conversation {
    /// Tells the conversations of one run apart: a hash of how it begins. None where the request does not show it.
    pub thread: Option<u64>,
    /// Changes when the user has spoken.
    pub user: u64,
    /// Replies of the model in the whole request.
    pub turns: u32,
    /// The last tool calls since the user spoke, oldest first.
    pub steps: Vec<Step>,
    /// The request carries only what is new.
    pub partial: bool,
}

/// One tool call of the model, with its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which reply of the model it was part of.
    pub turn: u32,
    /// Name of the tool, cut to a bounded length.
    pub tool: Box<str>,
    /// Equal for equal arguments, however their JSON is written.
    pub arguments: u64,
    /// Equal for arguments that differ in digits, letter case or white space only.
    pub shape: u64,
    /// Close, bit by bit, for arguments that share most of their words; none for short ones.
    pub sketch: Option<u64>,
    /// Equal for equal results; for failures, also when they differ in digits only. None while there is no result.
    pub result: Option<u64>,
    /// Whether the tool failed.
    pub sign: Sign,
    /// The call waits or looks whether something has happened: repeating it is what it is for.
    pub waits: bool,
}

impl Step {
    /// The same tool with the same arguments.
    pub fn repeats(&self, other: &Self) -> bool {
        self.arguments == other.arguments && self.tool == other.tool
    }

    /// The same tool with the same or nearly the same arguments.
    pub fn resembles(&self, other: &Self) -> bool {
        let close = |a: u64, b: u64| (a ^ b).count_ones() <= arguments::CLOSE;
        self.tool == other.tool
            && (self.arguments == other.arguments
                || self.shape == other.shape
                || self.sketch.zip(other.sketch).is_some_and(|(a, b)| close(a, b)))
    }
}

/// A tool call while the body is read.
struct Told<'a> {
    turn: u32,
    id: Cow<'a, str>,
    tool: Cow<'a, str>,
    arguments: Arguments<'a>,
    result: Option<(&'a str, Option<bool>)>,
}

/// The arguments of a call as they stand in the body.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arguments<'a> {
    /// JSON text.
    Json(&'a str),
    /// A JSON string whose content is JSON text, or any other text.
    Quoted(&'a str),
}

/// Hears a conversation turn by turn.
#[derive(Default)]
pub(crate) struct Teller<'a> {
    thread: Option<u64>,
    user: u64,
    said: VecDeque<u64>,
    turns: u32,
    steps: VecDeque<Told<'a>>,
}

impl<'a> Teller<'a> {
    /// Somebody spoke in the user's name. `raw` is the content's JSON text; `beside_results` when tool results stand in
    /// the same message.
    pub(crate) fn user(&mut self, raw: &str, beside_results: bool) {
        let words = arguments::shape(raw);
        self.thread = self.thread.or(Some(words));
        let before = self.said.iter().filter(|said| **said == words).count();
        let heard = match beside_results {
            true => before == 0 && !marked_up(raw),
            false => before < SAME_WORDS,
        };
        if self.said.len() == SAID {
            self.said.pop_front();
        }
        self.said.push_back(words);
        if heard {
            self.user = hash(&(self.user, words));
            self.steps.clear();
        }
    }

    /// The model replied.
    pub(crate) fn turn(&mut self) {
        self.turns = self.turns.saturating_add(1);
    }

    /// The reply called a tool.
    pub(crate) fn call(&mut self, id: Cow<'a, str>, tool: Cow<'a, str>, arguments: Arguments<'a>) {
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(Told {
            turn: self.turns,
            id,
            tool,
            arguments,
            result: None,
        });
    }

    /// A call's result came. `failed` is the format's own flag, where it has one.
    pub(crate) fn result(&mut self, id: &str, raw: &'a str, failed: Option<bool>) {
        let called = self.steps.iter_mut().rev().find(|step| step.id == id);
        if let Some(step) = called {
            step.result = Some((raw, failed));
        }
    }

    /// What was told, of a request that carries the whole conversation.
    pub(crate) fn finish(self) -> Conversation {
        Conversation {
            thread: self.thread,
            user: self.user,
            turns: self.turns,
            steps: self.steps.into_iter().map(step).collect(),
            partial: false,
        }
    }

    /// What was told, of a request that carries only what is new.
    pub(crate) fn finish_partial(self) -> Conversation {
        Conversation {
            partial: true,
            ..self.finish()
        }
    }
}

fn step(told: Told<'_>) -> Step {
    let Digest {
        exact,
        shape,
        sketch,
        waits,
    } = arguments::digest(&told.arguments);
    let (result, sign) = match told.result {
        Some((raw, failed)) => {
            let sign = result::sign(raw, failed);
            let same = match sign {
                Sign::Fine => hash(raw),
                Sign::Likely | Sign::Declared => arguments::shape(raw),
            };
            (Some(same), sign)
        }
        None => (None, Sign::Fine),
    };
    Step {
        turn: told.turn,
        waits: waits || arguments::is_waiting(&told.tool),
        tool: told.tool.chars().take(NAME).collect(),
        arguments: exact,
        shape,
        sketch,
        result,
        sign,
    }
}

/// Whether text stands in marks, as harnesses mark what they add (`<system-reminder>`).
fn marked_up(raw: &str) -> bool {
    raw.trim_start_matches(['"', ' ']).starts_with('<')
}

/// A hash with a fixed key: whoever makes two things collide makes only its own calls look alike.
fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
