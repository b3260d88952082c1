//! What is refused, and what calls cost: computed here from the prices on the providers' own pages.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::*;
use crate::fuzz::replies::drain;
use crate::llm::prices::PriceTable;
use crate::llm::{Bound, ReplyFacts, Unit};
use crate::money::Pico;
use crate::policy::budget::{NoBound, worst_case};

const FORM: &str = "multipart/form-data; boundary=b";

/// A form of these fields, and of this recording.
fn form(fields: &[(&str, &str)], file: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part = format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.bytes());
    }
    body.extend(b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.ogg\"\r\n\r\n");
    body.extend(file);
    body.extend(b"\r\n--b--\r\n");
    body
}

/// A recording that may last so many seconds.
fn ogg(seconds: usize) -> Vec<u8> {
    let mut file = b"OggS".to_vec();
    file.resize(seconds * 750, 1);
    file
}

fn read(dialect: &Media, path: &str, content_type: &str, body: &[u8]) -> Result<RequestFacts, Malformed> {
    let place = Place {
        tail: path.to_owned(),
        content_type: Some(content_type.to_owned()),
        ..Place::default()
    };
    dialect.request_at(&place, body)
}

fn transcribe(fields: &[(&str, &str)], file: &[u8]) -> Result<RequestFacts, Malformed> {
    read(&MEDIA, "/v1/audio/transcriptions", FORM, &form(fields, file))
}

fn speak(body: &str) -> Result<RequestFacts, Malformed> {
    read(&MEDIA, "/v1/audio/speech", "application/json", body.as_bytes())
}

fn reply(dialect: &Media, media: &'static str, body: &str) -> ReplyFacts {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    let head = ReplyHead {
        status: StatusCode::OK,
        headers: &headers,
        hide_usage_event: false,
        gate: None,
    };
    drain(dialect.reply(&head), &[body.as_bytes()]).1
}

#[test]
fn a_recording_is_bounded_by_its_length_in_seconds_and_in_tokens() {
    let facts = transcribe(&[("model", "whisper-1"), ("prompt", "Ada")], &ogg(60)).unwrap();
    let bound = facts.bound.unwrap();
    assert_eq!(bound.units.get(Unit::AudioMillis), 60_000);
    assert!(bound.input >= 60 * 40 && bound.output >= 2_000, "{bound:?}");
    assert_eq!((facts.model.as_str(), facts.stream), ("whisper-1", false));
    let short = form(&[("model", "whisper-large-v3")], &ogg(3));
    let least = |dialect| {
        let facts = read(dialect, "/v1/audio/translations", FORM, &short).unwrap();
        facts.bound.unwrap().units.get(Unit::AudioMillis)
    };
    assert_eq!((least(&MEDIA), least(&GROQ)), (3_000, 10_000));
}

/// Through the table of providers, as a call comes in.
#[test]
fn the_providers_own_terms_are_found_by_its_host() {
    let body = form(&[("model", "m")], &ogg(3));
    for (host, path, billed) in [
        ("api.groq.com", "/openai/v1/audio/transcriptions", 10_000),
        ("api.openai.com", "/v1/audio/transcriptions", 3_000),
        (
            "x.openai.azure.com",
            "/openai/deployments/whisper/audio/transcriptions",
            3_000,
        ),
    ] {
        let providers = crate::llm::provider::builtin();
        let provider = crate::llm::provider::by_host(&providers, host).unwrap();
        let endpoint = crate::llm::detect::endpoint(provider, &Method::POST, path);
        assert_eq!(endpoint.kind, EndpointKind::Inference, "{host}");
        let place = Place {
            content_type: Some(FORM.to_owned()),
            ..endpoint.place.clone()
        };
        let facts = endpoint.dialect.request_at(&place, &body).unwrap();
        assert_eq!(
            facts.bound.unwrap().units.get(Unit::AudioMillis),
            billed,
            "{host}"
        );
        assert_eq!(facts.model, place.model.as_deref().unwrap_or("m"), "{host}");
    }
}

