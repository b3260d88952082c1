//! Every supported client, as people install it, against Guard: a tool-call round trip, and a refusal for each reason.
//!
//! In: the table of clients (`matrix/table.rs`). Out: one row of verdicts for each, which `matrix/report.rs` writes down.
//! On failure: the row says what did not hold; the run goes on with the next client.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::Lab;
use crate::process::Done;
use crate::provider::{Provider, Reply, Tokens};

mod install;
mod prices;
mod report;
mod table;

pub use install::Installed;
pub use prices::compare as compare_prices;
pub use report::write;
pub use table::{CLIENTS, Client};

/// What the provider bills for each call.
const TOKENS: Tokens = Tokens::new(1000, 100);
/// What the model says in the end.
const SAID: &str = "It is sunny in Paris.";
/// A client that is refused is back by then.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// The slowest client starts for half a minute.
const PATIENCE: Duration = Duration::from_secs(150);

/// How an agent's rules stand to what the client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// All is allowed.
    Allowed,
    /// The budget is spent.
    Budget,
    /// The model is not on the list.
    Model,
    /// The tool is not on the list.
    Tool,
}

impl Rule {
    /// Every rule by which a client is refused.
    pub const REFUSALS: [Self; 3] = [Self::Budget, Self::Model, Self::Tool];

    /// Lines of `[[agent]]`.
    fn agent(self) -> String {
        let (budget, models, tools) = match self {
            Self::Allowed => ("100.0", "[\"*\"]", ""),
            Self::Budget => ("20.0", "[\"*\"]", ""),
            Self::Model => ("100.0", "[\"no-such-model\"]", ""),
            Self::Tool => (
                "100.0",
                "[\"*\"]",
                "tools = { allow = [\"NoSuchTool\"], on_violation = \"refuse\" }",
            ),
        };
        let providers = table::providers().join("\", \"");
        // Calls over a WebSocket have a suite of their own.
        format!(
            "providers = [\"{providers}\"]\nmodels = {models}\nwebsockets = \"refuse\"\n{tools}\nbudget = [{{ window = \"day\", usd = {budget} }}]\n"
        )
    }

    /// `reason` of the audit record.
    fn reason(self) -> &'static str {
        match self {
            Self::Allowed => "",
            Self::Budget => "budget_exceeded",
            Self::Model => "model_denied",
            Self::Tool => "tool_denied",
        }
    }
}

/// What was seen of one client under one rule.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// All that was asked for holds; a few words about it.
    Holds(String),
    /// Not asked: the client has no such mode.
    None,
    /// Something does not hold.
    Fails(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds(words) => f.write_str(words),
            Self::None => f.write_str("–"),
            Self::Fails(why) => write!(f, "**fails**: {why}"),
        }
    }
}

/// One client's row.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which client.
    pub client: &'static Client,
    /// Its version, as it was installed.
    pub version: String,
    /// The round trip, plain and streamed.
    pub round_trips: [Verdict; 2],
    /// The refusals, in the order of [`Rule::REFUSALS`].
    pub refusals: [Verdict; 3],
}

impl Row {
    /// Whether all of it holds.
    pub fn holds(&self) -> bool {
        let all = self.round_trips.iter().chain(&self.refusals);
        all.into_iter()
            .all(|verdict| !matches!(verdict, Verdict::Fails(_)))
    }
}

/// Runs every client whose name contains one of `only` (all without any) and says each verdict as it falls.
///
/// # Errors
/// A client cannot be installed, or the lab cannot be made.
pub fn run(only: &[String], mut say: impl FnMut(&str)) -> Result<Vec<Row>> {
    let installed = Installed::ensure()?;
    let wanted =
        |client: &&Client| only.is_empty() || only.iter().any(|part| client.name.contains(part.as_str()));
    let mut rows: Vec<Row> = Vec::new();
    for client in CLIENTS.iter().filter(wanted) {
        rows.push(Row {
            client,
            version: installed.version(client)?,
            round_trips: [Verdict::None, Verdict::None],
            refusals: [Verdict::None, Verdict::None, Verdict::None],
        });
    }
    for rule in [Rule::Allowed, Rule::Budget, Rule::Model, Rule::Tool] {
        let lab = Lab::builder().coder(&rule.agent()).public().quiet().start()?;
        if rule == Rule::Budget {
            spend_all(&lab)?;
        }
        for row in &mut rows {
            for &stream in modes(row.client, rule) {
                let verdict = match judge(&lab, &installed, row.client, rule, stream) {
                    Ok(words) => Verdict::Holds(words),
                    Err(error) => Verdict::Fails(format!("{error:#}")),
                };
                let mode = if stream { "streamed" } else { "plain" };
                say(&format!("{:<24} {rule:?} {mode}: {verdict}", row.client.name));
                *slot_of(row, rule, stream) = verdict;
            }
        }
    }
    Ok(rows)
}

/// What is to be run of a client under a rule: plainly, streamed, or both.
fn modes(client: &Client, rule: Rule) -> &'static [bool] {
    match (client.is_cli(), rule) {
        (true, _) => &[true],
        (false, Rule::Allowed) => &[false, true],
        (false, _) => &[false],
    }
}

/// The place of a verdict.
fn slot_of(row: &mut Row, rule: Rule, stream: bool) -> &mut Verdict {
    let [budget, model, tool] = &mut row.refusals;
    let [plain, streamed] = &mut row.round_trips;
    match rule {
        Rule::Budget => budget,
        Rule::Model => model,
        Rule::Tool => tool,
        Rule::Allowed if stream => streamed,
        Rule::Allowed => plain,
    }
}

