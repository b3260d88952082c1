//! `[prices]`, and what a model without a price costs.

use std::path::PathBuf;

use super::read::Section;

/// `[prices]`
#[derive(Debug, Clone, Default)]
pub struct Prices {
    /// A table of the operator's own, over all others.
    pub overlay: Option<PathBuf>,
}

/// What happens to a call whose model has no price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unpriced {
    /// It is refused.
    #[default]
    Refuse,
    /// It costs what the dearest model of its provider does.
    Ceiling,
}

/// Reads `[prices]`.
pub(super) fn read(section: Option<&Section<'_, '_>>) -> Prices {
    Prices {
        overlay: section.and_then(|section| section.path("overlay")),
    }
}

/// Reads `unpriced` of `[defaults]`.
pub(super) fn unpriced(defaults: &Section<'_, '_>) -> Unpriced {
    let choices = [("refuse", Unpriced::Refuse), ("ceiling", Unpriced::Ceiling)];
    defaults.choice("unpriced", &choices).unwrap_or_default()
}
