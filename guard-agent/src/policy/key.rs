//! Key: what credential does the caller present?
//!
//! In: the agent, the credentials that the request presents, the placeholders. Out: whether Guard's key is put in or the caller's own login
//! goes on. On failure: a refusal, and a finding for the owner of the agent.

use crate::call::Presented as Shown;
use crate::config::{Agent, Login};
use crate::keys::placeholder::{Holder, Placeholders, Presented};
use crate::refusal::{Reason, Refusal};

/// Which credential goes to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// Guard's, after removing whatever the caller presented.
    Guard,
    /// The caller's own, as it came (`login = "pass"`).
    Caller,
}

/// What a refused credential says about the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A credential that Guard did not issue: a real key is inside the governed cgroup.
    RealKey,
    /// Another holder's placeholder.
    ForeignPlaceholder {
        /// To whom it was issued, when that is known.
        holder: Option<Holder>,
    },
}

impl Finding {
    /// Metric label and audit value.
    pub fn label(&self) -> &'static str {
        match self {
            Self::RealKey => "real_key",
            Self::ForeignPlaceholder { .. } => "foreign_placeholder",
        }
    }
}

/// A refused credential.
#[derive(Debug)]
pub struct Denied {
    /// For the caller.
    pub refusal: Refusal,
    /// For the owner; none when Guard merely holds no key.
    pub finding: Option<Finding>,
}

/// Judges the caller's credential. `have_key` is whether the vault holds a key for the provider.
///
/// # Errors
/// `KeyDenied` with its finding, or `KeyMissing`.
pub fn decide(
    agent: &Agent,
    provider: &str,
    shown: &[Shown],
    placeholders: &Placeholders,
    have_key: bool,
) -> Result<Credential, Denied> {
    let (mut own, mut real) = (false, false);
    for credential in shown {
        match placeholders.judge(credential.secret.expose(), &agent.name, provider) {
            Presented::Absent => {}
            Presented::Own => own = true,
            Presented::NotOurs => real = true,
            Presented::Foreign { holder } => return Err(foreign(agent, provider, holder)),
        }
    }
    match (own, real) {
        (_, false) if have_key => Ok(Credential::Guard),
        (_, false) => Err(missing(agent, provider)),
        (false, true) if agent.login == Login::Pass => Ok(Credential::Caller),
        (_, true) => Err(real_key(agent, provider, own)),
    }
}

fn denied(message: String, finding: Finding) -> Denied {
    Denied {
        refusal: Refusal::new(Reason::KeyDenied, message),
        finding: Some(finding),
    }
}

fn real_key(agent: &Agent, provider: &str, own_too: bool) -> Denied {
    let name = &agent.name;
    let message = if own_too && agent.login == Login::Pass {
        format!(
            "The request carries both Guard's placeholder and another credential for {provider:?}. Send one of them: \
             unset the client's API key variable to use its own login, or log the client out to use Guard's key."
        )
    } else {
        format!(
            "Agent {name:?} may not use a credential of its own for {provider:?}: Guard puts the key in. Remove the \
             key from the client's environment and settings, or set it to the placeholder that `guard-agent run` \
             provides. To forward the agent's own login instead, the operator sets login = \"pass\" in [[agent]] \
             {name:?} in guard.toml."
        )
    };
    denied(message, Finding::RealKey)
}

/// The holder is for the owner's finding; the caller is not told another agent's name.
fn foreign(agent: &Agent, provider: &str, holder: Option<Holder>) -> Denied {
    let same_agent = holder.as_ref().filter(|holder| holder.agent == agent.name);
    let whose = same_agent.map_or_else(
        || "was not issued to this agent".to_owned(),
        |holder| format!("is for the provider {:?}", holder.provider),
    );
    let message = format!(
        "The placeholder key in this request {whose}, so it does not open {provider:?}. Start the command with \
         `guard-agent run --agent {}`, which sets the right one, or send no key at all.",
        agent.name
    );
    denied(message, Finding::ForeignPlaceholder { holder })
}

