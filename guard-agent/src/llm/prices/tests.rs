use super::*;

fn table() -> PriceTable {
    PriceTable::embedded().unwrap()
}

fn usd(text: &str) -> Pico {
    Pico::from_usd_text(text).unwrap()
}

fn usage(input: u64, cache_read: u64, cache_write_5m: u64, output: u64) -> Usage {
    Usage {
        input,
        cache_read,
        cache_write_5m,
        output,
        ..Usage::default()
    }
}

#[test]
fn the_embedded_table_is_sound() {
    let table = PriceTable::parse(include_str!("table.toml")).unwrap();
    assert_eq!(table.date().to_string(), DATE);
    assert!(table.models().len() >= 40, "{}", table.models().len());
    for model in table.models() {
        assert!(model.source.starts_with("https://"), "{}", model.label);
        for tier in std::iter::once(&model.standard).chain(model.tiers.values()) {
            for rates in tier.up_to(u64::MAX).flatten() {
                assert!(rates.cache_read <= rates.input, "{}", model.label);
                assert!(rates.input <= rates.cache_write_5m, "{}", model.label);
                assert!(rates.cache_write_5m <= rates.cache_write_1h || !model.label.starts_with("claude"));
                assert!(rates.output >= rates.input, "{}", model.label);
            }
            if let Some(long) = tier.long.first().and_then(|l| l.rates) {
                assert!(
                    long.input > tier.rates.input && long.output > tier.rates.output,
                    "{}",
                    model.label
                );
            }
        }
    }
}

/// The expected amounts are what `genai_prices.calc_price` (genai-prices 0.2.3) gives for the same tokens, at
/// 2026-11-23T15:00:00Z; the first one was also worked out by hand:
/// 6 x $5 + 159,217 x $6.25 + 2,745 x $25, a million each.
#[test]
fn costs_agree_with_an_independent_implementation() {
    let table = table();
    for (provider, model, [input, read, write, output], expected) in [
        (
            "anthropic",
            "claude-opus-4-5",
            [6, 0, 159_217, 2_745],
            "1.06376125",
        ),
        (
            "anthropic",
            "claude-sonnet-4-6",
            [1_200, 45_000, 800, 900],
            "0.0336",
        ),
        ("openai", "gpt-5", [10_000, 4_096, 0, 1_234], "0.025352"),
        ("openai", "gpt-5.5", [280_000, 10_000, 0, 2_000], "2.9"),
        ("openai", "gpt-4o-mini", [777, 0, 0, 55], "0.00014955"),
        ("openai", "gpt-6.1-sol", [5_000, 2_048, 1_024, 300], "0.0157648"),
        ("openai", "o3-2025-04-16", [999, 512, 0, 4_321], "0.036822"),
        ("xai", "grok-4.5", [150_000, 60_000, 0, 1_000], "0.648"),
        ("groq", "openai/gpt-oss-120b", [3_000, 1_000, 0, 500], "0.000825"),
        ("mistral", "codestral-2508", [12_345, 0, 0, 678], "0.0043137"),
    ] {
        let price = table.find(provider, model).unwrap();
        let cost = price.cost(&usage(input, read, write, output), None);
        assert_eq!(cost, Some(usd(expected)), "{model}");
    }
}

#[test]
fn the_long_context_mark_counts_cached_tokens_and_then_prices_every_token() {
    let table = table();
    let price = table.find("openai", "gpt-5.5").unwrap();
    // At the mark: $5 and $0.50; one more token and everything is at $10 and $1.
    assert_eq!(
        price.cost(&usage(1_000, 271_000, 0, 0), None),
        Some(usd("0.1405"))
    );
    assert_eq!(
        price.cost(&usage(1_001, 271_000, 0, 0), None),
        Some(usd("0.28101"))
    );
}

