//! `guard-agent ca`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{GeneralName, ParsedExtension, Pem};

use super::OK;
use super::output::print;
use crate::keys::environment::{ROOT_FILE, trust};

/// Largest certificate file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Shows Guard's certificate authority, and how clients come to trust it.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Ca {
    /// Shows the root: its fingerprint, its dates, and the only hosts that it can vouch for.
    #[command(
        after_help = "Exit codes: 0 shown; 1 there is no root yet (the daemon makes it on its first start)."
    )]
    Show {
        /// Print the certificate itself, in PEM, for a trust store.
        #[arg(long)]
        pem: bool,
    },
    /// Prints the environment variables that make clients trust Guard, as shell exports.
    ///
    /// Many clients do not look at the system's trust store, so these are needed even where Guard's root is installed
    /// there. `guard-agent run` sets them by itself; services and containers need them in their own definition. With
    /// --agent they are those of one agent, with its placeholders in the place of keys; the daemon has to be running.
    #[command(
        after_help = "Exit codes: 0 printed; 1 there is no such agent, or the daemon does not answer.\n\n\
                            Examples:\n  eval \"$(guard-agent ca env)\"\n  \
                            guard-agent ca env --agent coder | sed 's/^export //' > coder.env"
    )]
    Env {
        /// The agent, as it is named in guard.toml.
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
    },
}

impl Ca {
    pub(super) fn run(&self, config: &Path) -> anyhow::Result<u8> {
        let state_dir = super::host(config)?.state_dir;
        match self {
            Self::Env { agent: None } => print(&exports(&trust(&state_dir), &[])?)?,
            Self::Env { agent: Some(agent) } => {
                let environment = super::client(config)?.environment(agent)?;
                print(&exports(&environment.env, &environment.remove)?)?;
            }
            Self::Show { pem } => {
                let path = state_dir.join(ROOT_FILE);
                let text = read(&path)?;
                print(&if *pem { text } else { describe(&text, &path)? })?;
            }
        }
        Ok(OK)
    }
}

/// As shell exports. What must not be set is a comment, so that the text is an environment file without its `export`s.
fn exports(set: &BTreeMap<String, String>, remove: &[String]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if !remove.is_empty() {
        writeln!(text, "# must not be set inside this agent: {}", remove.join(" "))?;
    }
    for (name, value) in set {
        writeln!(text, "export {name}={}", quoted(value))?;
    }
    Ok(text)
}

/// In single quotes where the shell would otherwise read something into it.
fn quoted(value: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-".contains(&b);
    if value.bytes().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', "'\\''"))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| {
        format!(
            "cannot open {}: the daemon makes it on its first start (`systemctl start guard-agent`)",
            path.display()
        )
    })?;
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn describe(text: &str, path: &Path) -> anyhow::Result<String> {
    let mut out = String::new();
    for block in Pem::iter_from_buffer(text.as_bytes()) {
        let block = block.with_context(|| format!("{} is not PEM", path.display()))?;
        let certificate = block
            .parse_x509()
            .with_context(|| format!("{} is not a certificate", path.display()))?;
        let digest = Sha256::digest(&block.contents);
        let fingerprint = digest
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect::<Vec<_>>()
            .join(":");
        writeln!(out, "file         {}", path.display())?;
        writeln!(out, "subject      {}", certificate.subject())?;
        writeln!(
            out,
            "valid        {} to {}",
            certificate.validity().not_before,
            certificate.validity().not_after
        )?;
        writeln!(out, "sha256       {}", fingerprint.get(..47).unwrap_or_default())?;
        writeln!(out, "             {}", fingerprint.get(48..).unwrap_or_default())?;
        for extension in certificate.extensions() {
            let ParsedExtension::NameConstraints(constraints) = extension.parsed_extension() else {
                continue;
            };
            let hosts = constraints
                .permitted_subtrees
                .iter()
                .flatten()
                .filter_map(|subtree| match &subtree.base {
                    GeneralName::DNSName(name) => Some(*name),
                    _ => None,
                });
            for (at, host) in hosts.enumerate() {
                let head = if at == 0 { "vouches for" } else { "" };
                writeln!(out, "{head:<12} {host}")?;
            }
        }
    }
    anyhow::ensure!(!out.is_empty(), "{} holds no certificate", path.display());
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_described_with_the_hosts_that_bind_it() {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "Guard test root");
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("api.openai.com".to_owned())],
            excluded_subtrees: Vec::new(),
        });
        let pem = params
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap()
            .pem();
        let shown = describe(&pem, Path::new("/ca/root.pem")).unwrap();
        assert!(shown.contains("CN=Guard test root"), "{shown}");
        assert!(shown.contains("vouches for  api.openai.com"), "{shown}");
        assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
        assert!(describe("junk", Path::new("/x")).is_err());
    }

    #[test]
    fn an_environment_is_exports_and_a_comment() {
        let set = BTreeMap::from([
            ("OPENAI_API_KEY".to_owned(), "sk-guard-1".to_owned()),
            ("X".to_owned(), "a b".to_owned()),
        ]);
        let text = exports(&set, &["CODEX_API_KEY".to_owned()]).unwrap();
        assert_eq!(
            text,
            "# must not be set inside this agent: CODEX_API_KEY\nexport OPENAI_API_KEY=sk-guard-1\nexport X='a b'\n"
        );
    }

    #[test]
    fn a_value_survives_the_shell() {
        assert_eq!(
            quoted("/var/lib/guard/ca/bundle.pem"),
            "/var/lib/guard/ca/bundle.pem"
        );
        assert_eq!(quoted("/a b/$(x)'y"), "'/a b/$(x)'\\''y'");
    }
}