fn missing(agent: &Agent, provider: &str) -> Denied {
    let other_way = match agent.login {
        Login::Refuse => String::new(),
        Login::Pass => " (or the client logs in with an account of its own)".to_owned(),
    };
    let message = format!(
        "Guard holds no key for {provider:?}, so the call cannot be made. The operator adds `keys` to [[provider]] \
         {provider:?} in guard.toml{other_way}."
    );
    Denied {
        refusal: Refusal::new(Reason::KeyMissing, message),
        finding: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Said;
    use crate::policy::tests_support::agent;

    struct Case {
        placeholders: Placeholders,
        _dir: tempfile::TempDir,
    }

    fn case() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let names = ["coder".into(), "spy".into()];
        let placeholders = Placeholders::open(dir.path())
            .unwrap()
            .knowing(&names, ["openai", "anthropic"]);
        Case {
            placeholders,
            _dir: dir,
        }
    }

    fn shown(headers: &[(&str, &str)]) -> Vec<Shown> {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                )
            })
            .collect();
        Said::read(&headers, &http::Uri::from_static("/")).credentials
    }

    impl Case {
        /// What the headers get from an agent with this `login`: a credential, or the reason and the finding.
        fn ask(&self, login: &str, headers: &[(&str, &str)]) -> Result<Credential, (Reason, Option<&str>)> {
            let agent = agent(&format!("providers = [\"openai\"]\nlogin = \"{login}\""));
            decide(&agent, "openai", &shown(headers), &self.placeholders, true).map_err(|no| {
                let label = no.finding.as_ref().map(|found| match found.label() {
                    "real_key" => "real",
                    _ => "foreign",
                });
                (no.refusal.reason, label)
            })
        }
    }

    #[test]
    fn absent_and_own_placeholder_get_guard_s_key() {
        let case = case();
        let own = case.placeholders.issue("coder", "openai");
        let bearer = format!("Bearer {own}");
        let sloppy = format!("bearer   {own} ");
        for headers in [
            &[][..],
            &[("authorization", "")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("x-api-key", "")],
            &[("x-api-key", own.as_str())],
            &[("authorization", bearer.as_str())],
            &[("authorization", sloppy.as_str())],
            &[("authorization", bearer.as_str()), ("x-api-key", own.as_str())],
            &[("x-goog-api-key", own.as_str())],
        ] {
            for login in ["refuse", "pass"] {
                assert_eq!(
                    case.ask(login, headers),
                    Ok(Credential::Guard),
                    "{login} {headers:?}"
                );
            }
        }
    }

    #[test]
    fn any_other_credential_is_refused_unless_the_owner_lets_it_pass() {
        let case = case();
        for headers in [
            &[("authorization", "Bearer sk-proj-real")][..],
            &[("x-api-key", "sk-ant-api03-real")],
            &[("api-key", "azure")],
            &[("authorization", "Basic dXNlcjpwYXNz")],
            &[("authorization", "sk-proj-real")],
            &[("authorization", "Bearer placeholder")],
            &[
                ("authorization", "Bearer "),
                ("authorization", "Bearer sk-second"),
            ],
        ] {
            let refused = Err((Reason::KeyDenied, Some("real")));
            assert_eq!(case.ask("refuse", headers), refused, "{headers:?}");
            assert_eq!(case.ask("pass", headers), Ok(Credential::Caller), "{headers:?}");
        }
    }

    #[test]
    fn a_placeholder_beside_a_real_key_hides_nothing() {
        let case = case();
        let own = case.placeholders.issue("coder", "openai");
        for login in ["refuse", "pass"] {
            let headers = [("x-api-key", own.as_str()), ("authorization", "Bearer sk-real")];
            assert_eq!(
                case.ask(login, &headers),
                Err((Reason::KeyDenied, Some("real"))),
                "{login}"
            );
        }
    }

    #[test]
    fn a_placeholder_of_somebody_else_is_refused_even_where_logins_pass() {
        let case = case();
        for text in [
            case.placeholders.issue("spy", "openai"),
            case.placeholders.issue("coder", "anthropic"),
            "sk-guard-0000".to_owned(),
        ] {
            for login in ["refuse", "pass"] {
                let said = case.ask(login, &[("x-api-key", &text)]);
                assert_eq!(said, Err((Reason::KeyDenied, Some("foreign"))), "{login} {text}");
            }
        }
    }

    #[test]
    fn no_message_repeats_a_credential_or_names_another_agent() {
        let case = case();
        let agent = agent("providers = [\"openai\"]");
        for text in [
            "sk-real-SECRET".to_owned(),
            case.placeholders.issue("spy", "openai"),
        ] {
            let no = decide(
                &agent,
                "openai",
                &shown(&[("x-api-key", &text)]),
                &case.placeholders,
                true,
            )
            .unwrap_err();
            let said = no.refusal.message;
            assert!(!said.contains(&text) && !said.contains("spy"), "{said}");
        }
    }

    #[test]
    fn without_a_key_in_the_vault_the_operator_is_told() {
        let case = case();
        let agent = agent("providers = [\"openai\"]");
        let no = decide(&agent, "openai", &[], &case.placeholders, false).unwrap_err();
        assert_eq!(no.refusal.reason, Reason::KeyMissing);
        assert!(no.finding.is_none());
    }
}
