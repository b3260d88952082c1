//! One journal record, as rows of `ledger.db`.

use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::Window;
use super::book::{AccountId, Posting};
use super::record::{Balance, Numbered, Record};
use super::sqlite::ProjectionError;
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
                book(transaction, account, *settled, Pico::ZERO, Pico::ZERO)?;
            }
            for (id, posting) in held {
                reserve(transaction, *id, *at, posting)?;
            }
            Ok(())
        }
        Record::Checkpoint { .. }
        | Record::Forget { .. }
        | Record::Lease { .. }
        | Record::Opened { .. }
        | Record::Stopped { .. } => Ok(()),
        Record::Reserve { at, posting } => reserve(transaction, numbered.seq, *at, posting),
        Record::Close {
            at,
            id,
            cost,
            outcome,
            posting,
        } => {
            let known = transaction
                .prepare_cached(
                    "UPDATE calls SET ended_at = ?2, cost_pico_usd = ?3, outcome = ?4 WHERE id = ?1",
                )?
                .execute(params![id, time(*at), cost.0, outcome.label()])?;
            if known == 0 {
                // Its reserve record is damaged.
                reserve(transaction, *id, *at, posting)?;
                return apply(transaction, numbered, fresh);
            }
            for account in &posting.accounts {
                book(transaction, account, *cost, Pico::ZERO, posting.amount)?;
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
) -> Result<(), ProjectionError> {
    transaction
        .prepare_cached(
            "INSERT INTO calls (id, call, reserved_at, reserved_pico_usd) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![id, posting.call.to_string(), time(at), posting.amount.0])?;
    for account in &posting.accounts {
        let row = book(transaction, account, Pico::ZERO, posting.amount, Pico::ZERO)?;
        transaction
            .prepare_cached("INSERT INTO charges (call_id, account_id) VALUES (?1, ?2)")?
            .execute(params![id, row])?;
    }
    Ok(())
}

/// Adds to an account (made when it is new): settled, reserved, and what is no longer reserved. Gives its row.
fn book(
    transaction: &Transaction<'_>,
    account: &AccountId,
    settled: Pico,
    reserved: Pico,
    freed: Pico,
) -> Result<i64, ProjectionError> {
    let calendar = account.window != Window::Run;
    let row = transaction
        .prepare_cached(
            "INSERT INTO accounts (kind, name, time_window, starts_us, ends_us, starts_at, ends_at, settled_pico_usd, reserved_pico_usd)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT (kind, name, time_window, starts_us) DO UPDATE SET
               ends_us = excluded.ends_us, ends_at = excluded.ends_at,
               settled_pico_usd = min(9223372036854775807, settled_pico_usd + ?8),
               reserved_pico_usd = min(9223372036854775807, reserved_pico_usd + ?9) - ?10
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
                settled.0,
                reserved.0,
                freed.0,
            ],
            |row| row.get(0),
        )?;
    Ok(row)
}

fn time(micros: i64) -> String {
    Timestamp::from_microsecond(micros).map_or_else(|_| micros.to_string(), |at| format!("{at:.6}"))
}
