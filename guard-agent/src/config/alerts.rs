//! `[[alert]]`: what is told to whom.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

use super::Pattern;
use super::read::Section;
use crate::keys::Secret;

/// The alerts there are.
pub const ALERTS: [&str; 13] = [
    "budget.soft",
    "budget.burn_rate",
    "loop",
    "retries",
    "retry.density",
    "tool.churn",
    "spend.spike",
    "success.falls",
    "finding",
    "enforcement.unproven",
    "enforcement.proven",
    "kernel.repaired",
    "worker.restarted",
];

/// One `[[alert]]`.
#[derive(Debug, Clone)]
pub struct AlertRule {
    /// Which alerts.
    pub when: Vec<Pattern>,
    /// Whom to tell.
    pub to: AlertTo,
}

/// Whom an alert is told.
#[derive(Debug, Clone)]
pub enum AlertTo {
    /// The daemon's log.
    Log,
    /// A web server, in JSON.
    Hook(Hook),
}

/// A web server that takes alerts. Its address often is the secret that opens it, so no more than the host is shown.
#[derive(Clone)]
pub struct Hook {
    /// The whole address.
    pub url: Secret,
    /// Its host, with the port.
    pub authority: String,
    /// As Slack and its kin take it: `{"text": …}`.
    pub slack: bool,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hook({})", self.authority)
    }
}

/// Reads every `[[alert]]`.
pub(super) fn read(sections: &[Section<'_, '_>]) -> Vec<AlertRule> {
    sections.iter().filter_map(one).collect()
}

fn one(section: &Section<'_, '_>) -> Option<AlertRule> {
    section.missing("when", "add when = [\"budget.*\", \"loop\"]");
    section.missing(
        "to",
        "add to = \"webhook:https://hooks.example/guard\", or \"log\"",
    );
    let written = section.strings("when").unwrap_or_default();
    let when = section.reader.patterns(&written);
    for pattern in &when {
        if !ALERTS.iter().any(|known| pattern.covers(known)) {
            section.reader.error(
                &section.place("when"),
                format!("no alert is named {:?}", pattern.text),
                format!("known: {}", ALERTS.join(", ")),
            );
        }
    }
    let to = section.string("to")?;
    match receiver(to.get_ref()) {
        Ok(to) => Some(AlertRule { when, to }),
        Err(message) => {
            let fix = "write \"log\", \"webhook:https://HOST/PATH\" or \"slack:https://HOST/PATH\"; plain http only \
                       to this host, as in \"webhook:http://127.0.0.1:9000/guard\"";
            section.reader.error(&to.span(), message, fix);
            None
        }
    }
}

/// What it says never quotes the address: it may be a secret.
fn receiver(text: &str) -> Result<AlertTo, &'static str> {
    let (url, slack) = match text.split_once(':') {
        None if text == "log" => return Ok(AlertTo::Log),
        Some(("webhook", url)) => (url, false),
        Some(("slack", url)) => (url, true),
        Some(_) | None => return Err("`to` is neither a log, a webhook nor a slack hook"),
    };
    let parsed: Uri = url
        .parse()
        .map_err(|_bad| "`to` has an address that cannot be read")?;
    let authority = parsed.authority().ok_or("`to` has an address without a host")?;
    if authority.as_str().contains('@') {
        return Err("`to` has an address with a user in it");
    }
    let host = authority.host().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match parsed.scheme_str() {
        Some("https") => {}
        Some("http") if here => {}
        Some(_) | None => return Err("`to` has an address that is not https"),
    }
    Ok(AlertTo::Hook(Hook {
        url: Secret::new(url),
        authority: authority.as_str().to_owned(),
        slack,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receivers_are_read_or_refused_without_being_shown() {
        let hook = |text: &str| match receiver(text) {
            Ok(AlertTo::Hook(hook)) => (hook.authority.clone(), hook.slack, format!("{hook:?}")),
            other => panic!("{other:?}"),
        };
        assert!(matches!(receiver("log"), Ok(AlertTo::Log)));
        let (authority, slack, shown) = hook("slack:https://hooks.example:8443/T0/SECRET");
        assert_eq!((authority.as_str(), slack), ("hooks.example:8443", true));
        assert!(!shown.contains("SECRET"), "{shown}");
        assert_eq!(hook("webhook:http://127.0.0.1:9000/x").0, "127.0.0.1:9000");
        assert_eq!(hook("webhook:http://[::1]:9000/x").0, "[::1]:9000");
        for bad in [
            "",
            "logs",
            "mail:root",
            "webhook:",
            "webhook:http://hooks.example/SECRET",
            "webhook:ftp://hooks.example/SECRET",
            "webhook:https://user:SECRET@hooks.example/",
            "webhook:/SECRET",
            "https://hooks.example/SECRET",
        ] {
            let said = receiver(bad).unwrap_err();
            assert!(!said.contains("SECRET"), "{bad}: {said}");
        }
    }
}
