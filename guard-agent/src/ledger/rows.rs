//! One journal record, as rows of `ledger.db`.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::book::{AccountId, Posting};
use super::facts::{Caller, Ended};
use super::record::{Balance, Numbered, Record};
use super::sqlite::ProjectionError;
use super::{Amounts, Window};
use crate::money::Pico;

/// Applies one record. `fresh`: the database is new, so a checkpoint tells it what came before.
pub(super) fn apply(
    transaction: &Transaction<'_>,
    numbered: &Numbered,
    fresh: bool,
) -> Result<(), ProjectionError> {
    match &numbered.record {
        Record::Checkpoint {
            accounts, held, at, ..
        } if fresh && is_empty(transaction)? => {
            for Balance { account, settled } in accounts {
                book(transaction, account, *settled, 0, 0)?;
            }
            for (id, posting) in held {
                reserve(transaction, *id, *at, posting, None)?;
            }
            Ok(())
        }
        Record::Checkpoint { .. }
        | Record::Forget { .. }
        | Record::Lease { .. }
        | Record::Opened { .. }
        | Record::Stopped { .. } => Ok(()),
        Record::Reserve { at, posting, caller } => {
            reserve(transaction, numbered.seq, *at, posting, caller.as_deref())
        }
        Record::Extend { at, id, posting } => extend(transaction, *id, *at, posting),
        Record::Close {
            at,
            id,
            cost,
            outcome,
            posting,
            ended,
        } => {
            let known = transaction
                .prepare_cached(
                    "UPDATE calls SET ended_at = ?2, cost_pico_usd = ?3, outcome = ?4, booked_tokens = ?5, booked_calls = ?6
                     WHERE id = ?1",
                )?
                .execute(params![
                    id,
                    time(*at),
                    cost.usd.0,
                    outcome.label(),
                    cost.tokens,
                    cost.calls,
                ])?;
            if known == 0 {
                // Its reserve record is damaged.
                reserve(transaction, *id, *at, posting, None)?;
                return apply(transaction, numbered, fresh);
            }
            let missing = missing(transaction, *id, posting)?;
            if missing != Amounts::ZERO {
                // The record of an extension is damaged.
                let more = Posting {
                    amount: missing,
                    ..Posting::clone(posting)
                };
                extend(transaction, *id, *at, &more)?;
            }
            if let Some(ended) = ended {
                describe(transaction, *id, ended)?;
            }
            for account in &posting.accounts {
                let (cost, freed) = (cost.of(account.unit), posting.amount.of(account.unit));
                book(transaction, account, cost, 0, freed)?;
            }
            Ok(())
        }
    }
}

fn is_empty(transaction: &Transaction<'_>) -> Result<bool, ProjectionError> {
    Ok(transaction.query_row("SELECT NOT EXISTS (SELECT 1 FROM accounts)", [], |row| row.get(0))?)
}

fn reserve(
    transaction: &Transaction<'_>,
    id: u64,
    at: i64,
    posting: &Posting,
    caller: Option<&Caller>,
) -> Result<(), ProjectionError> {
    transaction
        .prepare_cached(
            "INSERT INTO calls (id, call, reserved_at, reserved_pico_usd, reserved_tokens, agent, owner, run, session, provider,
               model, key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            id,
            posting.call.to_string(),
            time(at),
            posting.amount.usd.0,
            posting.amount.tokens,
            caller.map(|caller| &*caller.agent),
            caller.map(|caller| &*caller.owner),
            caller.map(|caller| &*caller.run),
            caller.and_then(|caller| caller.session.as_deref()),
            caller.map(|caller| &*caller.provider),
            caller.map(|caller| &*caller.model),
            caller.and_then(|caller| caller.key.as_deref()),
        ])?;
    for account in &posting.accounts {
        let row = book(transaction, account, 0, posting.amount.of(account.unit), 0)?;
        transaction
            .prepare_cached("INSERT INTO charges (call_id, account_id) VALUES (?1, ?2)")?
            .execute(params![id, row])?;
    }
    Ok(())
}

/// What a call's end says that was reserved, and its row does not.
fn missing(transaction: &Transaction<'_>, id: u64, posting: &Posting) -> Result<Amounts, ProjectionError> {
    let (usd, tokens): (i64, Option<i64>) = transaction
        .prepare_cached("SELECT reserved_pico_usd, reserved_tokens FROM calls WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let less = |whole: u64, known: i64| whole.saturating_sub(known.unsigned_abs());
    Ok(Amounts {
        usd: Pico(less(posting.amount.usd.0, usd)),
        tokens: tokens.map_or(0, |tokens| less(posting.amount.tokens, tokens)),
        calls: 0,
    })
}

/// More is reserved. A call whose reserve record is damaged begins with it.
fn extend(transaction: &Transaction<'_>, id: u64, at: i64, more: &Posting) -> Result<(), ProjectionError> {
    let known = transaction
        .prepare_cached(
            "UPDATE calls SET reserved_pico_usd = reserved_pico_usd + ?2, reserved_tokens = reserved_tokens + ?3
             WHERE id = ?1",
        )?
        .execute(params![id, more.amount.usd.0, more.amount.tokens])?;
    if known == 0 {
        return reserve(transaction, id, at, more, None);
    }
    for account in &more.accounts {
        book(transaction, account, 0, more.amount.of(account.unit), 0)?;
    }
    Ok(())
}

/// What is known of a call's end.
fn describe(transaction: &Transaction<'_>, id: u64, ended: &Ended) -> Result<(), ProjectionError> {
    let tokens = ended.tokens;
    transaction
        .prepare_cached(
            "UPDATE calls SET cause = ?2, status = ?3, input_tokens = ?4, cache_read_tokens = ?5, cache_write_tokens = ?6,
               output_tokens = ?7, reasoning_tokens = ?8 WHERE id = ?1",
        )?
        .execute(params![
            id,
            ended.cause.label(),
            ended.status,
            tokens.map(|tokens| tokens.input),
            tokens.map(|tokens| tokens.cache_read),
            tokens.map(|tokens| tokens.cache_write),
            tokens.map(|tokens| tokens.output),
            tokens.map(|tokens| tokens.reasoning),
        ])?;
    for tool in &ended.tools {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO call_tools (call_id, tool) VALUES (?1, ?2)")?
            .execute(params![id, tool])?;
    }
    Ok(())
}

/// Adds to an account (made when it is new): settled, reserved, and what is no longer reserved. Gives its row.
fn book(
    transaction: &Transaction<'_>,
    account: &AccountId,
    settled: u64,
    reserved: u64,
    freed: u64,
) -> Result<i64, ProjectionError> {
    let calendar = account.window != Window::Run;
    let row = transaction
        .prepare_cached(
            "INSERT INTO accounts (kind, name, time_window, unit, starts_us, ends_us, starts_at, ends_at, settled, reserved)
             VALUES (?1, ?2, ?3, ?11, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (kind, name, time_window, unit, starts_us) DO UPDATE SET
               ends_us = excluded.ends_us, ends_at = excluded.ends_at,
               settled = min(9223372036854775807, settled + ?8),
               reserved = min(9223372036854775807, reserved + ?9) - ?10
             RETURNING id",
        )?
        .query_row(
            params![
                account.scope.kind.label(),
                &*account.scope.name,
                account.window.label(),
                account.starts,
                account.ends,
                calendar.then(|| time(account.starts)),
                calendar.then(|| time(account.ends)),
                settled,
                reserved,
                freed,
                account.unit.label(),
            ],
            |row| row.get(0),
        )?;
    Ok(row)
}

fn time(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |at| format!("{at:.6}"))
}
