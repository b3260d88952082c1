//! `/etc/guard/guard.toml` after checking: every value here is valid by type.
//!
//! In: the text of the file and the table of built-in providers. Out: a `Config`, and what is worth a look.
//! On failure: every problem in the file at once, each with its line and its fix; never a partial configuration.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

mod agents;
mod alerts;
mod budget;
mod caps;
mod egress;
mod files;
mod host;
mod loops;
mod prices;
mod problem;
mod providers;
mod read;
pub mod schema;
mod slips;
#[cfg(test)]
mod tests;
mod tools;

pub use alerts::{ALERTS, AlertRule, AlertTo, Hook};
pub use budget::{Budget, OnSoft, Per, SharedBudget, Whose};
pub use loops::{Levels, LoopRule, LoopRules, Retries, WINDOW as LOOP_WINDOW};
pub use prices::{Prices, Unpriced};
pub use problem::{Problem, Severity};
pub use tools::{ArgumentRule, Matcher, ToolRules};

use globset::GlobMatcher;

use crate::llm::provider::Provider;
use crate::route::egress::Egress;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[host]`
    pub host: Host,
    /// `[[provider]]` applied to the built-in table.
    pub providers: Vec<Arc<Provider>>,
    /// `[[agent]]`, with `[defaults]` filled in.
    pub agents: Vec<Arc<Agent>>,
    /// `[[budget]]`
    pub budgets: Vec<SharedBudget>,
    /// `[[alert]]`
    pub alerts: Vec<AlertRule>,
    /// `[prices]`
    pub prices: Prices,
    /// What happens to a call whose model has no price.
    pub unpriced: Unpriced,
}

/// Where the configuration is unless a command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/guard/guard.toml";

/// Largest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The outcome of a check.
#[derive(Debug)]
pub struct Checked {
    /// The configuration, unless one of the problems is an error.
    pub config: Option<Config>,
    /// Errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Reads and checks the file, and looks at the files that it names. Warnings are dropped; `check` has them.
///
/// # Errors
/// Every problem that was found, the warnings among them.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    accepted(check(path))
}

/// Checks a text; `file_name` is what the problems call it. Looks at nothing outside the text.
///
/// # Errors
/// Every problem that was found, the warnings among them.
pub fn parse(text: &str, file_name: &str) -> Result<Config, Vec<Problem>> {
    accepted(check_text(text, file_name, crate::llm::provider::builtin()))
}

/// `[host]` when nothing is configured.
pub fn usual_host() -> Host {
    host::read(None)
}

fn accepted(checked: Checked) -> Result<Config, Vec<Problem>> {
    checked.config.ok_or(checked.problems)
}

/// As [`load`], with the text that was read.
///
/// # Errors
/// As [`load`].
pub fn load_with_text(path: &Path) -> Result<(Config, String), Vec<Problem>> {
    let (checked, text) = check_with_text(path);
    Ok((accepted(checked)?, text))
}

/// Reads and checks the file, and looks at the files that it names.
pub fn check(path: &Path) -> Checked {
    check_with_text(path).0
}

fn check_with_text(path: &Path) -> (Checked, String) {
    let name = path.display().to_string();
    let text = match read_text(path) {
        Ok(text) => text,
        Err((message, fix)) => {
            let problem = Problem {
                severity: Severity::Error,
                file: name,
                line: 0,
                column: 0,
                message,
                fix,
            };
            let checked = Checked {
                config: None,
                problems: vec![problem],
            };
            return (checked, String::new());
        }
    };
    let mut checked = check_text(&text, &name, crate::llm::provider::builtin());
    if let Some(config) = &checked.config {
        checked.problems.extend(files::inspect(config, &name));
    }
    (refuse_on_error(checked), text)
}

fn read_text(path: &Path) -> Result<String, (String, String)> {
    let cannot = |why: &std::io::Error| {
        let fix =
            format!("create the file, or name another with --config; {DEFAULT_PATH} is the usual place");
        (format!("cannot be read: {why}"), fix)
    };
    let file = std::fs::File::open(path).map_err(|why| cannot(&why))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|why| cannot(&why))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err((
            "is larger than 1 MiB".to_owned(),
            "this cannot be a guard.toml".to_owned(),
        ));
    }
    String::from_utf8(bytes).map_err(|why| {
        (
            format!("is not UTF-8: {}", why.utf8_error()),
            "save it as UTF-8".to_owned(),
        )
    })
}

/// Checks a text against a table of built-in providers.
pub fn check_text(text: &str, file_name: &str, builtin: Vec<Provider>) -> Checked {
    let mut reader = read::Reader::new(text, file_name);
    let (root, syntax) = DeTable::parse_recoverable(text);
    let broken: Vec<std::ops::Range<usize>> =
        syntax.iter().map(|error| error.span().unwrap_or(0..0)).collect();
    for (error, at) in syntax.iter().zip(&broken) {
        reader.error(
            at,
            format!("not TOML: {}", error.message()),
            "see https://toml.io for the syntax",
        );
    }
    reader.broken = !syntax.is_empty();
    let config = assemble(&reader, &root, builtin);
    refuse_on_error(Checked {
        config: Some(config),
        problems: reader.into_problems(&broken),
    })
}

fn assemble(reader: &read::Reader<'_>, root: &toml::Spanned<DeTable<'_>>, builtin: Vec<Provider>) -> Config {
    let root = read::Section::open(reader, "", root.get_ref(), root.span());
    let host = root.section("host", "host");
    let defaults = root.section("defaults", "defaults");
    // Opened for its keys: what it may say in this version is what Guard does anyway.
    let _ledger = root.section("ledger", "ledger");
    let overrides = root.sections("provider", "provider").unwrap_or_default();
    let agents = root.sections("agent", "agent").unwrap_or_default();
    let alerts = alerts::read(&root.sections("alert", "alert").unwrap_or_default());
    if agents.is_empty() && !reader.broken {
        let fix = "add an [[agent]] section with name, owner, match and providers";
        reader.warning(&root.span, "no agent is configured: nothing is governed", fix);
    }
    let prices = prices::read(root.section("prices", "prices").as_ref());
    let unpriced = defaults.as_ref().map(prices::unpriced).unwrap_or_default();
    let budgets = defaults
        .as_ref()
        .and_then(budget::read)
        .unwrap_or_else(budget::fallback);
    let providers = providers::apply(&overrides, builtin);
    let agents = agents::read(&agents, &providers, &budgets);
    let shared = root.sections("budget", "shared").unwrap_or_default();
    let budgets = budget::read_shared(&shared, &providers, &agents);
    let mut host = host::read(host.as_ref());
    if host.docker.is_none() && agents.iter().any(|agent| !agent.container_labels.is_empty()) {
        host.docker = Some(PathBuf::from(host::ENGINE));
    }
    Config {
        host,
        agents,
        alerts,
        providers,
        budgets,
        prices,
        unpriced,
    }
}

fn refuse_on_error(checked: Checked) -> Checked {
    let refused = checked
        .problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    Checked {
        config: checked.config.filter(|_| !refused),
        problems: checked.problems,
    }
}

/// `[host]`
#[derive(Debug, Clone)]
pub struct Host {
    /// Programs attach here.
    pub cgroup_root: PathBuf,
    /// CA, ledger, audit.
    pub state_dir: PathBuf,
    /// Admin socket.
    pub runtime_dir: PathBuf,
    /// Pinned links and maps.
    pub bpffs: PathBuf,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub metrics: SocketAddr,
    /// Enforce, or only watch.
    pub mode: Mode,
    /// What governed processes get while Guard is down.
    pub when_down: WhenDown,
    /// What containers get that nobody has identified, while Guard is down.
    pub unknown_when_down: WhenDown,
    /// Calendar of the budget windows.
    pub timezone: jiff::tz::TimeZone,
    /// Socket of the container engine; none if containers are not watched.
    pub docker: Option<PathBuf>,
    /// How often the canary tries to get out.
    pub canary: Duration,
    /// Where the engine puts containers.
    pub container_cgroups: Vec<ContainerCgroup>,
}

/// What happens while Guard is down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenDown {
    /// Connections are refused.
    #[default]
    Refuse,
    /// Connections go direct, unseen and unlimited.
    Direct,
}

/// A place where a container engine makes cgroups.
#[derive(Debug, Clone)]
pub struct ContainerCgroup {
    /// The directory, relative to `cgroup_root`.
    pub parent: PathBuf,
    /// Names of containers' cgroups in it.
    pub name: GlobMatcher,
    /// Everything in it is a container's: what is not identified yet is held back.
    pub dedicated: bool,
}

/// A label of a container, compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerLabel {
    /// Key.
    pub key: String,
    /// Value.
    pub value: String,
}

/// Whether rules change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Refuse what the rules refuse.
    Enforce,
    /// Never change a byte or a verdict; record what would have been refused.
    Observe,
}

/// `[[agent]]`
#[derive(Debug, Clone)]
pub struct Agent {
    /// Unique name.
    pub name: Arc<str>,
    /// Who pays.
    pub owner: Arc<str>,
    /// Cgroup patterns, relative to `cgroup_root`; one that does not begin with a slash names a systemd unit.
    pub cgroups: Vec<String>,
    /// Labels of its containers.
    pub container_labels: Vec<ContainerLabel>,
    /// Providers that it may use, by name; empty means none.
    pub providers: Vec<String>,
    /// Models that it may use.
    pub models: Vec<Pattern>,
    /// Further endpoints (paths) that it may use.
    pub endpoints: Vec<Pattern>,
    /// Whether the agent's own login is passed through.
    pub login: Login,
    /// What happens to its clients' reports on their use.
    pub telemetry: Telemetry,
    /// Whether its calls may come over a WebSocket too.
    pub websockets: bool,
    /// Tools that it may declare; `None` means every tool.
    pub tools: Option<ToolRules>,
    /// Per-call and concurrency caps.
    pub caps: Caps,
    /// Limits on client retries.
    pub retries: Retries,
    /// Loop detection.
    pub loops: LoopRules,
    /// Budgets.
    pub budgets: Vec<Budget>,
    /// Where it may connect to beside its providers.
    pub egress: Egress,
}

/// What to do with a credential of the caller's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Refuse it.
    Refuse,
    /// Forward it, metered.
    Pass,
}

/// What to do with a client's reports on its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telemetry {
    /// Refuse them, at once and without counting a refusal.
    Refuse,
    /// Forward them.
    Pass,
}

/// What happens to a tool that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnViolation {
    /// Remove it from the request.
    Strip,
    /// Refuse the call.
    Refuse,
}

/// Caps on one call and on concurrency.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caps {
    /// Output tokens of one call.
    pub output_tokens: Option<u64>,
    /// Bytes of the body of one call.
    pub input_bytes: Option<u64>,
    /// Calls in flight.
    pub in_flight: Option<u32>,
    /// Wall-clock time of one run.
    pub run_timeout: Option<std::time::Duration>,
    /// Calls in any minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens in any minute.
    pub tokens_per_minute: Option<u64>,
}

/// A name pattern (`*`, `?`), kept with its text for messages.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As written.
    pub text: String,
    /// Compiled.
    pub matcher: GlobMatcher,
}

impl Pattern {
    /// Whether the pattern covers this name.
    pub fn covers(&self, name: &str) -> bool {
        self.matcher.is_match(name)
    }
}
