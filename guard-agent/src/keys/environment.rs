//! The environment of a governed command: trust in Guard's CA, placeholders for keys, and no real key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::placeholder::Placeholders;
use crate::config::{Agent, Config, Login};
use crate::llm::provider::Provider;

/// Variables that replace a client's list of roots, so they name the full bundle: OpenSSL and Python's ssl, requests,
/// curl, git, Deno (adds), Codex, and the AWS SDKs. Without `SSL_CERT_FILE` and its like, eight of eighteen clients that
/// were tried do not look at the system's store at all.
const BUNDLE: [&str; 7] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "DENO_CERT",
    "CODEX_CA_CERTIFICATE",
    "AWS_CA_BUNDLE",
];
/// Node adds these to its built-in roots.
const EXTRA: &str = "NODE_EXTRA_CA_CERTS";

/// The roots of the system and of Guard, below `state_dir`.
pub const BUNDLE_FILE: &str = "ca/bundle.pem";
/// Guard's root alone, below `state_dir`.
pub const ROOT_FILE: &str = "ca/root.pem";

/// Variables that hold credentials which no placeholder replaces, but with which clients reach providers all the same.
const OTHER_CREDENTIALS: [&str; 3] = ["ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "CODEX_API_KEY"];

/// The variables that make clients trust Guard's CA.
pub fn trust(state_dir: &Path) -> BTreeMap<String, String> {
    let bundle = state_dir.join(BUNDLE_FILE).display().to_string();
    let root = state_dir.join(ROOT_FILE).display().to_string();
    let mut variables: BTreeMap<String, String> = BUNDLE
        .iter()
        .map(|name| ((*name).to_owned(), bundle.clone()))
        .collect();
    variables.insert(EXTRA.to_owned(), root);
    variables
}

/// The variables in which a provider's clients look for the key.
fn key_variables(provider: &Provider) -> impl Iterator<Item = String> {
    let known = provider.variables.iter().map(|name| (*name).to_owned());
    std::iter::once(key_variable(&provider.name)).chain(known)
}

/// The variable that is named after the provider.
fn key_variable(provider: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    format!("{}_API_KEY", provider.chars().map(plain).collect::<String>())
}

/// What a run of an agent needs, and what it must not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// To set.
    pub set: BTreeMap<String, String>,
    /// To remove: a real key in one of these would enter the cgroup.
    pub remove: Vec<String>,
}

/// The environment of a run. An agent with `login = "pass"` keeps its own credentials and gets no placeholders, because
/// clients prefer a key over a login.
pub fn of_run(config: &Config, agent: &Agent, placeholders: &Placeholders) -> Environment {
    let mut set = trust(&config.host.state_dir);
    let mut remove = BTreeSet::new();
    if agent.login == Login::Refuse {
        let all = config
            .providers
            .iter()
            .flat_map(|provider| key_variables(provider));
        remove.extend(all.chain(OTHER_CREDENTIALS.map(str::to_owned)));
        let own = |provider: &&Arc<Provider>| agent.providers.contains(&provider.name);
        for provider in config.providers.iter().filter(own) {
            let placeholder = placeholders.issue(&agent.name, provider.key_name());
            for variable in key_variables(provider) {
                // Its clients would use a token before the key, and have neither then.
                if !OTHER_CREDENTIALS.contains(&variable.as_str()) {
                    remove.remove(&variable);
                    set.insert(variable, placeholder.clone());
                }
            }
        }
    }
    Environment {
        set,
        remove: remove.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests_support::config;

    #[test]
    fn a_run_trusts_the_ca_and_holds_placeholders_only() {
        let dir = tempfile::tempdir().unwrap();
        let placeholders = Placeholders::open(dir.path()).unwrap();
        let config = config("providers = [\"openai\"]");
        let environment = of_run(&config, &config.agents[0], &placeholders);
        assert_eq!(environment.set["SSL_CERT_FILE"], "/var/lib/guard/ca/bundle.pem");
        assert_eq!(
            environment.set["NODE_EXTRA_CA_CERTS"],
            "/var/lib/guard/ca/root.pem"
        );
        assert_eq!(
            environment.set["OPENAI_API_KEY"],
            placeholders.issue("coder", "openai")
        );
        assert!(
            !environment.set.contains_key("ANTHROPIC_API_KEY"),
            "not one of its providers"
        );
        assert!(environment.remove.contains(&"ANTHROPIC_API_KEY".to_owned()));
        assert!(environment.remove.contains(&"ANTHROPIC_AUTH_TOKEN".to_owned()));
        assert!(
            environment
                .remove
                .iter()
                .all(|name| !environment.set.contains_key(name))
        );
    }

    #[test]
    fn an_agent_with_a_login_of_its_own_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let placeholders = Placeholders::open(dir.path()).unwrap();
        let config = config("providers = [\"openai\"]\nlogin = \"pass\"");
        let environment = of_run(&config, &config.agents[0], &placeholders);
        assert!(environment.remove.is_empty());
        assert_eq!(environment.set, trust(&config.host.state_dir));
    }

    #[test]
    fn a_provider_s_name_becomes_a_variable() {
        assert_eq!(key_variable("together-ai"), "TOGETHER_AI_API_KEY");
    }
}
