//! DNS messages.

use simple_dns::Packet;
use simple_dns::rdata::{RData, SVCB, SVCParam};

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
    let packet = Packet::parse(&clean.bytes);
    let left = packet.is_ok_and(|packet| {
        let sections = [&packet.answers, &packet.name_servers, &packet.additional_records];
        sections.into_iter().flatten().any(|record| match &record.rdata {
            RData::HTTPS(https) => hides(&https.0),
            RData::SVCB(binding) => hides(binding),
            _ => false,
        })
    });
    assert!(!left, "a later connection could hide its name");
    if clean.stripped {
        let again = query.clean(&clean.bytes);
        assert!(
            again.is_ok_and(|again| !again.stripped),
            "something is left in it"
        );
    } else {
        assert_eq!(clean.bytes.get(2..), answer.get(2..));
    }
}

/// Whether a binding has a key for an encrypted name, or offers HTTP/3.
fn hides(binding: &SVCB<'_>) -> bool {
    binding.iter_params().any(|parameter| match parameter {
        SVCParam::Ech(_) => true,
        SVCParam::Alpn(names) => names.iter().any(|name| {
            let name = String::try_from(name.clone()).unwrap_or_default();
            name == "h3" || name.starts_with("h3-")
        }),
        _ => false,
    })
}
