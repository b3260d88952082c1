//! `[[agent]]`

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use globset::GlobMatcher;
use toml::Spanned;

use super::problem::nearest;
use super::read::Section;
use super::{Agent, Budget, ContainerLabel, Login, Pattern, Telemetry, budget, caps, egress, loops};
use crate::llm::provider::Provider;

/// Reads every agent; `defaults` are the budgets of one that names none.
pub(super) fn read(
    sections: &[Section<'_, '_>],
    providers: &[Arc<Provider>],
    defaults: &[Budget],
) -> Vec<Arc<Agent>> {
    let mut agents: Vec<Arc<Agent>> = Vec::new();
    let mut owners_of_cgroups: BTreeMap<String, Arc<str>> = BTreeMap::new();
    let mut owners_of_labels: HashMap<ContainerLabel, Arc<str>> = HashMap::new();
    for section in sections {
        let Some(agent) = one(section, providers, defaults) else {
            continue;
        };
        if agents.iter().any(|other| other.name == agent.name) {
            let message = format!("a second agent named {:?}", agent.name);
            section.reader.error(
                &section.place("name"),
                message,
                "give each agent a name of its own",
            );
            continue;
        }
        for cgroup in &agent.cgroups {
            let pattern = cgroup.trim_end_matches('/').to_owned();
            if let Some(other) = owners_of_cgroups.insert(pattern, agent.name.clone()) {
                let message = format!(
                    "the {} {cgroup:?} of agent {:?} is already agent {other:?}'s",
                    if cgroup.starts_with('/') {
                        "cgroup pattern"
                    } else {
                        "unit"
                    },
                    agent.name
                );
                let fix = "a process belongs to one agent: give each cgroup and unit to one of them";
                section.reader.error(&section.place("match"), message, fix);
            }
        }
        for label in &agent.container_labels {
            if let Some(other) = owners_of_labels.insert(label.clone(), agent.name.clone()) {
                let message = format!(
                    "the container label {}={} of agent {:?} is already agent {other:?}'s",
                    label.key, label.value, agent.name
                );
                let fix = "a container belongs to one agent: give each label to one of them";
                section.reader.error(&section.place("match"), message, fix);
            }
        }
        agents.push(Arc::new(agent));
    }
    agents
}

fn one(section: &Section<'_, '_>, providers: &[Arc<Provider>], defaults: &[Budget]) -> Option<Agent> {
    section.missing("name", "add name = \"coder\"");
    section.missing(
        "owner",
        "add owner = \"platform-team\": every dollar has an owner",
    );
    let names = providers.iter().map(|provider| provider.name.as_str());
    section.missing(
        "providers",
        format!(
            "add for example providers = [\"anthropic\"]; known: {}",
            names.collect::<Vec<_>>().join(", ")
        ),
    );
    check_name(section, "name");
    let name = section.string("name");
    let owner = owner(section);
    let (cgroups, container_labels) = matches(section);
    let rules = section.section("egress", "agent.egress");
    Some(Agent {
        egress: rules.as_ref().map(egress::read).unwrap_or_default(),
        cgroups,
        container_labels,
        providers: allowed_providers(section, providers),
        models: models(section),
        endpoints: endpoints(section),
        login: section
            .choice("login", &[("refuse", Login::Refuse), ("pass", Login::Pass)])
            .unwrap_or(Login::Refuse),
        telemetry: section
            .choice(
                "telemetry",
                &[("refuse", Telemetry::Refuse), ("pass", Telemetry::Pass)],
            )
            .unwrap_or(Telemetry::Refuse),
        websockets: section
            .choice("websockets", &[("meter", true), ("refuse", false)])
            .unwrap_or(true),
        tools: section
            .section("tools", "agent.tools")
            .map(|tools| super::tools::read(&tools)),
        caps: section
            .section("caps", "agent.caps")
            .map(|caps| caps::read(&caps))
            .unwrap_or_default(),
        retries: section
            .section("retries", "agent.retries")
            .map(|retries| loops::retries(&retries))
            .unwrap_or_default(),
        loops: section
            .section("loops", "agent.loops")
            .map(|rules| loops::loops(&rules))
            .unwrap_or_default(),
        budgets: budget::read(section).unwrap_or_else(|| defaults.to_vec()),
        name: Arc::from(*name?.get_ref()),
        owner: owner?,
    })
}

