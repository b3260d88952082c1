use serde_json::{Value, json};

use super::*;
use crate::llm::Usage;
use crate::llm::prices::PriceTable;
use crate::money::Pico;
use crate::policy::budget::{NoBound, worst_case};

fn read(body: &Value) -> RequestFacts {
    facts(body.to_string().as_bytes(), None).unwrap()
}

fn searches(query: &str, documents: &[String]) -> u64 {
    let facts = read(&json!({"model": "rerank-v3.5", "query": query, "documents": documents}));
    facts.bound.unwrap().units.get(Unit::SearchUnit)
}

#[test]
fn a_search_unit_is_a_query_with_up_to_a_hundred_documents_and_a_long_document_is_several() {
    let of = |count: usize, bytes: usize| vec!["x".repeat(bytes); count];
    for (documents, wanted) in [
        (of(1, 10), 1),
        (of(0, 0), 1),
        (of(100, 10), 1),
        (of(101, 10), 2),
        (of(1_000, 10), 10),
        // 490 bytes and two quotes beside a query of eight are 500.
        (of(100, 490), 1),
        (of(100, 491), 2),
        (of(1, 60_000), 2),
    ] {
        assert_eq!(searches("123456", &documents), wanted, "{}", documents.len());
    }
    // A query that leaves nothing for the document.
    assert_eq!(searches(&"q".repeat(5_000), &of(100, 98)), 2);
}

#[test]
fn a_query_is_read_once_for_each_document_and_each_piece_of_it() {
    let documents: Vec<String> = (0..40).map(|number| format!("document {number}")).collect();
    let bound = read(&json!({"model": "m", "query": "a question", "documents": documents}))
        .bound
        .unwrap();
    let bytes: usize = documents.iter().map(String::len).sum();
    assert!(
        bound.input >= (bytes + 40 * "a question".len()) as u64,
        "{bound:?}"
    );
    assert!(bound.input < 3_000, "{bound:?}");
    assert_eq!(bound.output, 0);
}

#[test]
fn what_is_not_text_or_can_be_read_in_two_ways_is_refused() {
    for body in [
        r#"{"model":"m","query":"q"}"#,
        r#"{"model":"m","documents":["a"]}"#,
        r#"{"query":"q","documents":["a"]}"#,
        r#"{"model":"m","query":"q","documents":"a"}"#,
        r#"{"model":"m","query":"q","documents":{"a":"b"}}"#,
        r#"{"model":"m","query":"q","documents":[1]}"#,
        r#"{"model":"m","query":"q","documents":[["a"]]}"#,
        r#"{"model":"m","query":"q","documents":[null]}"#,
        r#"{"model":"m","query":"q","documents":["a"],"documents":[]}"#,
        r#"{"model":"m","query":"q","Documents":["a"],"documents":[]}"#,
        r#"{"model":"m","query":"q","documents":[{"image":"https://a"}]}"#,
        r#"{"model":"m","query":"q","documents":[{"text":"a","Image":"b"}]}"#,
        r#"{"model":"m","query":{"image":"https://a"},"documents":["a"]}"#,
        r#"{"model":"m","query":"q","documents":["a"]} {}"#,
    ] {
        assert!(facts(body.as_bytes(), None).is_err(), "{body}");
    }
    let structured = r#"{"model":"m","query":"q","documents":[{"title":"a","url":"https://a"},"b"]}"#;
    assert!(facts(structured.as_bytes(), None).is_ok());
    assert_eq!(facts(structured.as_bytes(), Some("path")).unwrap().model, "path");
}

/// Prices as the providers' own pages state them: Cohere $2.00 for 1,000 searches (cohere.com/pricing), Voyage $0.05 for
/// a million tokens (docs.voyageai.com/docs/pricing).
#[test]
fn what_is_reserved_is_the_price_of_the_most_searches_or_tokens_and_what_is_settled_that_of_those_told() {
    let table = PriceTable::embedded().unwrap();
    let documents = vec!["x".repeat(20); 150];
    let body = json!({"model": "m", "query": "a question", "documents": documents});
    let facts = read(&body);
    let reserve = |provider: &str, model: &str| {
        let price = table.find(provider, model).unwrap();
        worst_case(price, &facts, 10_000_000, 0).map(|worst| worst.amount)
    };
    let told =
        |provider: &str, model: &str, usage: Usage| table.find(provider, model).unwrap().cost(&usage, None);
    let searches = |count| Usage {
        units: Units::of(Unit::SearchUnit, count),
        by_number: true,
        ..Usage::default()
    };
    // Two units of $2.00 / 1,000, whatever the length of the body.
    assert_eq!(reserve("cohere", "rerank-v3.5"), Ok(Pico(4_000_000_000)));
    assert_eq!(
        told("cohere", "rerank-v3.5", searches(2)),
        Some(Pico(4_000_000_000))
    );
    assert_eq!(
        told("cohere", "rerank-v4.0-pro", searches(1)),
        Some(Pico(2_500_000_000))
    );
    // $0.05 a million.
    let bound = facts.bound.unwrap().input + 1_024;
    assert_eq!(reserve("voyage", "rerank-2.5"), Ok(Pico(bound * 50_000)));
    let tokens = Usage {
        input: 1_234,
        ..Usage::default()
    };
    assert_eq!(told("voyage", "rerank-2.5", tokens), Some(Pico(61_700_000)));
    // Without a price in either unit nothing is reserved, and nothing is let through.
    assert!(matches!(
        reserve("openai", "tts-1"),
        Err(NoBound::Unbilled { .. })
    ));
}
