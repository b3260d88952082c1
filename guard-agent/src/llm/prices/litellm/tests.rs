use super::*;
use crate::llm::prices::PriceTable;
use crate::llm::usage::Media;
use crate::llm::{Unit, Units, Usage};

fn list(models: &str) -> Vec<ModelPrice> {
    let reduced = reduce(models.as_bytes(), "2026-11-25".parse().unwrap()).unwrap();
    read(&reduced).unwrap().rows
}

fn one(fields: &str) -> ModelPrice {
    let mut rows = list(&format!(
        "{{\"m\": {{\"litellm_provider\": \"openai\", \"mode\": \"chat\", {fields}}}}}"
    ));
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

fn usd(text: &str) -> Option<Pico> {
    Pico::from_usd_text(text)
}

#[test]
fn the_snapshot_prices_thousands_of_models_of_many_providers() {
    let list = embedded().unwrap();
    let mut providers: Vec<&str> = list.rows.iter().map(|row| row.provider.as_str()).collect();
    providers.sort_unstable();
    providers.dedup();
    assert!(list.rows.len() >= 2_000, "{}", list.rows.len());
    assert!(providers.len() >= 34, "{providers:?}");
    assert!(SNAPSHOT.len() < 150_000, "{}", SNAPSHOT.len());
}

#[test]
fn a_long_context_price_begins_at_the_mark_with_xai_and_above_it_with_others() {
    for (provider, dearer_from) in [("xai", 200_000), ("openai", 200_001)] {
        let rows = list(&format!(
            r#"{{"m": {{"litellm_provider": "{provider}", "mode": "chat", "input_cost_per_token": 1e-06,
            "output_cost_per_token": 1e-06, "input_cost_per_token_above_200k_tokens": 2e-06,
            "output_cost_per_token_above_200k_tokens": 2e-06}}}}"#
        ));
        let cost = |input| {
            let usage = Usage {
                input,
                ..Usage::default()
            };
            rows[0].cost(&usage, None).unwrap()
        };
        assert_eq!(cost(dearer_from - 1), Pico((dearer_from - 1) * 1_000_000));
        assert_eq!(cost(dearer_from), Pico(dearer_from * 2_000_000), "{provider}");
    }
}

#[test]
fn every_dimension_is_read() {
    let row = one(
        r#""max_input_tokens": 100, "max_output_tokens": 50, "source": "https://p.example",
        "input_cost_per_token": 1e-06, "output_cost_per_token": 4e-06, "cache_read_input_token_cost": 1e-07,
        "cache_creation_input_token_cost": 1.25e-06, "cache_creation_input_token_cost_above_1hr": 2e-06,
        "input_cost_per_token_above_200k_tokens": 2e-06, "output_cost_per_token_above_200k_tokens": 6e-06,
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 4e-06,
        "input_cost_per_token_priority": 3e-06, "output_cost_per_token_priority": 9e-06,
        "input_cost_per_token_batches": 5e-07, "output_cost_per_token_batches": 2e-06,
        "output_cost_per_reasoning_token": 5e-06, "input_cost_per_audio_token": 3e-05, "output_cost_per_audio_token": 6e-05,
        "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_high": 0.03},
        "provider_specific_entry": {"us": 1.1, "fast": 2.0}, "supports_vision": true"#,
    );
    let tokens = |usage: Usage, tier, region| row.cost_in(&usage, tier, region);
    let input = |input| Usage {
        input,
        ..Usage::default()
    };
    assert_eq!(tokens(input(1_000), None, None), usd("0.001"));
    assert_eq!(tokens(input(200_001), None, None), usd("0.400002"));
    assert_eq!(tokens(input(1_000), Some("priority"), None), usd("0.003"));
    assert_eq!(tokens(input(200_001), Some("priority"), None), None);
    assert_eq!(tokens(input(1_000), Some("batch"), None), usd("0.0005"));
    assert_eq!(tokens(input(1_000), Some("fast"), None), usd("0.002"));
    assert_eq!(tokens(input(1_000), None, Some("us")), usd("0.0011"));
    assert_eq!(tokens(input(1_000), None, Some("global")), usd("0.001"));
    // A region that nobody named costs what the dearest does.
    assert_eq!(tokens(input(1_000), None, Some("mars")), usd("0.0011"));
    let usage = Usage {
        cache_write_1h: 10,
        cache_read: 100,
        output: 20,
        reasoning: 15,
        media: Media {
            input_audio: 2,
            output_audio: 3,
            ..Media::default()
        },
        units: Units::of(Unit::WebSearch, 2),
        ..Usage::default()
    };
    // 10 x 2 + 100 x 0.1 + 5 x 4 + 15 x 5 + 2 x 30 + 3 x 60 = 365 millionths, and two searches at three cents.
    assert_eq!(row.cost(&usage, None), usd("0.060365"));
    assert_eq!((row.context_window, row.max_output), (150, 50));
    let long = row.tier(None).unwrap().rates(200_001).unwrap();
    assert_eq!(
        (long.cache_write_1h, long.cache_read),
        (Pico(4_000_000), Pico(2_000_000))
    );
}