/// Names appear in cgroup paths, metric labels and file names: a narrow alphabet keeps them the same everywhere.
pub(super) fn check_name(section: &Section<'_, '_>, key: &str) {
    let Some(name) = section.string(key) else { return };
    let text = *name.get_ref();
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if text.len() > 63 || !begins_well || !text.bytes().all(fine) {
        let message = format!("bad name {text:?}");
        let fix =
            "use lower-case letters, digits, '-', '_' and '.', beginning with a letter or digit, at most 63";
        section.reader.error(&name.span(), message, fix);
    } else if text == "other" {
        let fix = "choose another name";
        section.reader.error(
            &name.span(),
            "\"other\" stands for every unknown name in the metrics",
            fix,
        );
    }
}

fn owner(section: &Section<'_, '_>) -> Option<Arc<str>> {
    let owner = section.string("owner")?;
    let text = owner.get_ref().trim();
    if text.is_empty() || text.len() > 128 || text.chars().any(char::is_control) {
        section.reader.error(
            &owner.span(),
            "`owner` must be 1 to 128 printable characters",
            "name who pays, for example owner = \"platform-team\"",
        );
        return None;
    }
    Some(Arc::from(text))
}

fn matches(section: &Section<'_, '_>) -> (Vec<String>, Vec<ContainerLabel>) {
    let (mut cgroups, mut labels) = (Vec::new(), Vec::new());
    for entry in section.sections("match", "agent.match").unwrap_or_default() {
        let written: Vec<&str> = ["cgroup", "container_label", "unit"]
            .into_iter()
            .filter(|key| entry.has(key))
            .collect();
        match written.as_slice() {
            [] => entry.missing("cgroup", "write { cgroup = \"/agents.slice/coder/**\" }"),
            [_] => {}
            [.., last] => entry.reader.error(
                &entry.place(last),
                format!("one entry of `match` with {} keys", written.len()),
                "write an entry for each: any one of them makes a process the agent's",
            ),
        }
        let cgroup = entry.string("cgroup").and_then(|text| {
            entry.reader.glob(&text, true)?;
            cgroup_pattern(&entry, &text)
        });
        cgroups.extend(cgroup);
        let unit = entry.string("unit").and_then(|text| {
            let glob = entry.reader.glob(&text, false)?;
            unit_pattern(&entry, &text, &glob)
        });
        cgroups.extend(unit);
        labels.extend(
            entry
                .string("container_label")
                .and_then(|text| container_label(&entry, &text)),
        );
    }
    (cgroups, labels)
}

