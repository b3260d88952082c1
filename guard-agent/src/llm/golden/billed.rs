//! Golden tests of what is billed in other ways than by its text: what must be read from each request (`NAME.ENDING` is the
//! body of one, and stands in the directory of its format) and from each reply, wherever it is cut.

use super::formats::{ENDINGS, place};
use super::{fixtures, read_media, snapshot};
use crate::llm::DialectKind::{self, Cohere, Embeddings, Media};
use crate::llm::Place;
use crate::llm::provider::dialect_of;

const JSON: &str = "application/json";
/// The forms among the fixtures all have this boundary.
pub(crate) const FORM: &str = "multipart/form-data; boundary=guard0";

/// A format, the ending of its fixtures, the path, and the content type.
const ENDPOINTS: [(DialectKind, &str, &str, &str); 7] = [
    (Cohere, "rerank.json", "/v2/rerank", JSON),
    (Embeddings, "rerank.json", "/v1/rerank", JSON),
    (Media, "transcription.form", "/v1/audio/transcriptions", FORM),
    (Media, "speech.json", "/v1/audio/speech", JSON),
    (Media, "images.json", "/v1/images/generations", JSON),
    (Media, "edit.json", "/v1/images/edits", JSON),
    (Media, "edit.form", "/v1/images/edits", FORM),
];

#[test]
fn request_facts_of_what_is_billed_in_other_ways_than_by_text() {
    for (kind, ending, path, content_type) in ENDPOINTS {
        let all = fixtures(kind, &format!(".{ending}"));
        assert!(!all.is_empty(), "{kind:?} {ending}");
        let place = Place {
            content_type: Some(content_type.to_owned()),
            ..place(path)
        };
        for (name, body) in all {
            let facts = dialect_of(kind).request_at(&place, &body);
            let facts = facts.unwrap_or_else(|error| panic!("{kind:?} {name}: {error}"));
            let (ending, _) = ending.split_once('.').unwrap();
            snapshot(kind, &format!("{name}.{ending}"), &facts);
        }
    }
}

#[test]
fn reply_facts_of_speech_and_images_wherever_the_reply_is_cut() {
    let mut count = 0;
    for (ending, media) in ENDINGS {
        for (name, body) in fixtures(Media, ending) {
            let whole = read_media(dialect_of(Media), media, &[&body]);
            assert_eq!(whole.0, body, "{name}");
            snapshot(Media, &format!("{name}{ending}"), &whole.1);
            let step = (body.len() / 200).max(1);
            for at in (0..body.len()).step_by(step) {
                let (head, tail) = body.split_at(at);
                assert_eq!(
                    read_media(dialect_of(Media), media, &[head, tail]),
                    whole,
                    "{name} at {at}"
                );
            }
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn sound_and_plain_text_pass_and_say_nothing_about_what_they_cost() {
    let told =
        b"data: {\"type\":\"transcript.text.done\",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}\n\n";
    for media in [
        "audio/mpeg",
        "text/plain; charset=utf-8",
        "application/octet-stream",
        "text/vtt",
    ] {
        let (out, facts) = read_media(dialect_of(Media), media, &[told]);
        assert_eq!(out, told, "{media}");
        assert!(
            facts.usage.is_none() && facts.complete && !facts.error,
            "{media} {facts:?}"
        );
    }
}
