use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::json;

use super::*;
use crate::llm::prices::PriceTable;
use crate::llm::provider::dialect_of;
use crate::llm::{DialectKind, Place, RequestFacts, Usage};
use crate::policy::budget::worst_case;

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    file.extend(width.to_be_bytes());
    file.extend(height.to_be_bytes());
    file.extend([8, 2, 0, 0, 0]);
    file
}

fn jpeg_of(width: u16, height: u16) -> Vec<u8> {
    // A start, a comment, a table, fill bytes, the frame.
    let mut file = vec![
        0xff, 0xd8, 0xff, 0xfe, 0, 4, b'h', b'i', 0xff, 0xc4, 0, 3, 0, 0xff, 0xff, 0xc2, 0, 11, 8,
    ];
    file.extend(height.to_be_bytes());
    file.extend(width.to_be_bytes());
    file.extend([3, 0, 0, 0, 0]);
    file
}

fn webp(kind: &[u8], rest: &[u8]) -> Vec<u8> {
    [b"RIFF\0\0\0\0WEBP", kind, b"\0\0\0\0", rest].concat()
}

/// A picture of 640 × 480 pixels of each kind, as far as its size.
pub(crate) fn heads() -> [(&'static str, Vec<u8>); 6] {
    let gif = [&b"GIF89a"[..], &640_u16.to_le_bytes(), &480_u16.to_le_bytes()].concat();
    let lossy = webp(b"VP8 ", &[0, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
    let lossless = webp(b"VP8L", &[0x2f, 0x7f, 0xc2, 0x77, 0x00]);
    let extended = webp(b"VP8X", &[0, 0, 0, 0, 0x7f, 0x02, 0, 0xdf, 0x01, 0]);
    [
        ("png", png(640, 480)),
        ("jpeg", jpeg_of(640, 480)),
        ("gif", gif),
        ("webp_lossy", lossy),
        ("webp_lossless", lossless),
        ("webp_extended", extended),
    ]
}

#[test]
fn the_size_of_a_picture_stands_in_its_head() {
    for (_, file) in heads() {
        assert_eq!(size(&file), Some((640, 480)), "{file:x?}");
        for end in 0..file.len() {
            assert!(size(&file[..end]).is_none_or(|(width, _)| width <= 640));
        }
    }
    for file in [
        &b""[..],
        b"\x89PNG",
        b"\xff\xd8\xff\xd9",
        b"BM",
        b"RIFF\0\0\0\0WEBPxxxx",
    ] {
        assert_eq!(size(file), None, "{file:?}");
    }
}

/// What the providers' pages say that pictures of this size take: developers.openai.com/api/docs/guides/images-vision
/// (1024 × 1024: 1,024 squares at 1.62 and at 2.46; 2048 × 4096: 1,105 in tiles), platform.claude.com (1092 × 1092: about
/// 1,590; 4,784 at most), ai.google.dev (1,120 each at high resolution).
#[test]
fn no_provider_counts_more_tokens_for_a_picture() {
    for (width, height, billed) in [
        (1_024, 1_024, 1_659),
        (1_024, 1_024, 2_520),
        (2_048, 4_096, 1_105),
        (1_092, 1_092, 1_590),
        (2_576, 2_576, 4_784),
        (4_032, 3_024, 14_364),
        (1, 1, 1_120),
        (1, 1, 2_240),
        (10_000, 16, 1_500),
    ] {
        assert!(tokens(width, height) >= billed, "{width} {height}");
    }
}

fn beyond(text: &str) -> Pictures {
    let mut all = Pictures::default();
    all.look(text);
    all
}

#[test]
fn a_picture_is_known_however_it_is_written() {
    let data = STANDARD.encode(png(4_000, 3_000));
    let wanted = tokens(4_000, 3_000) - data.len() as u64;
    let kinds = [
        data.clone(),
        format!("\n  {data}"),
        format!("data:image/png;base64,{data}"),
        format!("DATA:IMAGE/PNG;charset=x;base64,{data}"),
        URL_SAFE.encode(png(4_000, 3_000)),
    ];
    for text in kinds {
        assert_eq!(
            beyond(&text),
            Pictures {
                count: 1,
                beyond: wanted
            },
            "{text}"
        );
    }
    let jpeg = URL_SAFE.encode(jpeg_of(4_000, 3_000));
    assert!(jpeg.starts_with("_9j_") && beyond(&jpeg).beyond > 30_000);
    // Of a kind that is not read here.
    let heif = STANDARD.encode(b"\0\0\0\x18ftypheic\0\0\0\0mif1");
    assert_eq!(beyond(&heif).beyond, UNKNOWN - heif.len() as u64);
    assert_eq!(beyond("data:image/tiff;base64,AAAA").beyond, UNKNOWN - 4);
    // More bytes than tokens: they count already.
    let large = STANDARD.encode([png(4_000, 3_000), vec![7; 60_000]].concat());
    assert_eq!(beyond(&large), Pictures { count: 1, beyond: 0 });
    for text in [
        "",
        "data:",
        "data:text/plain;base64,AAAA",
        "Hello",
        "AAAA",
        "https://a/b.png",
        "é",
    ] {
        assert_eq!(beyond(text), Pictures::default(), "{text}");
    }
}

/// A picture of twelve million pixels in a few bytes, in the shape of each format.
#[test]
fn in_every_format_a_small_file_of_many_pixels_is_reserved_by_its_pixels() {
    let data = STANDARD.encode(png(4_000, 3_000));
    let url = format!("data:image/png;base64,{data}");
    let cases = [
        (
            DialectKind::OpenaiChat,
            "/v1/chat/completions",
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}),
        ),
        (
            DialectKind::OpenaiResponses,
            "/v1/responses",
            json!({"model": "m", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]}),
        ),
        (
            DialectKind::AnthropicMessages,
            "/v1/messages",
            json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}]}]}),
        ),
        (
            DialectKind::Gemini,
            "/models/m:generateContent",
            json!({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": data}}]}]}),
        ),
        (
            DialectKind::BedrockConverse,
            "/model/m/converse",
            json!({"messages": [{"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": data}}}]}]}),
        ),
        (
            DialectKind::BedrockInvoke,
            "/model/m/invoke",
            json!({"anthropic_version": "x", "max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}]}]}),
        ),
        (
            DialectKind::Cohere,
            "/v2/chat",
            json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}),
        ),
        (
            DialectKind::Ollama,
            "/api/chat",
            json!({"model": "m", "messages": [{"role": "user", "content": "x", "images": [data]}]}),
        ),
    ];
    let wanted = Pictures {
        count: 1,
        beyond: tokens(4_000, 3_000) - data.len() as u64,
    };
    for (kind, tail, body) in cases {
        let place = Place {
            tail: tail.to_owned(),
            ..Place::default()
        };
        let facts = dialect_of(kind)
            .request_at(&place, body.to_string().as_bytes())
            .unwrap();
        assert_eq!(facts.pictures, wanted, "{kind:?}");
    }
}

#[test]
fn what_a_picture_costs_is_not_more_than_what_was_reserved() {
    let table = PriceTable::embedded().unwrap();
    let one = RequestFacts {
        choices: 1,
        pictures: beyond(&STANDARD.encode(png(4_032, 3_024))),
        ..RequestFacts::default()
    };
    let none = RequestFacts {
        choices: 1,
        ..RequestFacts::default()
    };
    for (provider, model, billed) in [
        ("anthropic", "claude-opus-4-5", 4_784),
        ("openai", "gpt-5", 14_364),
        // 2,833 and 5,667 for each of eight tiles.
        ("openai", "gpt-4o-mini", 48_169),
        ("openai", "gpt-4o-mini-2024-07-18", 48_169),
        ("gemini", "gemini-2.5-flash", 258 * 6 * 4),
    ] {
        let price = table.find(provider, model).unwrap();
        let usage = Usage {
            input: billed,
            ..Usage::default()
        };
        let cost = price.cost(&usage, None).unwrap();
        let reserved = |facts| worst_case(price, facts, 300, 0).unwrap().amount;
        assert!(reserved(&one) >= cost, "{model}");
        assert!(reserved(&none) < cost, "{model}: its bytes alone would do");
    }
}
