//! `agent.egress`

use super::read::Section;
use crate::route::egress::rule::Rule;
use crate::route::egress::{Egress, Inbound, Loopback, Others, Private};

/// Entries of a list at most: each connection is compared with all of them.
const MOST: usize = 1024;

pub(super) fn read(section: &Section<'_, '_>) -> Egress {
    let words = [("allow", Others::Allow), ("deny", Others::Deny)];
    Egress {
        others: section.choice("default", &words).unwrap_or_default(),
        deny: rules(section, "deny"),
        allow: rules(section, "allow"),
        loopback: section
            .choice("loopback", &[("own", Loopback::Own), ("deny", Loopback::Deny)])
            .unwrap_or_default(),
        private: section.choice("private", &[("allow", Private::Allow), ("deny", Private::Deny)]),
        inbound: section
            .choice("inbound", &[("allow", Inbound::Allow), ("deny", Inbound::Deny)])
            .unwrap_or_default(),
    }
}

fn rules(section: &Section<'_, '_>, key: &str) -> Vec<Rule> {
    let written = section.strings(key).unwrap_or_default();
    if written.len() > MOST {
        section.reader.error(
            &section.place(key),
            format!("`{key}` has {} entries", written.len()),
            format!("write at most {MOST}: use wildcards and networks"),
        );
    }
    let read = written
        .iter()
        .filter_map(|text| match Rule::parse(text.get_ref()) {
            Ok(rule) => Some(rule),
            Err(why) => {
                section.reader.error(&text.span(), why.message, why.fix);
                None
            }
        });
    read.collect()
}
