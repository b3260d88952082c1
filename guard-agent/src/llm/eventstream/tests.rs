use proptest::prelude::*;

use super::*;

fn event(name: &str, payload: &str) -> Vec<u8> {
    encode(
        &[
            (":event-type", name),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        payload.as_bytes(),
    )
}

/// Everything that is found in these pieces; `None` stands for what could not be read.
fn scan(pieces: &[&[u8]]) -> Vec<Option<String>> {
    let mut scanner = Scanner::default();
    let mut all = Vec::new();
    for piece in pieces {
        let mut from = 0;
        while let Some(step) = scanner.next(piece, from) {
            assert!(step.end > from || step.end == piece.len(), "no progress");
            from = step.end;
            all.push(match step.found {
                Found::Event(data) => Some(String::from_utf8(data.into_owned()).unwrap()),
                Found::Oversize => None,
            });
        }
        assert!(scanner.partial.len() <= MESSAGE_LIMIT);
    }
    all
}

#[test]
fn the_published_vector_of_the_protocol_is_read() {
    // smithy.io's and botocore's sample: an empty message and one with a payload and an int32 header.
    let empty = hex::decode("000000100000000005c248eb7d98c8ff").unwrap();
    assert!(total_length(&empty[..PRELUDE]).is_some());
    assert_eq!(empty, encode(&[], b""));
    let with_header = hex::decode(
        "0000002d0000001041c424b80a6576656e742d74797065040000a00c7b27666f6f273a27626172277d36f480a0",
    )
    .unwrap();
    assert_eq!(total_length(&with_header[..PRELUDE]), Some(with_header.len()));
    let (body, sum) = with_header.split_at(with_header.len() - 4);
    assert_eq!(number(sum, 0), Some(crc32fast::hash(body)));
}

#[test]
fn messages_are_found_wherever_the_stream_is_cut() {
    let mut stream = event("messageStart", r#"{"role":"assistant"}"#);
    stream.extend(event("metadata", ""));
    stream.extend(encode(
        &[
            (":exception-type", "throttlingException"),
            (":message-type", "exception"),
        ],
        br#"{"message":"slow"}"#,
    ));
    let wanted = [
        Some(r#"{"messageStart":{"role":"assistant"}}"#.to_owned()),
        Some(r#"{"metadata":{}}"#.to_owned()),
        Some(r#"{"throttlingException":{"message":"slow"}}"#.to_owned()),
    ];
    for at in 0..=stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(scan(&[head, tail]), wanted, "{at}");
    }
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(scan(&bytes), wanted);
}

#[test]
fn a_flipped_bit_ends_the_reading() {
    let good = event("messageStart", "{}");
    for at in 0..good.len() {
        let mut stream = good.clone();
        stream[at] ^= 1;
        stream.extend(event("metadata", "{}"));
        let found = scan(&[&stream]);
        assert!(found.iter().all(Option::is_none), "{at}: {found:?}");
    }
}

#[test]
fn a_huge_message_is_skipped_and_the_next_one_is_read() {
    let mut stream = event("chunk", &format!("\"{}\"", "x".repeat(MESSAGE_LIMIT)));
    stream.extend(event("metadata", "{}"));
    let wanted = [None, Some(r#"{"metadata":{}}"#.to_owned())];
    for size in [1000, 4096, stream.len()] {
        let pieces: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(scan(&pieces), wanted, "{size}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_end_in_bounded_time_and_memory(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        size in 1_usize..40,
    ) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        prop_assert!(scan(&pieces).iter().all(Option::is_none));
    }
}
