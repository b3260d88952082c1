//! A whole policy for tests: real ledger, audit log, price table, metrics and placeholders in a directory of their own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use ulid::Ulid;

use super::tests_support::config;
use super::{Decide, Outcome, Permit, Policy, Snapshot};
use crate::audit::{Audit, AuditSettings};
use crate::call::{Call, Fingerprint, Origin, Said};
use crate::clock::{Clock, SharedClock};
use crate::config::Config;
use crate::identity::{Identity, Process};
use crate::keys::placeholder::Placeholders;
use crate::keys::vault::Vault;
use crate::ledger::{Ledger, LedgerSettings, Window};
use crate::llm::prices::PriceTable;
use crate::llm::provider::Provider;
use crate::llm::{EndpointKind, ReplyFacts, Usage, detect};
use crate::record::Recorder;
use crate::refusal::Refusal;
use crate::telemetry::metrics::{Labels, Metrics};

/// Pico-dollars of a token of `m` and `big`: input one, output ten (millionths of a dollar).
pub(crate) const MICRO: u64 = 1_000_000;

const PRICES: &str = r#"
date = "2026-11-23"

[[model]]
provider = "openai"
model = "m"
aliases = ["m-2026"]
context_window = 100000
max_output = 1000
source = "https://provider.example/prices"
rates = { input = "1.0", output = "10.0" }
[model.tiers.priority]
rates = { input = "2.0", output = "20.0" }

[[model]]
provider = "openai"
model = "dear"
context_window = 100000
max_output = 1000
source = "https://provider.example/prices"
rates = { input = "100.0", output = "1000.0" }

[[model]]
provider = "openai"
model = "ranker"
context_window = 4096
max_output = 1
fees = { search_unit = "0.002" }

[[model]]
provider = "anthropic"
model = "big"
context_window = 200000
max_output = 1000
source = "https://provider.example/prices"
rates = { input = "1.0", output = "10.0" }
"#;

/// What the vault holds; it may turn up nowhere.
pub(crate) const REAL_KEY: &str = "sk-real-canary-0123456789";

pub(crate) struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) policy: Policy,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) placeholders: Placeholders,
    prices: Arc<PriceTable>,
    pub(crate) dir: TempDir,
}

/// Lines of `[[agent]]` that allow `m` of OpenAI, and everything that a test does not take away.
pub(crate) const USUAL: &str =
    "providers = [\"openai\", \"anthropic\"]\nbudget = [{ window = \"day\", usd = 10.0 }]";

impl World {
    /// The agent `coder` with these further lines; tables may follow.
    pub(crate) fn new(lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(1_795_000_000_000_000)));
        let shared: SharedClock = clock;
        let config = configure(dir.path(), lines);
        let prices = Arc::new(PriceTable::parse(PRICES).unwrap());
        let models = prices.models().iter().map(|model| model.label.clone());
        let metrics = Arc::new(Metrics::new(Labels::new(&config, models)).unwrap());
        let ledger = Ledger::open(LedgerSettings {
            dir: dir.path().join("state"),
            timezone: jiff::tz::TimeZone::UTC,
            clock: shared.clone(),
        })
        .unwrap();
        let audit = Audit::open(AuditSettings {
            dir: dir.path().join("audit"),
            clock: shared.clone(),
        })
        .unwrap();
        let recorder = Arc::new(Recorder::new(audit, metrics.clone(), prices.clone(), shared));
        let placeholders = Placeholders::open(dir.path())
            .unwrap()
            .knowing(&["coder".into(), "spy".into()], ["openai", "anthropic"]);
        let vault = Vault::read(&config.providers).unwrap();
        let rules = Snapshot::new(&config, vault, placeholders.clone(), prices.clone());
        let policy = Policy::new(rules, ledger.clone(), recorder.clone(), metrics.clone());
        Self {
            config,
            policy,
            ledger,
            metrics,
            recorder,
            placeholders,
            prices,
            dir,
        }
    }

    /// Puts other lines in force.
    pub(crate) fn reload(&mut self, lines: &str) {
        let config = configure(self.dir.path(), lines);
        self.replace(&config);
        self.config = config;
    }

    pub(crate) fn replace(&self, config: &Config) {
        let vault = Vault::read(&config.providers).unwrap();
        self.policy.replace(Snapshot::new(
            config,
            vault,
            self.placeholders.clone(),
            self.prices.clone(),
        ));
    }

    pub(crate) fn provider(&self, name: &str) -> Arc<Provider> {
        let mut providers = self.config.providers.iter();
        providers.find(|provider| provider.name == name).unwrap().clone()
    }

    pub(crate) fn ask(&self, asked: Asked<'_>) -> Result<Permit, Refusal> {
        let provider = self.provider(asked.provider);
        self.policy
            .decide(&who(asked.run), &provider, &asked.call(&provider))
    }

    /// A chat completion with this body.
    pub(crate) fn chat(&self, body: &str) -> Result<Permit, Refusal> {
        self.ask(Asked::chat(body))
    }

    /// Settled and reserved of the agent's (or the run's) account.
    pub(crate) fn account(&self, window: Window) -> (u64, u64) {
        let accounts = self.ledger.accounts();
        let account = accounts.iter().find(|account| account.window == window);
        account.map_or((0, 0), |account| (account.settled.count, account.reserved.count))
    }

    /// The records, once there are `count`; more are a failure too.
    pub(crate) fn records(&self, count: usize) -> Vec<Value> {
        let until = Instant::now() + Duration::from_secs(10);
        while self.recorder.audit().stats().written < count as u64 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut files: Vec<_> = std::fs::read_dir(self.dir.path().join("audit"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"))
            .collect();
        files.sort();
        let texts = files.iter().map(|path| std::fs::read_to_string(path).unwrap());
        let lines: Vec<Value> = texts
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .map(|line| serde_json::from_str(&line).unwrap())
            .collect();
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    /// The one record.
    pub(crate) fn record(&self) -> Value {
        self.records(1).remove(0)
    }

    /// Value of a series, by its name and labels as Prometheus prints them; zero when it is not there.
    pub(crate) fn metric(&self, series: &str) -> String {
        let text = String::from_utf8(self.metrics.text().unwrap()).unwrap();
        let found = text.lines().find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name == series).then(|| value.to_owned())
        });
        found.unwrap_or_else(|| "0".to_owned())
    }

    /// Sum over every series of a name.
    pub(crate) fn total(&self, name: &str) -> u64 {
        let text = String::from_utf8(self.metrics.text().unwrap()).unwrap();
        text.lines()
            .filter(|line| line.starts_with(&format!("{name}{{")))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum()
    }
}

