//! Bounds what a hostile client or provider can put into one record.

use super::record::{AuditRecord, Body};

/// Longest text of one field, in bytes; what is longer is cut, with `…` at its end.
const MAX_TEXT: usize = 1024;
/// Most entries of one list; what is more is cut, with `…` as the last entry.
const MAX_LIST: usize = 256;
/// Most other models of one reply.
const OTHERS: usize = 16;

impl AuditRecord {
    /// Cuts what a hostile client or provider made too long.
    pub(super) fn bound(&mut self) {
        let head = &mut self.head;
        cut(&mut head.id);
        cut_each([&mut head.session, &mut head.cgroup, &mut head.unit]);
        if let Some(container) = &mut head.container {
            for text in [&mut container.id, &mut container.name, &mut container.image] {
                cut(text);
            }
        }
        if let Some(process) = &mut head.process {
            cut(&mut process.comm);
            cut_each([&mut process.exe]);
        }
        match &mut self.body {
            Body::Call(call) => {
                cut_each([
                    &mut call.sni,
                    &mut call.provider,
                    &mut call.endpoint,
                    &mut call.model_requested,
                    &mut call.model,
                    &mut call.key,
                    &mut call.finish,
                    &mut call.why,
                ]);
                for list in [
                    &mut call.rewrites,
                    &mut call.tools_declared,
                    &mut call.tools_called,
                    &mut call.tools_denied,
                ] {
                    cut_list(list);
                }
                call.other_usage.truncate(OTHERS);
                call.other_usage
                    .iter_mut()
                    .for_each(|other| cut(&mut other.model));
            }
            Body::Connection(connection) => cut_each([&mut connection.sni, &mut connection.rule]),
            Body::Kernel(kernel) => cut(&mut kernel.vector),
            Body::Admin(admin) => {
                cut(&mut admin.action);
                cut_each([&mut admin.subject, &mut admin.why, &mut admin.detail]);
            }
            Body::Alert(alert) => {
                cut(&mut alert.alert);
                cut(&mut alert.message);
                cut_each([&mut alert.evidence]);
            }
        }
        cut_list(&mut self.findings);
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
}

fn cut_each<const N: usize>(texts: [&mut Option<String>; N]) {
    for text in texts.into_iter().flatten() {
        cut(text);
    }
}

fn cut_list(list: &mut Vec<String>) {
    if list.len() > MAX_LIST {
        list.truncate(MAX_LIST);
        list.push("…".into());
    }
    for text in list {
        cut(text);
    }
}
