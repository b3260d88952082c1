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
