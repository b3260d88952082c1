use http::HeaderValue;

use super::*;

fn headers(values: &[&str]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for value in values {
        map.append(CONTENT_ENCODING, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn encode(name: &str, plain: &[u8]) -> Vec<u8> {
    match name {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "raw" => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "br" => {
            let mut out = Vec::new();
            brotli::BrotliCompress(
                &mut &*plain,
                &mut out,
                &brotli::enc::BrotliEncoderParams::default(),
            )
            .unwrap();
            out
        }
        "zstd" => zstd::encode_all(plain, 3).unwrap(),
        _ => plain.to_vec(),
    }
}

/// Text that compresses as little as an ordinary reply does.
fn text() -> Vec<u8> {
    (0..600)
        .flat_map(|i: u32| format!("data: {{\"n\":{}}}\n\n", i.wrapping_mul(2_654_435_761)).into_bytes())
        .collect()
}

const CODINGS: [&str; 5] = ["identity", "gzip", "deflate", "br", "zstd"];

#[test]
fn requests_decode_in_every_coding_up_to_the_limit_exactly() {
    let plain = text();
    for name in CODINGS {
        let body = Bytes::from(encode(name, &plain));
        let decoded = decode_request(&headers(&[name]), &body, plain.len()).unwrap();
        assert_eq!(decoded, plain, "{name}");
        let error = decode_request(&headers(&[name]), &body, plain.len() - 1).unwrap_err();
        assert_eq!(error, DecodeError::TooLarge(plain.len() - 1), "{name}");
        assert_eq!(error.reason(), Reason::BodyTooLarge);
    }
}

#[test]
fn requests_that_are_cut_or_have_more_behind_them_are_malformed() {
    for name in ["gzip", "deflate", "br", "zstd"] {
        let whole = encode(name, &text());
        let mut twice = whole.clone();
        twice.extend_from_slice(&whole);
        let mut tail = whole.clone();
        tail.push(b'x');
        for bad in [
            &whole[..whole.len() - 1],
            &whole[..whole.len() / 2],
            &twice,
            &tail,
            b"{\"model\":\"a\"}",
            b"",
        ] {
            let result = decode_request(&headers(&[name]), &Bytes::copy_from_slice(bad), 1 << 20);
            assert_eq!(
                result.unwrap_err(),
                DecodeError::Malformed,
                "{name} {} bytes",
                bad.len()
            );
        }
    }
}

#[test]
fn stacked_and_unknown_codings_are_not_read() {
    for values in [
        &["gzip, br"][..],
        &["gzip", "gzip"],
        &["compress"],
        &["gzip;q=1"],
        &["aws-chunked"],
    ] {
        assert_eq!(coding(&headers(values)), None, "{values:?}");
        let error = decode_request(&headers(values), &Bytes::new(), 10).unwrap_err();
        assert_eq!(error.reason(), Reason::UnsupportedEncoding);
        assert!(ReplyDecoder::new(&headers(values)).is_none());
    }
    assert_eq!(coding(&headers(&["identity", " X-GZIP ,"])), Some(Coding::Gzip));
    assert_eq!(coding(&headers(&[])), Some(Coding::Identity));
}

#[test]
fn replies_decode_as_they_come_in_pieces_of_any_size() {
    let plain = text();
    for (name, header) in [
        ("identity", "identity"),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("raw", "deflate"),
        ("br", "br"),
        ("zstd", "zstd"),
    ] {
        let encoded = encode(name, &plain);
        for size in [1, 7, 1000, encoded.len()] {
            let mut decoder = ReplyDecoder::new(&headers(&[header])).unwrap();
            let mut out = Vec::new();
            for chunk in encoded.chunks(size) {
                out.extend_from_slice(&decoder.feed(&Bytes::copy_from_slice(chunk)).unwrap());
            }
            assert!(out == plain, "{name} in pieces of {size}");
        }
    }
}

#[test]
fn a_flushed_event_is_decoded_before_the_next_one_comes() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut decoder = ReplyDecoder::new(&headers(&["gzip"])).unwrap();
    for event in ["data: a\n\n", "data: b\n\n"] {
        encoder.write_all(event.as_bytes()).unwrap();
        encoder.flush().unwrap();
        let sent = Bytes::from(std::mem::take(encoder.get_mut()));
        assert_eq!(decoder.feed(&sent).unwrap(), event);
    }
}

#[test]
fn a_bomb_stops_decoding_without_being_unpacked() {
    let zeros = vec![0; 4 << 20];
    for name in ["gzip", "deflate", "br", "zstd"] {
        let bomb = Bytes::from(encode(name, &zeros));
        let mut decoder = ReplyDecoder::new(&headers(&[name])).unwrap();
        assert!(decoder.feed(&bomb).is_none(), "{name}");
        assert!(decoder.feed(&bomb).is_none(), "{name} stays stopped");
        let error = decode_request(&headers(&[name]), &bomb, 1 << 20).unwrap_err();
        assert_eq!(error, DecodeError::TooLarge(1 << 20), "{name}");
    }
}

#[test]
fn a_window_that_the_coding_does_not_have_is_not_set_up() {
    let plain = text();
    let mut coded = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams {
        large_window: true,
        lgwin: 30,
        ..Default::default()
    };
    brotli::BrotliCompress(&mut plain.as_slice(), &mut coded, &parameters).unwrap();
    let headers = headers(&["br"]);
    let body = Bytes::from(coded);
    assert_eq!(
        decode_request(&headers, &body, 1 << 20),
        Err(DecodeError::Malformed)
    );
    let mut decoder = ReplyDecoder::new(&headers).unwrap();
    assert_eq!(decoder.feed(&body), None);
    // The largest that it has.
    let mut coded = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams {
        lgwin: 24,
        ..Default::default()
    };
    brotli::BrotliCompress(&mut plain.as_slice(), &mut coded, &parameters).unwrap();
    let body = Bytes::from(coded);
    assert_eq!(decode_request(&headers, &body, 1 << 20).unwrap(), plain);
    let mut decoder = ReplyDecoder::new(&headers).unwrap();
    assert_eq!(decoder.feed(&body).unwrap(), plain);
}

#[test]
fn garbage_stops_decoding() {
    for name in ["gzip", "deflate", "br", "zstd"] {
        let mut decoder = ReplyDecoder::new(&headers(&[name])).unwrap();
        let garbage = Bytes::from_static(b"{\"this\":\"is plain text, whatever the header says\"}");
        let mut lost = decoder.feed(&garbage).is_none();
        lost |= decoder.feed(&garbage).is_none();
        assert!(lost, "{name}");
    }
}

const STREAM: &str = concat!(
    "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}\n\n",
    "data: [DONE]\n\n",
);

/// Reads an encoded reply in small pieces; what is forwarded must be what came.
fn read(header: &str, encoded: &[u8]) -> ReplyFacts {
    let mut map = headers(&[header]);
    map.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream"),
    );
    let head = ReplyHead {
        status: http::StatusCode::OK,
        headers: &map,
        hide_usage_event: header != "identity",
        gate: None,
    };
    let mut reader = reader_for(&crate::llm::openai_chat::OPENAI, &head);
    let mut out = Vec::new();
    for piece in encoded.chunks(9) {
        out.extend_from_slice(&reader.feed(Bytes::copy_from_slice(piece)));
    }
    let (rest, facts) = reader.finish();
    out.extend_from_slice(&rest);
    assert_eq!(out, encoded, "{header}");
    facts
}

#[test]
fn encoded_replies_pass_as_they_came_and_are_metered_all_the_same() {
    for name in CODINGS {
        let facts = read(name, &encode(name, STREAM.as_bytes()));
        let usage = crate::llm::Usage {
            input: 7,
            output: 5,
            ..Default::default()
        };
        assert_eq!(facts.usage, Some(usage), "{name}");
        assert!(facts.complete, "{name}");
    }
}

#[test]
fn a_reply_that_does_not_decode_passes_and_is_unknown() {
    for name in ["gzip", "deflate", "br", "zstd", "compress", "gzip, br"] {
        let facts = read(name, STREAM.as_bytes());
        assert_eq!((facts.usage, facts.complete), (None, false), "{name}");
    }
}