fn configure(dir: &Path, lines: &str) -> Config {
    use std::os::unix::fs::PermissionsExt;
    let key = dir.join("key");
    std::fs::write(&key, REAL_KEY).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let keys = |name: &str| {
        format!(
            "\n[[provider]]\nname = \"{name}\"\nkeys = [{{ name = \"prod-1\", from = \"file:{}\" }}]\n",
            key.display()
        )
    };
    config(&format!("{lines}\n{}{}", keys("openai"), keys("anthropic")))
}

pub(crate) fn who(run: &str) -> Identity {
    Identity {
        agent: "coder".into(),
        owner: "team".into(),
        run: run.into(),
        cgroup: format!("/guard.slice/coder/{run}"),
        container: None,
        unit: None,
        process: Process {
            pid: 1234,
            uid: 1000,
            exe: Some("/usr/bin/python3".to_owned()),
            comm: "python3".to_owned(),
        },
    }
}

/// A request, as a client would send it.
pub(crate) struct Asked<'a> {
    pub(crate) provider: &'a str,
    pub(crate) method: Method,
    pub(crate) target: &'a str,
    pub(crate) headers: &'a [(&'static str, &'a str)],
    pub(crate) body: &'a str,
    pub(crate) run: &'a str,
}

impl<'a> Asked<'a> {
    pub(crate) fn chat(body: &'a str) -> Self {
        Self {
            provider: "openai",
            method: Method::POST,
            target: "/v1/chat/completions",
            headers: &[],
            body,
            run: "run-1",
        }
    }

    pub(crate) fn messages(body: &'a str) -> Self {
        Self {
            provider: "anthropic",
            target: "/v1/messages",
            ..Self::chat(body)
        }
    }

    pub(crate) fn call(&self, provider: &Arc<Provider>) -> Call {
        let target = Uri::try_from(self.target).unwrap();
        let headers: HeaderMap = self
            .headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let endpoint = detect::endpoint(provider, &self.method, target.path());
        let body = Bytes::copy_from_slice(self.body.as_bytes());
        let facts = (endpoint.kind == EndpointKind::Inference)
            .then(|| endpoint.dialect.request_at(&endpoint.place, &body).unwrap());
        Call {
            id: Ulid::new(),
            provider: provider.clone(),
            origin: Origin {
                destination: "203.0.113.10:443".parse().unwrap(),
                sni: provider.hosts[0].clone(),
            },
            endpoint: endpoint.kind,
            dialect: endpoint.dialect,
            method: self.method.clone(),
            said: Said::read(&headers, &target),
            target,
            headers,
            facts,
            body_fingerprint: Fingerprint::of(&body),
            body,
            encoded_body: None,
        }
    }
}

/// What the worst case of a body comes to at the prices of `m` and `big`.
pub(crate) fn worst(body: &str, output: u64) -> u64 {
    (body.len() as u64 + 1024 + 10 * output) * MICRO
}

/// A reply that ended well with this usage.
pub(crate) fn answered(input: u64, output: u64) -> Outcome {
    Outcome {
        waited: Duration::ZERO,
        forwarded: true,
        status: Some(StatusCode::OK),
        facts: ReplyFacts {
            usage: Some(Usage {
                input,
                output,
                ..Usage::default()
            }),
            model: Some("m-2026".to_owned()),
            finish: Some("stop".to_owned()),
            complete: true,
            ..ReplyFacts::default()
        },
        client_gone: false,
        first_token: Some(Duration::from_millis(180)),
        duration: Duration::from_millis(2310),
        request_bytes: 100,
        reply_bytes: 4096,
        cut: None,
        upstream_error: None,
    }
}

/// Settles a permit.
pub(crate) fn settle(permit: Permit, outcome: Outcome) {
    permit.redeem().settlement.settle(outcome);
}
