//! What an answer is founded on, as far as it is billed by number.
//!
//! Source: ai.google.dev/gemini-api/docs/pricing (Grounding with Google Search and with Google Maps).

use serde::Deserialize;
use serde::de::IgnoredAny;

/// `groundingMetadata`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Grounding {
    web_search_queries: Option<Vec<IgnoredAny>>,
    image_search_queries: Option<Vec<IgnoredAny>>,
    grounding_chunks: Option<Vec<Source>>,
}

/// Where something in an answer is from.
#[derive(Deserialize)]
struct Source {
    maps: Option<IgnoredAny>,
}

impl Grounding {
    /// Searches so far; a prompt that was answered from Maps is billed as one.
    pub(super) fn searches(&self) -> u64 {
        let count = |queries: &Option<Vec<IgnoredAny>>| queries.as_ref().map_or(0, |all| all.len() as u64);
        let maps = self
            .grounding_chunks
            .iter()
            .flatten()
            .any(|one| one.maps.is_some());
        count(&self.web_search_queries)
            .saturating_add(count(&self.image_search_queries))
            .max(u64::from(maps))
    }
}

/// Whether a model is billed once for a prompt that it searched for, however often it did: all before the third
/// generation are.
pub(super) fn once(model: Option<&str>) -> bool {
    model.is_some_and(|name| {
        let version = name.strip_prefix("gemini-").unwrap_or_default();
        version.starts_with("1.") || version.starts_with("2.")
    })
}