#[test]
fn ranges_are_long_context_marks() {
    let row = one(
        r#""input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07, "tiered_pricing": [
        {"range": [0, 256000.0], "input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07},
        {"range": [256000.0, 1000000.0], "input_cost_per_token": 2.5e-07, "output_cost_per_token": 2e-06}]"#,
    );
    let cost = |input| {
        let usage = Usage {
            input,
            ..Usage::default()
        };
        row.cost(&usage, None).unwrap().0 / input
    };
    assert_eq!((cost(256_000), cost(256_001)), (50_000, 250_000));
}

#[test]
fn a_model_without_a_price_that_can_be_used_is_unpriced() {
    let text = r#"{"sample_spec": {"litellm_provider": "one of https://…"}, "x": 5,
        "zero": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0},
        "no-input": {"litellm_provider": "openai", "mode": "chat", "output_cost_per_token": 1e-06},
        "no-output": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-06},
        "stranger": {"litellm_provider": "nobody", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06},
        "negative": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": -1e-06, "output_cost_per_token": 1e-06},
        "embedding": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 1e-06, "output_cost_per_token": 0.0},
        "whisper": {"litellm_provider": "openai", "mode": "audio_transcription", "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0},
        "gemini/gemini-x": {"litellm_provider": "gemini", "mode": "chat", "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06}}"#;
    let rows = list(text);
    let names: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (row.provider.as_str(), row.label.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("gemini", "gemini-x"),
            ("openai", "embedding"),
            ("openai", "whisper")
        ]
    );
    let output = Usage {
        output: 1,
        ..Usage::default()
    };
    assert_eq!(
        rows[1].cost(&output, None),
        None,
        "an embedding has no price for output"
    );
    let minute = Usage {
        units: Units::of(Unit::AudioMillis, 60_000),
        ..Usage::default()
    };
    assert_eq!(rows[2].cost(&minute, None), usd("0.006"));
    for broken in ["", "[]", "{}", "{\"a\": {}}", "{\"a\": "] {
        assert!(
            reduce(broken.as_bytes(), "2026-11-25".parse().unwrap()).is_err(),
            "{broken}"
        );
    }
}

#[test]
fn the_provider_decides_which_row_of_a_name_counts() {
    let table = PriceTable::embedded().unwrap();
    for (provider, model) in [
        ("gemini", "gemini-2.5-pro"),
        ("vertex", "gemini-2.5-pro"),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("azure", "gpt-4o"),
        ("openai", "text-embedding-3-small"),
        ("openai", "gpt-3.5-turbo-instruct"),
        ("groq", "openai/gpt-oss-120b"),
        ("cohere", "command-a-03-2025"),
        ("fireworks", "accounts/fireworks/models/deepseek-v3"),
        ("mistral", "mistral-large-latest"),
    ] {
        assert!(table.find(provider, model).is_some(), "{provider} {model}");
    }
    assert!(table.find("openai", "gemini-2.5-pro").is_none());
    assert!(table.find("gemini", "gpt-4o").is_none());
}

/// LiteLLM's whole file, which is not part of the source tree: every price that the two have in common is the same.
#[test]
fn the_whole_list_is_read() {
    let Ok(path) = std::env::var("GUARD_LITELLM_PRICES") else {
        eprintln!("GUARD_LITELLM_PRICES is not set: nothing was compared");
        return;
    };
    let text = std::fs::read(path).unwrap();
    let rows = read(&reduce(&text, "2026-11-25".parse().unwrap()).unwrap())
        .unwrap()
        .rows;
    let all: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
    let mut compared = 0;
    for row in &rows {
        let Some(entry) = all.get(&row.label) else {
            continue;
        };
        let Some(price) = entry
            .get("input_cost_per_token")
            .filter(|_| row.provider == "openai")
        else {
            continue;
        };
        let written = Dollars(&price.to_string()).pico().unwrap();
        if written > Pico::ZERO {
            assert_eq!(row.tier(None).unwrap().rates.input, written, "{}", row.label);
            compared += 1;
        }
    }
    assert!(rows.len() > 2_000 && compared > 100, "{} {compared}", rows.len());
}
