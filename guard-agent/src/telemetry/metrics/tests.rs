use super::*;
use crate::config::check_text;
use crate::ledger::{Amount, Cause, Scope, Unit};
use crate::llm::DialectKind;
use crate::llm::provider::{Auth, Provider};
use crate::policy::multipliers::Gauges;

fn metrics() -> Metrics {
    let openai = Provider::plain(
        "openai",
        &["api.openai.com"],
        DialectKind::OpenaiChat,
        Auth::Bearer,
    );
    let text = "[[agent]]\nname = \"coder\"\nowner = \"team\"\nproviders = [\"openai\"]\n\
                tools = { allow = [\"Read\", \"mcp__*\"] }\n";
    let config = check_text(text, "guard.toml", vec![openai]).config.unwrap();
    Metrics::new(Labels::new(&config, ["gpt-5".to_owned()])).unwrap()
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.text().unwrap()).unwrap()
}

fn series(metrics: &Metrics) -> usize {
    text(metrics)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count()
}

#[track_caller]
fn shows(metrics: &Metrics, line: &str) {
    let text = text(metrics);
    assert!(
        text.lines().any(|shown| shown == line),
        "no line {line:?} in:\n{text}"
    );
}

/// One of every event, with names that a hostile caller chose.
fn everything(metrics: &Metrics, junk: &str) {
    let usage = Usage {
        input: 1,
        cache_read: 1,
        cache_write_5m: 1,
        cache_write_1h: 1,
        output: 1,
        reasoning: 1,
        ..Usage::default()
    };
    let state = BudgetState {
        limit: Pico(1).into(),
        settled: 1,
        reserved: 1,
    };
    let second = Duration::from_secs(1);
    metrics.call(junk, junk, junk, Outcome::Ok);
    metrics.call("coder", "openai", junk, Outcome::Ok);
    metrics.refusal(junk, Reason::ModelDenied);
    metrics.side(junk, junk, SideVerdict::Refused);
    metrics.would_refuse(junk, Reason::ModelDenied);
    metrics.tokens("coder", junk, junk, &usage);
    metrics.cost(junk, junk, junk, Pico(1));
    metrics.usage_unknown(junk, junk, junk);
    metrics.unpriced(junk, junk);
    metrics.budget(ScopeKind::Agent, junk, Window::Day, state);
    metrics.budget(ScopeKind::Run, junk, Window::Run, state);
    let scope = Scope {
        kind: ScopeKind::Agent,
        name: junk.into(),
    };
    metrics.budgets_exhaust(&[(scope, Window::Day, 60)]);
    for unit in [Unit::Tokens, Unit::Calls] {
        let limit = Amount { unit, count: 1 };
        metrics.budget(
            ScopeKind::Agent,
            junk,
            Window::Day,
            BudgetState { limit, ..state },
        );
    }
    metrics.estimate(junk, Pico(2), Pico(1));
    metrics.wasted(junk, Cause::Looping, Pico(1));
    metrics.cost_per_success(junk, Pico(1));
    metrics.client_retry(junk);
    metrics.alert(AlertEnd::Sent);
    metrics.multipliers(junk, Gauges::default());
    metrics.usage_inconsistent(junk);
    metrics.tool("coder", junk, ToolVerdict::Called);
    metrics.tool("coder", &format!("mcp__{junk}"), ToolVerdict::Called);
    metrics.call_duration(junk, second);
    metrics.first_token(junk, second);
    metrics.added(Stage::Decide, second);
    drop(metrics.connection(junk));
    metrics.passthrough(junk).inc_by(5);
    metrics.egress_refused(junk, "listed");
    metrics.bypass_attempts(junk, "raw_socket", 1);
    metrics.finding(junk, "real_key");
    metrics.dns(junk, crate::dns::Outcome::Answered);
    metrics.tls_untrusted(junk);
    metrics.client_error(ClientError::Slow);
    metrics.audit_dropped();
    metrics.events_lost(3);
}

#[test]
fn ten_thousand_junk_names_add_no_series() {
    let metrics = metrics();
    everything(&metrics, "junk");
    let before = series(&metrics);
    for n in 0..10_000 {
        everything(&metrics, &format!("junk-{n}"));
    }
    assert_eq!(series(&metrics), before);
    shows(
        &metrics,
        "guard_calls_total{agent=\"coder\",model=\"other\",outcome=\"ok\",provider=\"openai\"} 10001",
    );
    shows(
        &metrics,
        "guard_tool_calls_total{agent=\"coder\",tool=\"mcp__*\",verdict=\"called\"} 10001",
    );
}

#[test]
fn every_event_reaches_its_metric() {
    let metrics = metrics();
    everything(&metrics, "junk");
    metrics.enforcing(true);
    let text = text(&metrics);
    for known in metrics.described() {
        let shown = text.lines().any(|line| line.starts_with(&known.name));
        assert!(shown, "nothing feeds {}", known.name);
    }
}

#[test]
fn money_is_exact_inside_and_dollars_outside() {
    let metrics = metrics();
    for _ in 0..3 {
        metrics.cost("coder", "openai", "gpt-5", Pico(100_000_000_000));
    }
    shows(
        &metrics,
        "guard_cost_usd_total{agent=\"coder\",model=\"gpt-5\",owner=\"team\",provider=\"openai\"} 0.3",
    );
    let state = BudgetState {
        limit: Pico(20_000_000_000_000).into(),
        settled: 1_250_000_000_000,
        reserved: 0,
    };
    metrics.budget(ScopeKind::Agent, "coder", Window::Day, state);
    shows(
        &metrics,
        "guard_budget_limit_usd{name=\"coder\",scope=\"agent\",window=\"day\"} 20",
    );
    shows(
        &metrics,
        "guard_budget_settled_usd{name=\"coder\",scope=\"agent\",window=\"day\"} 1.25",
    );
}

#[test]
fn a_connection_counts_while_it_lives() {
    let metrics = metrics();
    let (one, _two) = (metrics.connection("coder"), metrics.connection("coder"));
    shows(&metrics, "guard_connections{agent=\"coder\"} 2");
    drop(one);
    shows(&metrics, "guard_connections{agent=\"coder\"} 1");
}

#[test]
fn enforcing_is_no_until_it_is_proven() {
    let metrics = metrics();
    shows(&metrics, "guard_enforcing 0");
    metrics.enforcing(true);
    shows(&metrics, "guard_enforcing 1");
}

#[test]
fn a_new_configuration_brings_its_labels() {
    let metrics = metrics();
    metrics.relabel(Labels::default());
    metrics.refusal("coder", Reason::ModelDenied);
    shows(
        &metrics,
        "guard_refusals_total{agent=\"other\",reason=\"model_denied\"} 1",
    );
}

/// The documentation lists exactly the registry. `GUARD_WRITE_DOCS=1 cargo test` writes it anew.
#[test]
fn the_documentation_lists_every_metric() {
    use std::fmt::Write as _;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- metrics: begin -->\n", "<!-- metrics: end -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (listed, after) = rest.split_once(end).unwrap();
    let mut expected = String::from("\n| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for known in metrics().described() {
        let labels: Vec<String> = known.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(
            expected,
            "| `{}` | {} | {} | {} |",
            known.name,
            known.kind,
            labels.join(", "),
            known.help
        )
        .unwrap();
    }
    expected.push('\n');
    if std::env::var_os("GUARD_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        listed, expected,
        "run: GUARD_WRITE_DOCS=1 cargo test -p guard-agent --lib metrics"
    );
}
