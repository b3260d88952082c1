//! Gemini and Vertex.

use super::*;

#[test]
fn words_that_google_sends_as_numbers_are_the_same_words() {
    let chunk = r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"hi"}]},"finishReason":2}],"usageMetadata":{"promptTokenCount":11,"candidatesTokenCount":17,"totalTokenCount":218,"thoughtsTokenCount":190,"trafficType":1,"promptTokensDetails":[{"modality":1,"tokenCount":8},{"modality":4,"tokenCount":3}]},"modelVersion":"gemini-2.5-flash"}"#;
    let (list, event) = (format!("[{chunk}\n]"), format!("data: {chunk}\r\n\r\n"));
    for (media, body) in [
        (media(false), chunk),
        (media(false), list.as_str()),
        (media(true), event.as_str()),
    ] {
        let facts = learnt(Gemini, media, body.as_bytes());
        let usage = facts.usage.unwrap();
        assert_eq!((usage.input, usage.media.input_audio), (8, 3), "{body}");
        assert_eq!((usage.output, usage.reasoning), (207, 190));
        assert_eq!(facts.finish.as_deref(), Some("MAX_TOKENS"));
        assert_eq!(facts.service_tier, None);
        assert!(facts.complete && !facts.error, "{facts:?}");
    }
    let blocked =
        r#"{"promptFeedback":{"blockReason":99},"usageMetadata":{"promptTokenCount":11,"trafficType":2}}"#;
    let facts = learnt(Gemini, media(false), blocked.as_bytes());
    assert_eq!(facts.finish.as_deref(), Some("99"));
    assert_eq!(facts.service_tier.as_deref(), Some("provisioned_throughput"));
}

#[test]
fn what_google_is_asked_for_in_numbers_is_the_same_as_in_words() {
    let body =
        |asked: &str| format!(r#"{{"contents":[],"generationConfig":{{"responseModalities":{asked}}}}}"#);
    assert_eq!(facts(Gemini, &body("[1]")), facts(Gemini, &body(r#"["TEXT"]"#)));
    assert_eq!(
        facts(Gemini, &body("[1,2]")),
        facts(Gemini, &body(r#"["TEXT","IMAGE"]"#))
    );
    assert!(facts(Gemini, &body("[2]")).unwrap().server_side);
    assert!(facts(Gemini, &body("[true]")).is_err());
}

#[test]
fn what_google_searched_is_counted_as_google_bills_it() {
    let ground = |model: &str, metadata: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"hi"}}]}},"finishReason":"STOP","groundingMetadata":{metadata}}}],"usageMetadata":{{"promptTokenCount":9,"candidatesTokenCount":3,"totalTokenCount":12}},"modelVersion":"{model}"}}"#
        )
    };
    const TWO: &str = r#"{"webSearchQueries":["a","b"]}"#;
    for (body, wanted) in [
        // Before the third generation a prompt is billed once, however often it was searched for.
        (ground("gemini-2.5-flash", TWO), 1),
        (ground("gemini-3.5-flash", TWO), 2),
        (ground("gemini-2.5-flash", r#"{"webSearchQueries":[]}"#), 0),
        (
            ground(
                "gemini-2.5-flash",
                r#"{"groundingChunks":[{"web":{"uri":"u"}},{"maps":{"uri":"u"}}]}"#,
            ),
            1,
        ),
        (
            ground(
                "gemini-3.1-flash-image",
                r#"{"webSearchQueries":["a"],"imageSearchQueries":["b","c"]}"#,
            ),
            3,
        ),
    ] {
        let usage = learnt(Gemini, media(false), body.as_bytes()).usage.unwrap();
        assert_eq!(usage.units.get(Unit::WebSearch), wanted, "{body}");
    }
}

#[test]
fn the_way_in_which_vertex_was_paid_is_a_tier() {
    for (way, tier) in [
        ("ON_DEMAND", None),
        ("TRAFFIC_TYPE_UNSPECIFIED", None),
        ("ON_DEMAND_PRIORITY", Some("priority")),
        ("ON_DEMAND_FLEX", Some("flex")),
        ("PROVISIONED_THROUGHPUT", Some("provisioned_throughput")),
    ] {
        let body = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"hi"}}]}},"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":9,"candidatesTokenCount":3,"trafficType":"{way}"}},"modelVersion":"gemini-3.5-flash"}}"#
        );
        let facts = learnt(Gemini, media(false), body.as_bytes());
        assert_eq!(facts.service_tier.as_deref(), tier, "{way}");
    }
}

#[test]
fn a_chunk_that_only_says_how_it_is_paid_for_takes_no_count_away() {
    const STREAM: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hi\"}]}}],\"usageMetadata\":{\"trafficType\":\"ON_DEMAND\"}}\r\n\r\ndata: {\"candidates\":[{\"content\":{\"parts\":[]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":9,\"candidatesTokenCount\":3,\"trafficType\":\"ON_DEMAND\"},\"modelVersion\":\"gemini-3.5-flash\"}\r\n\r\ndata: {\"usageMetadata\":{\"trafficType\":\"ON_DEMAND\"}}\r\n\r\n";
    let facts = learnt(Gemini, media(true), STREAM.as_bytes());
    let usage = facts.usage.unwrap();
    assert_eq!((usage.input, usage.output, facts.complete), (9, 3, true));
}