fn container_label(entry: &Section<'_, '_>, text: &Spanned<&str>) -> Option<ContainerLabel> {
    match text.get_ref().split_once('=') {
        Some((key, value)) if !key.trim().is_empty() && !value.is_empty() => Some(ContainerLabel {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
        _ => {
            entry.reader.error(
                &text.span(),
                format!("bad container label {:?}", text.get_ref()),
                "write KEY=VALUE, for example \"guard.agent=coder\"",
            );
            None
        }
    }
}

fn cgroup_pattern(entry: &Section<'_, '_>, text: &Spanned<&str>) -> Option<String> {
    let written = *text.get_ref();
    let (message, fix) = if !written.starts_with('/') {
        (
            format!("the cgroup {written:?} must begin with `/`"),
            format!(
                "write \"/{written}\", as seen below host.cgroup_root (`cat /proc/PID/cgroup` shows it after `0::`)"
            ),
        )
    } else if written.split('/').any(|part| part == ".." || part == ".") || written.contains("//") {
        (
            format!("the cgroup {written:?} is not a plain path"),
            "write it without `.`, `..` and `//`".to_owned(),
        )
    } else if written.split('/').all(|part| part.bytes().all(|b| b == b'*')) {
        (
            format!("the cgroup {written:?} is the whole host, Guard itself included"),
            "name the cgroup in which the agent lives, for example \"/agents.slice/**\"".to_owned(),
        )
    } else {
        return Some(written.to_owned());
    };
    entry.reader.error(&text.span(), message, fix);
    None
}

/// Units that an agent cannot be: they hold Guard, or the whole host.
const NOT_AGENTS: [&str; 5] = [
    "-.slice",
    "system.slice",
    "init.scope",
    "guard.slice",
    "guard-agent.service",
];

fn unit_pattern(entry: &Section<'_, '_>, text: &Spanned<&str>, glob: &GlobMatcher) -> Option<String> {
    let written = *text.get_ref();
    let kinds = [".service", ".slice", ".scope"];
    let (message, fix) = if written.contains('/') || !kinds.iter().any(|kind| written.ends_with(kind)) {
        (
            format!("bad unit {written:?}"),
            "write the name of a service, scope or slice, for example \"coder@*.service\"".to_owned(),
        )
    } else if let Some(wide) = NOT_AGENTS.iter().find(|unit| glob.is_match(unit)) {
        (
            format!("the unit {written:?} covers {wide}, in which Guard itself or the whole host lives"),
            "name the agent's own units, or give agents a slice of their own, for example \"agents.slice\""
                .to_owned(),
        )
    } else {
        return Some(written.to_owned());
    };
    entry.reader.error(&text.span(), message, fix);
    None
}

fn allowed_providers(section: &Section<'_, '_>, providers: &[Arc<Provider>]) -> Vec<String> {
    let Some(written) = section.strings("providers") else {
        return Vec::new();
    };
    let names = || providers.iter().map(|provider| provider.name.as_str());
    if written.is_empty() {
        section.reader.error(
            &section.place("providers"),
            "an agent without a provider can call nothing",
            format!("name at least one of {}", names().collect::<Vec<_>>().join(", ")),
        );
    }
    for name in &written {
        if names().any(|known| known == *name.get_ref()) {
            continue;
        }
        let fix = nearest(name.get_ref(), names()).map_or_else(
            || {
                format!(
                    "known: {}; one of your own needs a [[provider]] section",
                    names().collect::<Vec<_>>().join(", ")
                )
            },
            |near| format!("did you mean {near:?}?"),
        );
        section.reader.error(
            &name.span(),
            format!("unknown provider {:?}", name.get_ref()),
            fix,
        );
    }
    written.iter().map(|name| (*name.get_ref()).to_owned()).collect()
}

/// An absent list is every model, which `unpriced = "refuse"` narrows to every priced one.
fn models(section: &Section<'_, '_>) -> Vec<Pattern> {
    let everything = Spanned::new(section.span.clone(), "*");
    let written = section.strings("models");
    if written.as_ref().is_some_and(Vec::is_empty) {
        section.reader.warning(
            &section.place("models"),
            "an empty `models` allows no model",
            "leave the key out to allow every priced model of the agent's providers",
        );
    }
    section
        .reader
        .patterns(&written.unwrap_or_else(|| vec![everything]))
}

fn endpoints(section: &Section<'_, '_>) -> Vec<Pattern> {
    let written = section.strings("endpoints").unwrap_or_default();
    for path in &written {
        if !path.get_ref().starts_with('/') {
            let message = format!("the endpoint {:?} must begin with `/`", path.get_ref());
            section
                .reader
                .error(&path.span(), message, "write the path, for example \"/v1/files\"");
        }
    }
    section.reader.patterns(&written)
}
