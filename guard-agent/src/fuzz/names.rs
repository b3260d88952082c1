//! DNS messages.

use crate::dns::message::{Query, Rcode};

/// A query and its answer; the first two bytes are the query's length.
pub(super) fn dns(input: &[u8]) {
    let Some((&length, rest)) = input.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_be_bytes(length)).min(rest.len());
    let (asked, answer) = rest.split_at(length);
    let Some(query) = Query::read(asked.to_vec()) else {
        return;
    };
    assert!(query.name().len() <= 1024, "{}", query.name().len());
    assert_eq!(query.name(), query.name().to_ascii_lowercase());
    assert_eq!(query.with_id(query.id()), asked);
    let error = query.error(Rcode::Refused);
    assert!(error.len() <= asked.len() && query.is_answered_by(&error, query.id()));
    let Ok(clean) = query.clean(answer) else {
        return;
    };
    assert!(clean.bytes.starts_with(&query.id().to_be_bytes()));
    if clean.stripped {
        let again = query.clean(&clean.bytes);
        assert!(again.is_ok_and(|again| !again.stripped), "something is left in it");
    } else {
        assert_eq!(clean.bytes.get(2..), answer.get(2..));
    }
}
