//! Alerts: each is a record, and told to people where `[[alert]]` asks for it.

use ulid::Ulid;

use super::{Draft, Recorder};
use crate::alert::{Alerts, Event};
use crate::audit::AuditRecord;
use crate::audit::record::Head;
use crate::config::Agent;

impl Recorder {
    /// Tells people, too, from now on.
    pub fn tell(&self, alerts: Alerts) {
        if self.alerts.set(alerts).is_err() {
            tracing::error!("alerts were set up twice: the first ones stay");
        }
    }

    /// Who tells people, once it is set up.
    pub fn alerts(&self) -> Option<&Alerts> {
        self.alerts.get()
    }

    /// Something that an agent's owner should know. `about`: two alerts about one thing are told once.
    pub fn alert(&self, agent: &Agent, name: &str, about: &str, message: String) {
        let mut head = Head::of_host(self.clock.now(), Ulid::new().to_string());
        head.agent = Some(agent.name.clone());
        head.owner = Some(agent.owner.clone());
        self.raise(&head, name, about, &message);
        self.note(AuditRecord::alert(head, name, message, None));
    }

    /// Something that the host's owner should know.
    pub fn host_alert(&self, name: &str, message: String) {
        let head = Head::of_host(self.clock.now(), Ulid::new().to_string());
        self.raise(&head, name, &message, &message);
        self.note(AuditRecord::alert(head, name, message, None));
    }

    /// An alert that nobody could be told.
    pub(crate) fn undelivered(&self, event: &Event, to: &str, why: &str) {
        let mut head = Head::of_host(self.clock.now(), Ulid::new().to_string());
        head.agent.clone_from(&event.agent);
        head.owner.clone_from(&event.owner);
        let message = format!("{} was not told to {to} ({why}): {}", event.name, event.message);
        self.note(AuditRecord::alert(head, "alert.undelivered", message, None));
    }

    fn raise(&self, head: &Head, name: &str, about: &str, message: &str) {
        if let Some(alerts) = self.alerts.get() {
            alerts.raise(Event {
                name: name.to_owned(),
                agent: head.agent.clone(),
                owner: head.owner.clone(),
                message: message.to_owned(),
                about: about.to_owned(),
                time: head.time,
                id: head.id.clone(),
            });
        }
    }

    /// Findings of a call, but for those that have an alert of their own.
    pub(super) fn raise_findings(&self, draft: &Draft) {
        let own = |kind: &str| kind.starts_with("loop_") || kind == "retries";
        for kind in draft.findings.iter().filter(|kind| !own(kind)) {
            let run = draft.head.run.as_deref().unwrap_or("?");
            let message = format!("{kind}: a call of run {run} to {}", draft.provider);
            self.raise(&draft.head, "finding", kind, &message);
        }
    }
}
