//! `[[provider]]`: overrides of the built-in table, and providers of one's own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::problem::nearest;
use super::read::{Section, absolute};
use crate::keys::KeySource;
use crate::llm::DialectKind;
use crate::llm::provider::{Auth, Mount, NamedKey, Provider};

const DIALECTS: &[(&str, DialectKind)] = &{
    let mut all = [("", DialectKind::OpenaiChat); DialectKind::ALL.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = (DialectKind::ALL[at].label(), DialectKind::ALL[at]);
        at += 1;
    }
    all
};

const AUTHS: &[(&str, Auth)] = &[
    ("bearer", Auth::Bearer),
    ("x-api-key", Auth::XApiKeyOrBearer),
    ("bearer-or-x-api-key", Auth::BearerOrXApiKey),
    ("api-key", Auth::ApiKeyOrBearer),
    ("x-goog-api-key", Auth::GoogleKeyOrBearer),
    ("aws", Auth::Aws),
];

/// Applies the `[[provider]]` sections to the built-in table.
pub(super) fn apply(overrides: &[Section<'_, '_>], builtin: Vec<Provider>) -> Vec<Arc<Provider>> {
    let shipped: Vec<String> = builtin.iter().map(|provider| provider.name.clone()).collect();
    let mut providers = builtin;
    let mut named: Vec<&str> = Vec::new();
    for section in overrides {
        section.missing(
            "name",
            "add name = \"openai\", or the name of a provider of your own",
        );
        let Some(name) = section.string("name") else {
            // Whose it is is not known; what is wrong with the rest of it can still be said.
            read_own(section, "");
            continue;
        };
        let name = *name.get_ref();
        if named.contains(&name) {
            let message = format!("a second [[provider]] named {name:?}");
            section
                .reader
                .error(&section.place("name"), message, "merge the two sections into one");
            continue;
        }
        named.push(name);
        if shipped.iter().any(|known| known == name) {
            if let Some(provider) = providers.iter_mut().find(|provider| provider.name == name) {
                amend(section, provider);
            }
        } else if let Some(provider) = own(section, name, &shipped) {
            providers.push(provider);
        }
    }
    shared_hosts(overrides, &providers);
    providers.into_iter().map(Arc::new).collect()
}

/// An override of a built-in provider.
fn amend(section: &Section<'_, '_>, provider: &mut Provider) {
    for key in ["dialect", "speaks", "auth", "base_path"] {
        if section.has(key) {
            let message = format!("`{key}` of the built-in provider {:?} is fixed", provider.name);
            let fix = "remove the line, or give a provider of your own another name";
            section.reader.error(&section.place(key), message, fix);
        }
    }
    for host in hosts(section).unwrap_or_default() {
        if !provider.hosts.contains(&host) {
            provider.hosts.push(host);
        }
    }
    common(section, provider);
}

/// A provider of one's own.
fn own(section: &Section<'_, '_>, name: &str, shipped: &[String]) -> Option<Provider> {
    if !section.has("hosts")
        && !section.has("dialect")
        && !section.has("speaks")
        && let Some(near) = nearest(name, shipped.iter().map(String::as_str))
    {
        let message = format!("no built-in provider is named {name:?}");
        section
            .reader
            .error(&section.place("name"), message, format!("did you mean {near:?}?"));
        return None;
    }
    super::agents::check_name(section, "name");
    section.missing(
        "hosts",
        format!(
            "{name:?} is not built in: add hosts = [\"llm.example.com\"], or name one of {}",
            shipped.join(", ")
        ),
    );
    if !section.has("speaks") {
        section.missing(
            "dialect",
            "add dialect = \"openai-chat\" or \"anthropic-messages\"",
        );
    } else if section.has("dialect") || section.has("base_path") {
        section.reader.error(
            &section.place("speaks"),
            format!("provider {name:?} has `speaks` beside `dialect` or `base_path`"),
            "write every format with its path into `speaks`",
        );
    }
    if section.strings("hosts").is_some_and(|hosts| hosts.is_empty()) {
        section.reader.error(
            &section.place("hosts"),
            format!("provider {name:?} has no host"),
            "name at least one host, for example \"llm.example.com\"",
        );
    }
    Some(read_own(section, name))
}

fn read_own(section: &Section<'_, '_>, name: &str) -> Provider {
    let hosts = hosts(section);
    let auth = section.choice("auth", AUTHS).unwrap_or(Auth::Bearer);
    let formats = match section.sections("speaks", "provider.speaks") {
        Some(listed) => listed.iter().map(mount).collect(),
        None => vec![mount(section)],
    };
    let mut provider = Provider {
        hosts: hosts.unwrap_or_default(),
        formats,
        ..Provider::plain(name, &[], DialectKind::OpenaiChat, auth)
    };
    common(section, &mut provider);
    // An incomplete one has been reported, so the file is refused; an agent that names it is still not told that it
    // is unknown.
    provider
}

/// A format and its path.
fn mount(section: &Section<'_, '_>) -> Mount {
    Mount {
        base: base_path(section).unwrap_or_default(),
        dialect: section
            .choice("dialect", DIALECTS)
            .unwrap_or(DialectKind::OpenaiChat),
    }
}

