//! Messages of realtime sockets, of either side.

use super::{Seeds, fixtures, with};

/// OpenAI's: the golden conversations, the client's lines by themselves and the provider's by themselves.
pub(crate) fn openai() -> Seeds {
    let client = fixtures("openai-realtime", ".client.jsonl");
    let provider = fixtures("openai-realtime", ".provider.jsonl");
    [
        with(&[0b1010, 0], client.clone(), "strip"),
        with(&[0b0010, 9], client, "cap"),
        with(&[1, 0], provider.clone(), "told"),
        with(&[3, 5], provider, "judged"),
    ]
    .concat()
}

/// Gemini's, in the same way; the client's lines together, because nothing goes on before the setup.
pub(crate) fn live() -> Seeds {
    let client = fixtures("gemini-live", ".client.jsonl");
    let provider = fixtures("gemini-live", ".provider.jsonl");
    [
        with(&[0b1010, 0], client.clone(), "strip"),
        with(&[0b0010, 9], client, "cap"),
        with(&[1, 0], provider.clone(), "told"),
        with(&[3, 5], provider, "judged"),
    ]
    .concat()
}
