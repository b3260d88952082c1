//! The matrix of clients: `clients [NAME…]`. Run it with `cargo xtask test --clients`. Without names it runs all, and
//! asks genai-prices for the costs that the unit tests compare with; `prices` does that alone. The rows of the clients that
//! were run are written to `docs/clients.md`.

use std::process::ExitCode;

use anyhow::Result;
use guard_tests::matrix;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("clients: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    if only.is_empty() || only == ["prices"] {
        let compared = matrix::compare_prices(&matrix::Installed::ensure()?)?;
        eprintln!("{compared} costs are what genai-prices says");
    }
    if only == ["prices"] {
        return Ok(true);
    }
    let rows = matrix::run(&only, |line| eprintln!("{line}"))?;
    matrix::write(&rows)?;
    let failed: Vec<&str> = rows
        .iter()
        .filter(|row| !row.holds())
        .map(|row| row.client.name)
        .collect();
    eprintln!(
        "{} clients, {} of them with a verdict that does not hold: {failed:?}",
        rows.len(),
        failed.len()
    );
    Ok(failed.is_empty())
}
