//! What stands between a tool call in a reply and the agent.
//!
//! In: a call's name, before any byte of the call passes, and its complete arguments. Out: whether it passes. The policy
//! implements [`Gate`]; the shared reader in `reply` asks it.

use crate::refusal::Refusal;

/// Judges the tool calls of one reply.
pub trait Gate: Send + Sync {
    /// By name alone; `Wait` when a rule looks at the arguments.
    fn by_name(&self, name: &str) -> Judgement;
    /// By the complete arguments, as the provider sends them: the text of a JSON object, or free text.
    fn by_arguments(&self, name: &str, arguments: &str) -> Judgement;
    /// Why a call, or a part of the reply, that cannot be judged does not pass.
    fn unjudged(&self, what: Unjudged) -> Denial;
    /// The id that a refusal in the reply names.
    fn request_id(&self) -> &str;
}

/// What the gate says.
#[derive(Debug, Clone)]
pub enum Judgement {
    /// The call passes.
    Pass,
    /// It depends on the arguments.
    Wait,
    /// It does not pass.
    Deny(Box<Denial>),
}

/// A call that does not pass.
#[derive(Debug, Clone)]
pub struct Denial {
    /// What happens to it.
    pub how: InReply,
    /// Why; its message stands in the call's place, or ends the reply.
    pub refusal: Refusal,
}

/// What happens to a denied call in a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InReply {
    /// Text that the model can read takes its place.
    Replace,
    /// It is taken out.
    Strip,
    /// The reply ends there, with an error.
    Refuse,
}

/// What cannot be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unjudged {
    /// A call that is larger than Guard holds back, or whose arguments never ended.
    Call,
    /// A part of the reply that is not in its format.
    Reply,
}