/// One call that costs more than the whole budget, as its provider bills it.
fn spend_all(lab: &Lab) -> Result<()> {
    lab.openai().next(Reply::billed(Tokens::new(20_000_000, 100)));
    lab.coder().call("openai --model gpt-5 --max-tokens 100")?;
    lab.calls(1)?;
    Ok(())
}

/// The provider that a client calls, told to answer it.
fn prepared<'a>(lab: &'a Lab, client: &Client) -> &'a Provider {
    let provider = lab.provider(client.speaks);
    let mut reply = Reply::billed(TOKENS)
        .calling(client.tool, client.arguments)
        .until_answered();
    reply.words = SAID.split_inclusive(' ').map(str::to_owned).collect();
    provider.always(reply);
    provider
}

fn judge(lab: &Lab, installed: &Installed, client: &Client, rule: Rule, stream: bool) -> Result<String> {
    let provider = prepared(lab, client);
    let (seen, known) = (provider.seen().len(), calls(lab)?.len());
    let home = tempfile::Builder::new()
        .prefix("home-")
        .tempdir_in(lab.directory())?;
    let done = client
        .start(lab, installed, home.path(), stream)?
        .patience(PATIENCE)
        .run()?;
    let ended = jiff::Timestamp::now();
    let main = || -> Result<Vec<Value>> {
        let mut records = calls(lab)?.split_off(known);
        records.retain(|record| client.is_main(record));
        Ok(records)
    };
    // Records are written beside the calls, and may come after the client has gone.
    let least = if rule == Rule::Allowed { 2 } else { 1 };
    let mut records = main()?;
    for _ in 0..100 {
        if records.len() >= least {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        records = main()?;
    }
    if rule == Rule::Allowed {
        return round_trip(client, &done, &records);
    }
    std::thread::sleep(LATER);
    let records = main()?;
    refused(client, rule, &done, &records, ended)
        .and_then(|words| {
            let through = provider.seen().split_off(seen);
            let main = through.iter().filter(|seen| seen.declares(client.tool)).count();
            ensure!(main == 0, "{main} of its calls reached the provider");
            Ok(words)
        })
        .with_context(|| tail(&done))
}

/// How long the record of a further attempt is waited for.
const LATER: Duration = Duration::from_millis(200);

/// Every audit record of a call so far.
fn calls(lab: &Lab) -> Result<Vec<Value>> {
    let mut records = lab.audit()?;
    records.retain(|record| record["kind"] == "call");
    Ok(records)
}

fn round_trip(client: &Client, done: &Done, records: &[Value]) -> Result<String> {
    ensure!(
        done.stdout.contains(SAID),
        "the answer is not shown; {}",
        tail(done)
    );
    ensure!(records.len() >= 2, "{} calls recorded", records.len());
    for record in records {
        ensure!(record["decision"] == "allowed", "{record}");
        let usage = &record["usage"];
        let tokens = (
            usage["known"].as_bool(),
            usage["input"].as_u64(),
            usage["output"].as_u64(),
        );
        ensure!(
            tokens == (Some(true), Some(TOKENS.input), Some(TOKENS.output)),
            "usage {usage}"
        );
    }
    let called = records
        .iter()
        .any(|record| record["tools_called"] == serde_json::json!([client.tool]));
    ensure!(called, "no record names the tool that was called: {records:?}");
    let streamed = records.iter().any(|record| record["stream"] == true);
    Ok(format!(
        "{} calls{}",
        records.len(),
        if streamed { ", streamed" } else { "" }
    ))
}

fn refused(
    client: &Client,
    rule: Rule,
    done: &Done,
    records: &[Value],
    ended: jiff::Timestamp,
) -> Result<String> {
    let first = records.first().context("nothing was refused")?;
    let others: Vec<String> = records
        .iter()
        .filter(|record| record["reason"] != rule.reason())
        .map(|record| format!("{} ({})", record["decision"], record["reason"]))
        .collect();
    ensure!(others.is_empty(), "{others:?}");
    let attempts = records.len();
    ensure!(
        attempts <= client.attempts,
        "{attempts} attempts where {} is the most",
        client.attempts
    );
    let when: jiff::Timestamp = first["time"].as_str().context("time")?.parse()?;
    let took = Duration::try_from(ended.duration_since(when)).unwrap_or_default();
    ensure!(took < BACK_WITHIN.max(client.slow_exit), "back after {took:.1?}");
    let id = first["id"].as_str().context("id")?;
    let shown = done.stdout.contains(id) || done.stderr.contains(id);
    ensure!(shown || client.hides_message, "the message is not shown");
    let attempts = if attempts == 1 {
        "1 attempt".to_owned()
    } else {
        format!("{attempts} attempts")
    };
    Ok(if shown {
        attempts
    } else {
        format!("{attempts}, own text")
    })
}

/// The end of what a client said.
fn tail(done: &Done) -> String {
    let last = |text: &str| {
        let start = text.char_indices().rev().nth(600).map_or(0, |(at, _)| at);
        text.get(start..).unwrap_or_default().to_owned()
    };
    format!(
        "exit {}: {:?} {:?}",
        done.code(),
        last(&done.stdout),
        last(&done.stderr)
    )
}
