use super::*;

const GPT5: &str = r#"{"gpt-5": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": NEW, "output_cost_per_token": 1e-05}}"#;

fn import(dir: &Path, price: &str, yes: bool) -> u8 {
    let file = dir.join("list.json");
    std::fs::write(&file, GPT5.replace("NEW", price)).unwrap();
    let config = dir.join("guard.toml");
    let text = format!("[host]\nstate_dir = {:?}\n", dir.display().to_string());
    std::fs::write(&config, text).unwrap();
    let import = Import {
        file,
        yes,
        snapshot: None,
    };
    import.run(&config).unwrap()
}

#[test]
fn an_import_that_changes_a_price_a_lot_needs_to_be_meant() {
    let dir = tempfile::tempdir().unwrap();
    let kept = || std::fs::read_to_string(dir.path().join(store::FILE)).ok();
    assert_eq!(import(dir.path(), "2.6e-06", false), FAILED);
    assert_eq!(kept(), None);
    assert_eq!(import(dir.path(), "6e-07", false), FAILED);
    assert_eq!(import(dir.path(), "2.5e-06", false), OK);
    assert!(kept().unwrap().contains("2.5e-06"));
    assert_eq!(import(dir.path(), "1e-05", true), OK);
    // What counts is the price in force, which is now the imported one.
    assert_eq!(import(dir.path(), "1.25e-06", false), FAILED);
    assert!(kept().unwrap().contains("1e-05"));
}

#[test]
fn a_price_is_shown_as_it_is_charged() {
    let table = PriceTable::embedded().unwrap();
    let shown = describe(table.find("anthropic", "claude-sonnet-4-5").unwrap());
    for part in [
        "anthropic/claude-sonnet-4-5",
        "input $3.00",
        "output $15.00",
        "standard, above 200000",
        "batch",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}
