use std::sync::Arc;

use super::*;
use crate::clock;
use crate::ledger::{
    Amounts, Buckets, Caller, Cause, Charge, Ended, Ledger, LedgerSettings, Scope, ScopeKind, Window,
};

/// A ledger in which `coder` and `writer` called.
fn spent(dir: &Path) {
    let ledger = Ledger::open(LedgerSettings {
        dir: dir.to_owned(),
        timezone: jiff::tz::TimeZone::UTC,
        clock: clock::system(),
    })
    .unwrap();
    let call = |agent: &str, model: &str, usd: &str, cause, tools: &[&str]| {
        let usd = Pico::from_usd_text(usd).unwrap();
        let amounts = Amounts {
            usd,
            tokens: 1000,
            calls: 1,
        };
        let charge = Charge {
            scope: Scope {
                kind: ScopeKind::Agent,
                name: agent.into(),
            },
            window: Window::Day,
            limit: Pico(u64::MAX).into(),
        };
        let caller = Caller {
            agent: agent.into(),
            owner: "team".into(),
            run: format!("run-of-{agent}").into(),
            session: None,
            provider: "openai".into(),
            model: model.into(),
            key: Some(Arc::from("openai/prod-1")),
        };
        let held = ledger.reserve_for(ulid::Ulid::new(), &[charge], amounts, Some(caller));
        let ended = Ended {
            cause,
            status: Some(200),
            tokens: Some(Buckets {
                input: 700,
                cache_read: 200,
                cache_write: 0,
                output: 100,
                reasoning: 40,
            }),
            tools: tools.iter().map(|tool| (*tool).into()).collect(),
        };
        held.unwrap().settle_as(amounts, Some(ended));
    };
    call("coder", "gpt-5", "1.50", Cause::Useful, &["Read", "Bash"]);
    call("coder", "gpt-5", "0.50", Cause::Looping, &["Bash"]);
    call("coder", "gpt-5-mini", "0.25", Cause::Retried, &[]);
    call("writer", "gpt-5", "0.75", Cause::Useful, &["=cmd()"]);
}

fn usage(arguments: &[&str]) -> Usage {
    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        usage: Usage,
    }
    <Only as clap::Parser>::try_parse_from([&["usage"], arguments].concat())
        .unwrap()
        .usage
}

fn found(dir: &Path, by: By, agent: Option<&str>) -> Vec<(String, u64, String, String)> {
    let from = Timestamp::from_second(0).unwrap();
    query::rows(&dir.join("ledger.db"), by, from, agent)
        .unwrap()
        .into_iter()
        .map(|row| {
            let (cost, wasted) = (row.cost_pico_usd.to_string(), row.wasted().to_string());
            (row.name, row.calls, cost, wasted)
        })
        .collect()
}

fn row(name: &str, calls: u64, cost: &str, wasted: &str) -> (String, u64, String, String) {
    (name.to_owned(), calls, cost.to_owned(), wasted.to_owned())
}

#[test]
fn every_dimension_adds_up_to_what_was_booked() {
    let dir = tempfile::tempdir().unwrap();
    spent(dir.path());
    assert_eq!(
        found(dir.path(), By::Agent, None),
        [
            row("coder", 3, "$2.25", "$0.75"),
            row("writer", 1, "$0.75", "$0.00")
        ]
    );
    assert_eq!(
        found(dir.path(), By::Model, Some("coder")),
        [
            row("gpt-5", 2, "$2.00", "$0.50"),
            row("gpt-5-mini", 1, "$0.25", "$0.25")
        ]
    );
    assert_eq!(
        found(dir.path(), By::Tool, None),
        [
            row("Bash", 2, "$2.00", "$0.50"),
            row("Read", 1, "$1.50", "$0.00"),
            row("=cmd()", 1, "$0.75", "$0.00")
        ]
    );
    for by in [By::Owner, By::Provider, By::Key, By::Host] {
        let rows = found(dir.path(), by, None);
        assert_eq!(rows.len(), 1, "{by:?}");
        assert_eq!(rows[0].2, "$3.00", "{by:?}");
    }
    assert_eq!(found(dir.path(), By::Run, None).len(), 2);
    assert_eq!(found(dir.path(), By::Session, None)[0].0, "run-of-coder/-");
    let later = SystemClock
        .now()
        .checked_add(SignedDuration::from_hours(1))
        .unwrap();
    let none = query::rows(&dir.path().join("ledger.db"), By::Agent, later, None);
    assert_eq!(none.unwrap(), []);
}

#[test]
fn what_is_printed_says_how_much_was_wasted_and_obeys_nobody() {
    let dir = tempfile::tempdir().unwrap();
    spent(dir.path());
    let from = Timestamp::from_second(0).unwrap();
    let rows = |by| query::rows(&dir.path().join("ledger.db"), by, from, None).unwrap();
    let shown = usage(&[]).shown(rows(By::Agent), from).unwrap();
    assert_eq!(
        shown,
        "Since 1970-01-01T00:00:00Z, by agent:\n\
         \x20                                 CALLS    INPUT   CACHED   OUTPUT        COST WASTED\n\
         coder                                 3    2,100      600      300       $2.25 $0.75 (33%)\n\
         writer                                1      700      200      100       $0.75 -\n\
         total                                 4    2,800      800      400       $3.00 $0.75 (25%)\n"
    );
    let csv = usage(&["--by", "tool", "--csv"])
        .shown(rows(By::Tool), from)
        .unwrap();
    assert!(
        csv.contains("\n\"'=cmd()\",1,0,0,700,200,0,100,40,0.75,"),
        "{csv}"
    );
    let folded = usage(&["--limit", "2", "--json"])
        .shown(rows(By::Tool), from)
        .unwrap();
    let folded: serde_json::Value = serde_json::from_str(&folded).unwrap();
    assert_eq!(folded[0]["name"], "Bash");
    assert_eq!(folded[1]["name"], "(2 others)");
    assert_eq!(folded[1]["cost_pico_usd"], 2_250_000_000_000_u64);
}