/// The keys that mean the same for both.
fn common(section: &Section<'_, '_>, provider: &mut Provider) {
    if let Some(keys) = section.sections("keys", "provider.keys") {
        provider.keys = keys.iter().filter_map(named_key).collect();
        for (at, key) in provider.keys.iter().enumerate() {
            if provider.keys.iter().take(at).any(|other| other.name == key.name) {
                let message = format!("two keys of {:?} are named {:?}", provider.name, key.name);
                section
                    .reader
                    .error(&section.place("keys"), message, "give each key a name of its own");
            }
        }
    }
    provider.connect_to = connect_to(section).or(provider.connect_to);
    if let Some(files) = section.strings("trust") {
        let reader = section.reader;
        let paths: Vec<PathBuf> = files
            .iter()
            .filter_map(|text| absolute(reader, "trust", text))
            .collect();
        provider.trust = paths;
    }
}

fn hosts(section: &Section<'_, '_>) -> Option<Vec<String>> {
    let written = section.strings("hosts")?;
    let valid = written.iter().filter_map(|host| {
        let name = host.get_ref().to_ascii_lowercase();
        if is_host_name(&name) {
            return Some(name);
        }
        section.reader.error(
            &host.span(),
            format!("{:?} is not a host name", host.get_ref()),
            "write the exact name without scheme, port, path or wildcard, for example \"llm.example.com\"",
        );
        None
    });
    Some(valid.collect())
}

/// RFC 1123 host name with at least one dot and a last label that is not a number (an IP address has no name to
/// terminate for).
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let last_is_a_name = name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()));
    name.len() <= 253 && name.contains('.') && last_is_a_name && name.split('.').all(label)
}

fn base_path(section: &Section<'_, '_>) -> Option<String> {
    let text = section.string("base_path")?;
    let path = *text.get_ref();
    let odd = |c: char| c.is_whitespace() || c.is_control() || "?#%\\".contains(c);
    if path.is_empty()
        || (path.starts_with('/') && !path.ends_with('/') && !path.contains("//") && !path.contains(odd))
    {
        return Some(path.to_owned());
    }
    let message = format!("bad path {path:?}");
    section.reader.error(
        &text.span(),
        message,
        "write it with a leading and without a trailing slash: \"/openai\"",
    );
    None
}

fn connect_to(section: &Section<'_, '_>) -> Option<SocketAddr> {
    let text = section.string("connect_to")?;
    match text.get_ref().parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 => Some(address),
        Ok(_) | Err(_) => {
            section.reader.error(
                &text.span(),
                format!("bad address {:?}", text.get_ref()),
                "write an IP address and a port, for example \"10.0.0.5:443\" or \"[fd00::5]:443\"",
            );
            None
        }
    }
}

fn named_key(section: &Section<'_, '_>) -> Option<NamedKey> {
    section.missing("name", "add name = \"prod-1\"");
    section.missing("from", "add from = \"file:/etc/guard/keys/openai\"");
    super::agents::check_name(section, "name");
    let name = section.string("name");
    let source = source(section);
    Some(NamedKey {
        name: (*name?.get_ref()).to_owned(),
        source: source?,
    })
}

fn source(section: &Section<'_, '_>) -> Option<KeySource> {
    let text = section.string("from")?;
    let reader = section.reader;
    let plain = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    // A key pasted here is a likely mistake; it must not be repeated in the message.
    let help = "write file:/absolute/path, credential:NAME or env:NAME";
    match text.get_ref().split_once(':') {
        Some(("file", path)) => {
            absolute(reader, "from", &toml::Spanned::new(text.span(), path)).map(KeySource::File)
        }
        Some(("env", name)) if plain(name) => Some(KeySource::Env(name.to_owned())),
        // A name with a slash would leave the credentials directory.
        Some(("credential", name)) if plain(name) && !name.starts_with('.') => {
            Some(KeySource::Credential(name.to_owned()))
        }
        Some(("vault", _)) => {
            reader.error(
                &text.span(),
                "`vault:` keys are not available in this version",
                help,
            );
            None
        }
        _ => {
            reader.error(
                &text.span(),
                "`from` does not say where the key is read from (a key itself does not belong in this file)",
                help,
            );
            None
        }
    }
}

/// A host that two providers claim could not be routed.
fn shared_hosts(overrides: &[Section<'_, '_>], providers: &[Provider]) {
    for (at, provider) in providers.iter().enumerate() {
        for earlier in providers.iter().take(at) {
            let Some(host) = provider.hosts.iter().find(|host| earlier.hosts.contains(host)) else {
                continue;
            };
            // The one to change is whichever of the two is in the file; the later, when both are.
            let is = |section: &Section<'_, '_>, side: &Provider| {
                section
                    .string("name")
                    .is_some_and(|name| *name.get_ref() == side.name)
            };
            let blamed = [provider, earlier].into_iter().find_map(|side| {
                overrides
                    .iter()
                    .find(|section| is(section, side) && section.has("hosts"))
            });
            if let Some(section) = blamed {
                let message = format!(
                    "{host:?} belongs to both {:?} and {:?}",
                    earlier.name, provider.name
                );
                section
                    .reader
                    .error(&section.place("hosts"), message, "give each host to one provider");
            }
        }
    }
}