#[test]
fn a_form_that_hides_or_repeats_what_decides_is_refused() {
    let model = ("model", "whisper-1");
    assert!(transcribe(&[model, ("stream", "true")], &ogg(1)).unwrap().stream);
    for fields in [
        &[][..],
        &[model, model],
        &[model, ("Model", "x")],
        &[model, ("model[]", "x")],
        &[model, ("file", "x")],
        &[model, ("file[]", "x")],
        &[model, ("stream", "1")],
        &[model, ("stream", "true"), ("stream", "false")],
        &[model, ("url", "https://a/b.mp3")],
        &[model, ("file_url", "https://a/b.mp3")],
        &[model, ("_charset_", "utf-16")],
    ] {
        assert!(transcribe(fields, &ogg(1)).is_err(), "{fields:?}");
    }
    assert!(transcribe(&[model], b"no recording").is_err());
    let body = form(&[model], &ogg(1));
    for content_type in [
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=c",
        "",
    ] {
        let said = read(&MEDIA, "/v1/audio/transcriptions", content_type, &body);
        assert!(said.is_err(), "{content_type}");
    }
}

#[test]
fn a_text_that_is_spoken_is_bounded_by_its_characters() {
    let bound = |body: &str| -> Bound { speak(body).unwrap().bound.unwrap() };
    // Nine characters of which two have two bytes.
    let spoken = bound(r#"{"model":"tts-1","voice":"v","input":"\u00e9l\u00e8ve 123"}"#);
    assert_eq!(spoken.units.get(Unit::Character), 9);
    assert_eq!(spoken.units, spoken.sent);
    assert!(spoken.input >= 11 && spoken.output >= 9 * 8);
    for body in [
        r#"{"model":"tts-1"}"#,
        r#"{"input":"a"}"#,
        r#"{"model":"tts-1","input":["a"]}"#,
        r#"{"model":"tts-1","input":"a","Input":"b"}"#,
        r#"{"model":"tts-1","input":"a","input":"b"}"#,
    ] {
        assert!(speak(body).is_err(), "{body}");
    }
    assert!(read(&MEDIA, "/v1/audio/speech", FORM, br#"{"model":"m","input":"a"}"#).is_err());
}

/// The reply to each, and what it costs in pico-dollars.
#[test]
fn what_calls_cost_is_what_the_providers_pages_say() {
    let table = PriceTable::embedded().unwrap();
    let json = "application/json";
    let sse = "text/event-stream";
    let cases = [
        // developers.openai.com/api/docs/models/gpt-4o-transcribe: $2.50 and $10 a million.
        (
            "openai",
            "gpt-4o-transcribe",
            json,
            r#"{"text":"a","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":2,"audio_tokens":12},"output_tokens":45}}"#,
            14 * 2_500_000 + 45 * 10_000_000,
        ),
        // …/models/whisper-1: $0.006 a minute.
        (
            "openai",
            "whisper-1",
            json,
            r#"{"text":"a","usage":{"type":"duration","seconds":12}}"#,
            6_000_000_000 / 60 * 12,
        ),
        // …/models/gpt-transcribe: $0.0045 a minute.
        (
            "openai",
            "gpt-transcribe",
            sse,
            "data: {\"type\":\"transcript.text.done\",\"text\":\"a\",\"usage\":{\"type\":\"duration\",\"seconds\":90.5}}\n\n",
            4_500_000_000 / 60 * 905 / 10,
        ),
        // …/models/gpt-4o-mini-tts: $0.60 a million of text, $12 of audio.
        (
            "openai",
            "gpt-4o-mini-tts",
            sse,
            "data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":14,\"output_tokens\":101}}\n\n",
            14 * 600_000 + 101 * 12_000_000,
        ),
        // …/models/gpt-image-1.5: text $5, images $8 and $2 from the cache, image output $32, text output $10.
        (
            "openai",
            "gpt-image-1.5",
            json,
            r#"{"data":[{"b64_json":"A"}],"usage":{"input_tokens":60,"input_tokens_details":{"image_tokens":40,"text_tokens":20,"cached_tokens":10,"cached_tokens_details":{"image_tokens":10,"text_tokens":0}},"output_tokens":4170,"output_tokens_details":{"image_tokens":4160,"text_tokens":10}}}"#,
            20 * 5_000_000 + 30 * 8_000_000 + 10 * 2_000_000 + 4_160 * 32_000_000 + 10 * 10_000_000,
        ),
        // …/models/gpt-image-2: text $5, image output $30.
        (
            "openai",
            "gpt-image-2",
            sse,
            "data: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"A\"}\n\ndata: {\"type\":\"image_generation.completed\",\"b64_json\":\"A\",\"usage\":{\"input_tokens\":10,\"input_tokens_details\":{\"image_tokens\":0,\"text_tokens\":10},\"output_tokens\":7124}}\n\n",
            10 * 5_000_000 + 7_124 * 30_000_000,
        ),
        // docs.x.ai/developers/models: $0.02 an image.
        (
            "xai",
            "grok-imagine-image",
            json,
            r#"{"data":[{"url":"a"},{"url":"b"},{"url":"c"}]}"#,
            3 * 20_000_000_000,
        ),
    ];
    for (provider, model, media, body, wanted) in cases {
        let facts = reply(&MEDIA, media, body);
        let price = table.find(provider, model).unwrap();
        let cost = facts.usage.and_then(|usage| price.cost(&usage, None));
        assert_eq!(cost, Some(Pico(wanted)), "{model}: {facts:?}");
        assert!(
            facts.complete && !facts.error && !facts.inconsistent,
            "{model}: {facts:?}"
        );
    }
}

/// console.groq.com/docs/speech-to-text: $0.04 an hour, ten seconds at least.
#[test]
fn a_short_recording_is_billed_as_the_shortest_that_there_is() {
    let table = PriceTable::embedded().unwrap();
    let price = table.find("groq", "whisper-large-v3-turbo").unwrap();
    let cost = |seconds: &str| {
        let body = format!(r#"{{"text":"a","duration":{seconds},"x_groq":{{"id":"r"}}}}"#);
        let usage = reply(&GROQ, "application/json", &body).usage.unwrap();
        assert!(usage.by_number);
        price.cost(&usage, None).unwrap()
    };
    let exact = |seconds: u64| 40_000_000_000 * seconds / 3_600;
    for (told, billed) in [("3.2", 10), ("10.0", 10), ("3600", 3_600)] {
        let (cost, exact) = (cost(told).0, exact(billed));
        assert!(
            cost >= exact && cost - exact <= exact / 10_000,
            "{told}: {cost} {exact}"
        );
    }
}

/// developers.openai.com/api/docs/models/tts-1: $15 a million characters.
#[test]
fn a_spoken_text_costs_its_characters_and_where_nothing_says_so_what_was_reserved() {
    let table = PriceTable::embedded().unwrap();
    let bound = speak(r#"{"model":"tts-1","voice":"v","input":"Hello, you"}"#)
        .unwrap()
        .bound
        .unwrap();
    let find = |model| table.find("openai", model).unwrap();
    let none = reply(&MEDIA, "audio/mpeg", "\u{1}\u{2}").usage;
    assert_eq!(none, None);
    let usage = bound.counted(none, Some(find("tts-1"))).unwrap();
    assert_eq!(find("tts-1").cost(&usage, None), Some(Pico(10 * 15_000_000)));
    assert_eq!(bound.counted(none, Some(find("gpt-4o-mini-tts"))), None);
    assert_eq!(bound.counted(none, None), None);
}

/// Images that were sent are billed beside those that were made.
#[test]
fn what_a_request_sends_is_counted_beside_what_its_reply_tells() {
    let table = PriceTable::embedded().unwrap();
    let body = br#"{"model":"grok-imagine-image","prompt":"p","image":{"url":"data:x"}}"#;
    let facts = read(&MEDIA, "/v1/images/edits", "application/json", body).unwrap();
    let bound = facts.bound.unwrap();
    let price = table.find("xai", "grok-imagine-image").unwrap();
    let told = reply(&MEDIA, "application/json", r#"{"data":[{"url":"a"}]}"#).usage;
    let cost = price
        .cost(&bound.counted(told, Some(price)).unwrap(), None)
        .unwrap();
    assert_eq!(cost, Pico(2 * 20_000_000_000));
    assert!(worst_case(price, &facts, 0, 0).unwrap().amount >= cost);
    // What the provider itself states counts before all that.
    let stated = r#"{"data":[{"url":"a"}],"usage":{"cost_in_usd_ticks":220000000}}"#;
    let facts = reply(&MEDIA, "application/json", stated);
    assert_eq!(facts.reported_cost, Some(Pico(22_000_000_000)));
}

#[test]
fn what_is_reserved_is_no_less_than_what_such_a_call_costs() {
    let table = PriceTable::embedded().unwrap();
    let worst = |provider: &str, model: &str, facts: &RequestFacts| {
        worst_case(table.find(provider, model).unwrap(), facts, 1_000_000_000, 0).map(|worst| worst.amount)
    };
    let recording = transcribe(&[("model", "m")], &ogg(600)).unwrap();
    // Ten minutes at $0.006, and not by the bytes of the upload.
    let whisper = worst("openai", "whisper-1", &recording).unwrap();
    assert_eq!(whisper, Pico(10 * 6_000_000_000));
    let tokens = worst("openai", "gpt-4o-transcribe", &recording).unwrap();
    assert!(tokens >= whisper && tokens < Pico(5 * whisper.0), "{tokens}");
    let image = |quality: &str| {
        let body = format!(r#"{{"model":"m","prompt":"A cat.","size":"1024x1024","quality":"{quality}"}}"#);
        read(
            &MEDIA,
            "/v1/images/generations",
            "application/json",
            body.as_bytes(),
        )
        .unwrap()
    };
    // developers.openai.com/api/docs/guides/image-generation: $0.133 for a square image of high quality.
    let high = worst(
        "openai",
        "gpt-image-1.5",
        &RequestFacts {
            model: "gpt-image-1.5".to_owned(),
            ..image("high")
        },
    );
    assert!(
        (Pico(133_000_000_000)..Pico(400_000_000_000)).contains(high.as_ref().unwrap()),
        "{high:?}"
    );
    // A model of speech has no price for images.
    assert!(matches!(
        worst("openai", "tts-1", &image("low")),
        Err(NoBound::Unbilled { .. })
    ));
    let svg = br#"{"model":"gpt-image-2","prompt":"p","output_format":"svg"}"#;
    let svg = read(&MEDIA, "/v1/images/generations", "application/json", svg).unwrap();
    assert_eq!(
        worst("openai", "gpt-image-2", &svg),
        Err(NoBound::ServerSideTools)
    );
}

#[test]
fn a_reply_that_is_ended_ends_there() {
    for media in ["application/json", "audio/mpeg", "text/event-stream"] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        let head = ReplyHead {
            status: StatusCode::OK,
            headers: &headers,
            hide_usage_event: false,
            gate: None,
        };
        let mut reader = MEDIA.reply(&head);
        drop(reader.feed(Bytes::from_static(b"data: {}\n\n")));
        let refusal = Refusal::new(crate::refusal::Reason::Stopping, "It is over.");
        let words = reader.cut(&refusal, "id");
        assert_eq!(!words.is_empty(), media.contains("event"), "{media}");
        assert!(reader.stopped() && reader.feed(Bytes::from_static(b"more")).is_empty());
        assert!(reader.finish().0.is_empty());
    }
}
