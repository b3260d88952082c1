use super::*;

/// developers.openai.com/api/docs/guides/image-generation: what its calculator shows.
#[test]
fn tokens_of_an_image_are_those_of_the_providers_calculator() {
    for (edge, size, tokens) in [
        (96, "1024x1024", 7_024),
        (96, "1536x1024", 5_488),
        (96, "1024x1536", 5_488),
        (96, "1792x1024", 5_063),
        (96, "3584x2048", 12_329),
        (16, "1024x1024", 196),
        (48, "1024x1024", 1_756),
    ] {
        assert_eq!(second(edge, Some(size)), Some(tokens), "{edge} {size}");
    }
}

#[test]
fn a_size_that_is_not_known_counts_as_the_largest() {
    let largest = second(96, None);
    for size in [
        "auto",
        "9999x9999",
        "0x5",
        "x",
        "1024",
        "-1x5",
        "3840x3840",
        "99999999999999999999x1",
    ] {
        assert_eq!(second(96, Some(size)), largest, "{size}");
    }
    for size in ["1024x1024", "3840x2160", "2880x2880", "16x16"] {
        assert!(second(96, Some(size)) <= largest, "{size}");
    }
}

fn bound(body: &str) -> Bound {
    facts(Some("application/json"), body.as_bytes(), None)
        .unwrap()
        .bound
        .unwrap()
}

#[test]
fn everything_that_makes_images_dearer_counts() {
    let output = |rest: &str| bound(&format!(r#"{{"model":"gpt-image-2","prompt":"p"{rest}}}"#)).output;
    let one = output(r#","size":"1024x1024","quality":"high""#);
    assert_eq!(one, 7_024 + 1_024);
    assert_eq!(output(r#","size":"1024x1024","quality":"high","n":10"#), 10 * one);
    assert_eq!(
        output(r#","size":"1024x1024","quality":"high","partial_images":3"#),
        one + 300
    );
    let frames = r#","size":"1024x1024","quality":"high","output_format":"gif","frame_count":4"#;
    assert_eq!(output(frames), 4 * one);
    assert_eq!(output(&frames.replace(r#","frame_count":4"#, "")), 16 * one);
    let finest = output(r#","size":"1024x1024","quality":"max""#);
    assert!(finest > 3 * one && output("") > one && output(r#","quality":null,"n":null"#) == output(""));
}

#[test]
fn the_first_generation_has_a_table_and_a_newer_model_counts_as_the_finest() {
    let each = |model: &str, quality: &str| {
        bound(&format!(
            r#"{{"model":"{model}","prompt":"p","size":"1024x1024","quality":"{quality}"}}"#
        ))
        .output
            - 1_024
    };
    for model in [
        "gpt-image-1",
        "gpt-image-1-mini",
        "gpt-image-1.5-2025-12-16",
        "chatgpt-image-latest",
    ] {
        let all = ["low", "medium", "high", "auto"].map(|quality| each(model, quality));
        assert_eq!(all, [408, 1_584, 6_240, 6_240], "{model}");
    }
    assert_eq!(
        each("gpt-image-2-2026-04-21", "auto"),
        each("gpt-image-2", "high")
    );
    assert_eq!(
        each("gpt-image-2.5-flare", "auto"),
        each("gpt-image-2.5-flare", "max")
    );
    assert_eq!(each("gpt-image-2.5-flare", "high"), 7_024);
    assert!(each("gpt-image-10", "auto") > 7_024);
}

#[test]
fn images_that_are_sent_count_wherever_they_stand() {
    for (body, sent) in [
        (r#"{"model":"m","prompt":"p"}"#, 0),
        (
            r#"{"model":"m","prompt":"p","image":{"url":"data:image/png;base64,AA"}}"#,
            1,
        ),
        (
            r#"{"model":"m","prompt":"p","image":null,"images":[{"file_id":"f"},{"image_url":"u"}],"mask":{"file_id":"f"}}"#,
            3,
        ),
    ] {
        let bound = bound(body);
        assert_eq!(bound.sent.get(Unit::Image), sent, "{body}");
        assert_eq!(bound.units.get(Unit::Image), 1 + sent, "{body}");
        assert!(bound.input >= sent * 16_384, "{body}");
    }
    let fine = bound(r#"{"model":"grok-imagine-image-2.0","prompt":"p","n":3,"resolution":"2k"}"#);
    assert_eq!(fine.units.get(Unit::Image), 6);
}

#[test]
fn what_has_no_bound_or_several_readings_is_refused() {
    let read = |content_type, body: &str| facts(content_type, body.as_bytes(), None);
    let json = Some("application/json");
    for body in [
        r#"{"prompt":"p"}"#,
        r#"{"model":"m","prompt":"p","n":"2"}"#,
        r#"{"model":"m","prompt":"p","n":-1}"#,
        r#"{"model":"m","prompt":"p","n":18446744073709551615}"#,
        r#"{"model":"m","prompt":"p","N":1}"#,
        r#"{"model":"m","prompt":"p","n":1,"n":2}"#,
        r#"{"model":"m","prompt":"p","size":7}"#,
        r#"{"model":"m","prompt":"p","Images":[]}"#,
        r#"{"model":"m","prompt":"p","SVG":{}}"#,
    ] {
        assert!(read(json, body).is_err(), "{body}");
    }
    assert!(read(Some("text/plain"), r#"{"model":"m","prompt":"p"}"#).is_err());
    for body in [
        r#"{"model":"m","prompt":"p","output_format":"svg"}"#,
        r#"{"model":"m","prompt":"p","svg":{"model":"o"}}"#,
    ] {
        assert!(read(json, body).unwrap().server_side, "{body}");
    }
}
