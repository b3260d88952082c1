//! What the ledger starts from.

use super::{Seeds, named};

/// Payloads of the ledger's records.
pub(crate) fn records() -> Seeds {
    let text = |text: &str| {
        [
            &u32::try_from(text.len()).unwrap().to_le_bytes()[..],
            text.as_bytes(),
        ]
        .concat()
    };
    let head = |kind: u8| [&[kind][..], &7_u64.to_le_bytes(), &9_i64.to_le_bytes()].concat();
    let amounts = [5_u64, 6, 1].map(u64::to_le_bytes).concat();
    let account = [&[0][..], &text("coder"), &60_u32.to_le_bytes(), &[0], &[0; 16]].concat();
    let one = 1_u32.to_le_bytes();
    let posting = [&[3; 16][..], &amounts, &one, &account].concat();
    let names: Vec<u8> = ["coder", "team", "run", "openai", "gpt-5"]
        .iter()
        .flat_map(|name| text(name))
        .collect();
    let none = [0; 4];
    let boot = [2; 24];
    named(&[
        (
            "checkpoint",
            [
                &head(1),
                &one[..],
                &account,
                &[9; 8],
                &none,
                &none,
                &none,
                &one,
                &boot,
            ]
            .concat(),
        ),
        (
            "reserve",
            [&head(2), &posting, &[1][..], &names, &[0, 0]].concat(),
        ),
        (
            "close",
            [
                &head(3),
                &[1; 8][..],
                &amounts,
                &[0],
                &posting,
                &[1, 0],
                &200_u16.to_le_bytes(),
                &[1],
                &[4; 40],
                &one,
                &text("Read"),
            ]
            .concat(),
        ),
        ("forget", [&head(4), &[0][..], &text("run")].concat()),
        ("extend", [&head(5), &[1; 8][..], &posting].concat()),
        ("lease", [&head(6), &one[..], &account, &[1; 8]].concat()),
        ("opened", [&head(7), &boot[..]].concat()),
        ("stopped", head(8)),
    ])
}

#[test]
fn every_record_that_the_ledger_starts_from_is_one() {
    for (name, payload) in records() {
        assert_eq!(crate::ledger::again(&payload).as_ref(), Some(&payload), "{name}");
    }
}