#[test]
fn a_reply_is_priced_by_its_tier_and_an_unknown_tier_is_unknown() {
    let table = table();
    let gpt5 = table.find("openai", "gpt-5").unwrap();
    let tokens = usage(1_000_000, 0, 0, 0);
    for (tier, expected) in [
        (None, Some("1.25")),
        (Some("default"), Some("1.25")),
        (Some("priority"), Some("2.5")),
        (Some("flex"), Some("0.625")),
        (Some("scale"), None),
        (Some(""), None),
    ] {
        assert_eq!(gpt5.cost(&tokens, tier), expected.map(usd), "{tier:?}");
    }
    // Priority is not sold above the mark.
    let gpt54 = table.find("openai", "gpt-5.4").unwrap();
    assert!(gpt54.cost(&usage(272_000, 0, 0, 1), Some("priority")).is_some());
    assert_eq!(gpt54.cost(&usage(272_001, 0, 0, 1), Some("priority")), None);
    // Anthropic's batches cost half of everything, one-hour writes included.
    let opus = table.find("anthropic", "claude-opus-4-5").unwrap();
    let hour = Usage {
        cache_write_1h: 1_000_000,
        ..Usage::default()
    };
    assert_eq!(opus.cost(&hour, Some("batch")), Some(usd("5")));
}

#[test]
fn cached_tokens_without_a_price_of_their_own_cost_as_much_as_plain_input() {
    let table = table();
    let price = table.find("openai", "gpt-5-pro").unwrap();
    assert_eq!(price.cost(&usage(0, 1_000_000, 0, 0), None), Some(usd("15")));
}

#[test]
fn names_are_exact() {
    let table = PriceTable::parse(include_str!("table.toml")).unwrap();
    assert_eq!(table.find("openai", "gpt-5-2025-08-07").unwrap().label, "gpt-5");
    for (provider, model) in [
        ("openai", "gpt-5-2099-01-01"),
        ("openai", "gpt-50"),
        ("openai", "GPT-5"),
        ("openai", ""),
        ("groq", "gpt-5"),
        ("nobody", "gpt-5"),
        ("anthropic", "claude-opus-4-5-"),
    ] {
        assert!(table.find(provider, model).is_none(), "{provider} {model}");
    }
}

#[test]
fn an_amount_beyond_counting_is_unknown() {
    let table = table();
    let price = table.find("openai", "gpt-5").unwrap();
    assert_eq!(price.cost(&usage(u64::MAX, 1, 0, 0), None), None);
    assert_eq!(price.cost(&usage(0, 0, 0, u64::MAX), None), None);
}

#[test]
fn a_table_with_a_mistake_is_refused() {
    let row = "date = \"2026-11-23\"\n[[model]]\nprovider = \"p\"\nmodel = \"m\"\ncontext_window = 10\nmax_output = 5\n\
               source = \"https://p.example\"\nrates = { input = \"1\", output = \"2\" }\n";
    PriceTable::parse(row).unwrap();
    for (from, to) in [
        ("\"1\"", "1"),
        ("\"1\"", "\"0\""),
        ("\"1\"", "\"-1\""),
        ("\"1\"", "\"0.0000001\""),
        ("output = \"2\"", "outptu = \"2\""),
        ("max_output = 5", "max_output = 50"),
        ("max_output = 5", "max_output = 5\naliases = [\"m\"]"),
        ("max_output = 5", "max_output = 5\nprise = 1"),
        ("2026-11-23", "2026-13-23"),
        (
            "output = \"2\" }",
            "output = \"2\" }\n[model.tiers.default]\nrates = { input = \"1\", output = \"2\" }",
        ),
    ] {
        assert!(PriceTable::parse(&row.replacen(from, to, 1)).is_err(), "{to}");
    }
}

/// A row of an overlay.
fn overlay_row(more: &str) -> String {
    format!(
        "date = \"2026-11-25\"\n[[model]]\nprovider = \"openai\"\nmodel = \"gpt-5\"\ncontext_window = 10\nmax_output = 5\n{more}\n"
    )
}

#[test]
fn an_overlay_wins_and_leaves_the_rest_alone() {
    let mut table = table();
    let other = table.find("openai", "gpt-5-mini").unwrap().clone();
    table
        .overlay(&overlay_row(
            "rates = { input = \"7\", output = \"8\", input_audio = \"9\" }\nfees = { web_search = \"0.5\" }\nregions = { eu = \"1.2\" }\nlong = [{ above = 5, rates = { input = \"70\", output = \"80\" } }, { above = 9, rates = { input = \"700\", output = \"800\" } }]",
        ))
        .unwrap();
    let price = table.find("openai", "gpt-5").unwrap();
    let million = |input| price.cost(&usage(input, 0, 0, 0), None).unwrap().0 / input;
    assert_eq!(
        (million(5), million(6), million(9), million(10)),
        (7_000_000, 70_000_000, 70_000_000, 700_000_000)
    );
    assert_eq!(
        price.cost_in(&usage(5, 0, 0, 0), None, Some("eu")),
        Some(Pico(42_000_000))
    );
    assert_eq!(price.fee(Unit::WebSearch), Some(usd("0.5")));
    assert_eq!(*table.find("openai", "gpt-5-mini").unwrap(), other);
    // The aliases of the row that was replaced keep their own price: the overlay names a name.
    assert_ne!(table.find("openai", "gpt-5-2025-08-07").unwrap().label, "");
}

