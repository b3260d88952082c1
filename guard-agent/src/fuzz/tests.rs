use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{TARGETS, run, seeds};

/// The fuzzer's own directory of the repository.
fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// Every input below `fuzz/KIND/TARGET/`.
fn inputs(kind: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = directory().join(kind).join(target);
    let mut all: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// Written anew with `GUARD_WRITE_SEEDS=1 cargo test -p guard-agent --lib fuzz::`.
#[test]
fn the_seeds_are_those_that_the_fixtures_give() {
    let write = std::env::var_os("GUARD_WRITE_SEEDS").is_some();
    for target in TARGETS {
        let wanted = seeds::of(target.name);
        assert!(!wanted.is_empty(), "{} has no seeds", target.name);
        if write {
            let directory = directory().join("seeds").join(target.name);
            drop(std::fs::remove_dir_all(&directory));
            std::fs::create_dir_all(&directory).unwrap();
            for (name, bytes) in &wanted {
                std::fs::write(directory.join(name), bytes).unwrap();
            }
        }
        let there: Vec<String> = inputs("seeds", target.name)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(there, names, "{}", target.name);
        for (name, bytes) in inputs("seeds", target.name) {
            let same = wanted
                .iter()
                .any(|(other, made)| *other == name && *made == bytes);
            assert!(same, "{}/{name} is not what the fixtures give", target.name);
        }
    }
}

#[test]
fn everything_that_was_ever_found_and_every_seed_holds() {
    for target in TARGETS {
        for kind in ["seeds", "found"] {
            for (name, bytes) in inputs(kind, target.name) {
                let held = std::panic::catch_unwind(|| run(target.name, &bytes));
                assert!(held.is_ok(), "{kind}/{}/{name}", target.name);
            }
        }
    }
    assert!(!run("nothing", b""));
}

#[test]
fn every_target_has_its_program_and_a_planted_mistake() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len());
    let read = |name: &str| -> toml::Table {
        std::fs::read_to_string(directory().join(name))
            .unwrap()
            .parse()
            .unwrap()
    };
    let listed = |table: &toml::Table, list: &str, field: &str| -> BTreeSet<String> {
        let list = table[list].as_array().unwrap();
        list.iter()
            .map(|row| row[field].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(listed(&read("Cargo.toml"), "bin", "name"), names);
    let planted = read("planted.toml");
    assert_eq!(listed(&planted, "mistake", "target"), names);
    for mistake in planted["mistake"].as_array().unwrap() {
        let told = |field: &str| mistake[field].as_str().unwrap();
        let file = directory().join("..").join(told("file"));
        let text = std::fs::read_to_string(file).unwrap();
        let target = told("target");
        assert_eq!(text.matches(told("find")).count(), 1, "the mistake for {target}");
    }
}
