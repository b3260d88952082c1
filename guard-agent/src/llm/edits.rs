//! Which changes Guard makes to a request body.

/// Changes to a request body; everything not named stays byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BodyEdits {
    /// Set the output cap to this many tokens.
    pub output_cap: Option<u64>,
    /// Ask for usage in the stream.
    pub include_usage: bool,
    /// Remove the declared tools with these names (and a tool choice that names one of them).
    pub strip_tools: Vec<String>,
    /// Name this model instead; only where [`Takes::model`] says so.
    pub model: Option<String>,
    /// Say this to the model, behind what was said last; only where [`Takes::note`] says so.
    pub note: Option<String>,
}

/// Which edits a body can take, beside those that every body can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Takes {
    /// Another model: the body names its model.
    pub model: bool,
    /// A note: somebody other than the model spoke last, in text.
    pub note: bool,
}

impl BodyEdits {
    /// Whether the body goes on as it came.
    pub fn is_empty(&self) -> bool {
        self.output_cap.is_none()
            && !self.include_usage
            && self.strip_tools.is_empty()
            && self.model.is_none()
            && self.note.is_none()
    }
}