#[test]
fn a_model_is_free_only_when_somebody_says_so() {
    let mut table = table();
    table.overlay(&overlay_row("free = true")).unwrap();
    let price = table.find("openai", "gpt-5").unwrap();
    assert_eq!(
        price.cost(&usage(1_000, 0, 0, 1_000), Some("whatever")),
        Some(Pico::ZERO)
    );
    for wrong in [
        "",
        "free = false",
        "free = true\nrates = { input = \"1\", output = \"1\" }",
        "rates = { input = \"0\", output = \"0\" }",
        "rates = { input = \"1\", output = \"1\" }\nregions = { eu = \"0.9\" }",
        "rates = { input = \"1\", output = \"1\" }\nfees = { lunch = \"1\" }",
        "rates = { input = \"1\", output = \"1\" }\nlong = [{ above = 5, rates = { input = \"1\", output = \"1\" } }, { above = 5, rates = { input = \"1\", output = \"1\" } }]",
    ] {
        assert!(PriceTable::parse(&overlay_row(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn a_price_changes_on_its_day() {
    let rows = |second: &str| {
        let rates = |usd: &str| format!("rates = {{ input = \"{usd}\", output = \"{usd}\" }}");
        let row = overlay_row(&rates("1"));
        let later = overlay_row(&format!("from = \"{second}\"\n{}", rates("2")));
        format!("{row}{}", later.split_once('\n').unwrap().1)
    };
    let price = |second| {
        let table = PriceTable::parse(&rows(second)).unwrap();
        table
            .find("openai", "gpt-5")
            .unwrap()
            .cost(&usage(1, 0, 0, 0), None)
            .unwrap()
            .0
    };
    assert_eq!((price("2020-01-01"), price("2999-01-01")), (2_000_000, 1_000_000));
}

#[test]
fn the_ceiling_is_as_dear_as_the_dearest_in_each_respect() {
    let table = table();
    for model in table.models().iter().filter(|model| !model.free) {
        let ceiling = table.ceiling(&model.provider).unwrap();
        let tier = ceiling.tier(Some("any")).unwrap();
        for rates in model.tier(None).unwrap().up_to(u64::MAX).flatten() {
            assert!(
                tier.rates.input >= rates.input && tier.rates.output >= rates.output,
                "{}",
                model.label
            );
        }
        assert!(ceiling.max_output >= model.max_output);
    }
    assert!(table.ceiling("nobody").is_none());
}

#[test]
fn an_imported_list_is_above_the_embedded_tables_and_below_the_overlay() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"{"gpt-5": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 3e-06, "output_cost_per_token": 9e-06}}"#;
    let list = litellm::reduce(text.as_bytes(), "2027-01-01".parse().unwrap()).unwrap();
    store::keep(dir.path(), &list).unwrap();
    let input = |table: &PriceTable| {
        table
            .find("openai", "gpt-5")
            .unwrap()
            .tier(None)
            .unwrap()
            .rates
            .input
    };
    let (imported, problem) = store::load(dir.path(), None).unwrap();
    assert_eq!((input(&imported), problem), (Pico(3_000_000), None));
    assert_eq!(imported.date().to_string(), "2027-01-01");
    assert!(imported.find("openai", "gpt-5-mini").is_some());
    let overlay = overlay_row("rates = { input = \"7\", output = \"8\" }");
    assert_eq!(
        input(&store::load(dir.path(), Some(&overlay)).unwrap().0),
        Pico(7_000_000)
    );
    assert!(store::load(dir.path(), Some("nonsense")).is_err());
    // A broken list does not stop the daemon: the tables in the binary price the same models.
    std::fs::write(dir.path().join(store::FILE), "{").unwrap();
    let (table, problem) = store::load(dir.path(), None).unwrap();
    assert!(problem.unwrap().contains("import it again") && input(&table) == Pico(1_250_000));
}

#[test]
fn tiers_regions_and_fees_that_a_reply_names_are_in_the_price() {
    let table = table();
    let cost = |provider: &str, model: &str, usage: &Usage, tier: Option<&str>, region: Option<&str>| {
        table.find(provider, model).unwrap().cost_in(usage, tier, region)
    };
    let some = usage(1_000, 0, 0, 100);
    // 1,000 x $5 and 100 x $25 a million; a tenth more within the United States; twice as much in fast mode.
    for (tier, region, wanted) in [
        (Some("standard"), Some("global"), "0.0075"),
        (Some("standard"), Some("not_available"), "0.0075"),
        (Some("standard"), Some("us"), "0.00825"),
        // A region that is not known costs what the dearest one does.
        (Some("standard"), Some("elsewhere"), "0.00825"),
        (Some("fast"), Some("global"), "0.015"),
        (Some("fast"), Some("us"), "0.0165"),
    ] {
        let found = cost("anthropic", "claude-opus-5", &some, tier, region);
        assert_eq!(found, Some(usd(wanted)), "{tier:?} {region:?}");
    }
    // A region of Vertex AI costs a tenth more than its global endpoint, for the models of which Anthropic says so.
    for (model, region, wanted) in [
        ("claude-sonnet-4-5@20250929", "global", "0.0045"),
        ("claude-sonnet-4-5@20250929", "us-east5", "0.00495"),
        ("claude-3-haiku@20240307", "us-east5", "0.000375"),
    ] {
        let found = cost("vertex", model, &some, None, Some(region));
        assert_eq!(found, Some(usd(wanted)), "{model} {region}");
    }
    // Gemini's tiers: 1,000 x $1.25 and 100 x $10 a million, 1.8 times as much, half as much.
    for (tier, wanted) in [
        (None, "0.00225"),
        (Some("priority"), "0.00405"),
        (Some("flex"), "0.001125"),
    ] {
        let found = cost("gemini", "gemini-2.5-pro", &some, tier, None);
        assert_eq!(found, Some(usd(wanted)), "{tier:?}");
    }
    // A search is no token: the region says nothing about it.
    let mut searched = some;
    searched.units.set(Unit::WebSearch, 2);
    assert_eq!(
        cost("anthropic", "claude-opus-5", &searched, None, Some("us")),
        Some(usd("0.02825"))
    );
    // OpenAI's fast mode is what was called priority before; where that is not sold, neither is this.
    let priority = cost("openai", "gpt-5.4", &some, Some("priority"), None);
    assert!(priority.is_some());
    assert_eq!(cost("openai", "gpt-5.4", &some, Some("fast"), None), priority);
    assert_eq!(cost("openai", "gpt-5.4-nano", &some, Some("fast"), None), None);
    for (unit, wanted) in [
        (Unit::WebSearch, "0.01"),
        (Unit::FileSearch, "0.0025"),
        (Unit::CodeSession, "0.03"),
    ] {
        assert_eq!(
            table.find("openai", "gpt-5.4").unwrap().fee(unit),
            Some(usd(wanted))
        );
    }
    // An image that a tool made has no price among the model's own.
    let mut drawn = some;
    drawn.units.set(Unit::Image, 1);
    assert_eq!(cost("openai", "gpt-5.4", &drawn, None, None), None);
}

#[test]
fn models_that_their_makers_have_retired_keep_their_prices() {
    let table = table();
    for (provider, model, wanted) in [
        ("anthropic", "claude-sonnet-4-20250514", "0.0045"),
        ("anthropic", "claude-3-5-haiku-latest", "0.0012"),
        ("anthropic", "claude-3-opus-20240229", "0.0225"),
        ("bedrock", "us.anthropic.claude-3-haiku-20240307-v1:0", "0.000375"),
        ("gemini", "models/gemini-2.0-flash", "0.00014"),
        ("xai", "grok-2-1212", "0.003"),
        ("groq", "llama3-8b-8192", "0.000058"),
        ("openai", "o1-preview-2024-09-12", "0.021"),
        ("cohere", "command-r", "0.00065"),
    ] {
        let found = table
            .find(provider, model)
            .unwrap()
            .cost(&usage(1_000, 0, 0, 100), None);
        assert_eq!(found, Some(usd(wanted)), "{model}");
    }
}
