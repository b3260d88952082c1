//! What a realtime session is set to: what was forwarded, until the provider says otherwise.
//!
//! In: setups, and whether the provider took them. Out: what later responses are like. On failure: the dearer of what holds
//! and of what was to hold.

use super::request::Settings;
use crate::llm::{BodyEdits, DeclaredTool};

/// Sound, in characters, that stands for one token at most: 2,400 bytes (24 kHz, 16 bits, twenty tokens a second).
const USUAL_SOUND: u64 = 3_200;
/// The same for telephone sound: 8 kHz, 8 bits.
const SLIGHT_SOUND: u64 = 533;
/// Sound in characters that lasts a thousandth of a second at least.
const CHARS_PER_MILLI: u64 = 64;
/// The same for telephone sound.
pub(super) const SLIGHT_CHARS_PER_MILLI: u64 = 10;

/// What responses are like.
#[derive(Debug, Clone, Default)]
pub(super) struct Set {
    pub(super) tools: Vec<DeclaredTool>,
    pub(super) cap: Option<u64>,
    pub(super) transcription: Option<String>,
    pub(super) slight_sound: bool,
    pub(super) prompt: bool,
}

impl Set {
    /// Characters of sound that stand for one token at most.
    pub(super) fn per_token(&self) -> u64 {
        match self.slight_sound {
            true => SLIGHT_SOUND,
            false => USUAL_SOUND,
        }
    }

    /// Characters of sound that last a thousandth of a second at least.
    pub(super) fn per_milli(&self) -> u64 {
        match self.slight_sound {
            true => SLIGHT_CHARS_PER_MILLI,
            false => CHARS_PER_MILLI,
        }
    }
}

/// What the session is set to.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) set: Set,
    /// What it is set to once the setup that was asked for last is forwarded.
    proposed: Option<Set>,
    /// The cap before a setup that the provider has not confirmed yet.
    before: Option<Option<u64>>,
}

impl Setup {
    /// What it is with these settings, of one response or of all that follow.
    pub(super) fn with(&self, settings: Settings) -> Set {
        let mut set = self.set.clone();
        set.prompt |= settings.prompt;
        set.cap = settings.cap.unwrap_or(set.cap);
        if let Some(tools) = settings.tools {
            set.tools = tools;
        }
        if let Some(model) = settings.transcription {
            set.transcription = model;
        }
        set.slight_sound |= settings.slight_sound;
        set
    }

    /// This is asked for.
    pub(super) fn propose(&mut self, set: Set) {
        self.proposed = Some(set);
    }

    /// What was asked for last was forwarded, with these edits.
    pub(super) fn accepted(&mut self, edits: &BodyEdits) {
        if let Some(mut set) = self.proposed.take() {
            set.tools.retain(|tool| !edits.strip_tools.contains(&tool.name));
            set.cap = edits.output_cap.or(set.cap);
            self.before.get_or_insert(self.set.cap);
            self.set = set;
        }
    }

    /// A cap was sent.
    pub(super) fn capped(&mut self, tokens: u64) {
        self.before.get_or_insert(self.set.cap);
        self.set.cap = Some(tokens);
    }

    /// The provider has confirmed a setup and says by now so of the cap; or it has told an error, which may be that of a
    /// setup: then the dearer cap holds.
    pub(super) fn answered(&mut self, confirmed: bool, told: Option<Option<u64>>) {
        match (confirmed, self.before.take()) {
            (true, _) => self.set.cap = told.unwrap_or(self.set.cap),
            (false, Some(before)) => {
                self.set.cap = before.zip(self.set.cap).map(|(one, other)| one.max(other));
            }
            (false, None) => {}
        }
    }
}
