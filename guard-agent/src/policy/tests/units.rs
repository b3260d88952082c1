//! Limits in tokens and in calls, through `decide`: what is reserved, what is booked, what a refusal says.

use serde_json::Value;

use super::*;
use crate::ledger::Unit;
use crate::llm::provider::dialect_of;

fn world(budgets: &str) -> World {
    World::new(&format!("providers = [\"openai\"]\nbudget = [{budgets}]"))
}

fn of(world: &World, unit: Unit) -> (u64, u64) {
    let accounts = world.ledger.accounts();
    let account = accounts.iter().find(|account| account.settled.unit == unit);
    account.map_or((0, 0), |account| (account.settled.count, account.reserved.count))
}

fn details(refusal: &Refusal) -> Value {
    let reply = dialect_of(crate::llm::DialectKind::OpenaiChat).refusal(refusal, "01JABC");
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    body["error"]["details"].clone()
}

#[test]
fn tokens_are_reserved_at_their_bound_and_booked_as_reported() {
    let asked = body(100);
    let bound = asked.len() as u64 + 1024 + 100;
    let world = world(&format!(
        "{{ window = \"day\", tokens = {} }}, {{ window = \"day\", usd = 10 }}",
        bound * 3 / 2
    ));
    let first = world.chat(&asked).unwrap();
    assert_eq!(of(&world, Unit::Tokens), (0, bound));
    let busy = refused(world.chat(&asked));
    assert_eq!(busy.reason, Reason::BudgetReserved);
    settle(first, answered(bound - 100, 100));
    assert_eq!(of(&world, Unit::Tokens), (bound, 0));
    let over = refused(world.chat(&asked));
    assert_eq!(over.reason, Reason::BudgetExceeded);
    assert!(
        over.message.starts_with(&format!(
            "Agent \"coder\" has used {bound} tokens of its {} tokens budget for this day; {} tokens are left and this call \
             may use up to {bound} tokens. The budget resets at ",
            bound * 3 / 2,
            bound * 3 / 2 - bound
        )),
        "{}",
        over.message
    );
    let said = details(&over);
    assert_eq!(said["limit_tokens"], bound * 3 / 2, "{said}");
    assert_eq!(said["spent_tokens"], bound, "{said}");
    assert_eq!(said.get("limit_usd"), None, "{said}");
    // What is not known is charged at the bound.
    drop(world);
    let world = self::world(&format!("{{ window = \"day\", tokens = {} }}", bound * 3));
    let permit = world.chat(&asked).unwrap();
    let mut unknown = answered(1, 1);
    unknown.facts.usage = None;
    settle(permit, unknown);
    assert_eq!(of(&world, Unit::Tokens), (bound, 0));
}

#[test]
fn a_call_counts_when_it_reached_the_provider_whatever_that_answered() {
    let world = world("{ window = \"hour\", calls = 2 }, { window = \"hour\", usd = 10 }");
    let failed = |status| Outcome {
        forwarded: true,
        status: Some(StatusCode::from_u16(status).unwrap()),
        ..Outcome::default()
    };
    // Nobody was reached.
    settle(world.chat(&body(1)).unwrap(), Outcome::default());
    assert_eq!(of(&world, Unit::Calls), (0, 0));
    settle(world.chat(&body(2)).unwrap(), failed(500));
    assert_eq!((of(&world, Unit::Calls), of(&world, Unit::Usd)), ((1, 0), (0, 0)));
    settle(world.chat(&body(3)).unwrap(), answered(1, 1));
    let over = refused(world.chat(&body(4)));
    assert_eq!(over.reason, Reason::BudgetExceeded);
    assert!(
        over.message.starts_with(
            "Agent \"coder\" has made 2 calls of its 2 calls budget for this hour; 0 calls are left and this call may count \
             as 1 call. The budget resets at "
        ),
        "{}",
        over.message
    );
    assert!(!over.message.contains("smaller request"), "{}", over.message);
    assert_eq!(details(&over)["limit_calls"], 2);
}

#[test]
fn observe_mode_counts_tokens_and_calls_and_refuses_none() {
    let world = World::new(
        "providers = [\"openai\"]\nbudget = [{ window = \"hour\", calls = 1 }]\n[host]\nmode = \"observe\"",
    );
    for _ in 0..3 {
        settle(world.chat(&body(1)).unwrap(), answered(1, 1));
    }
    assert_eq!(of(&world, Unit::Calls), (3, 0));
    let records = world.records(3);
    assert_eq!(records[2]["would_refuse"], serde_json::json!(["budget_exceeded"]));
}
