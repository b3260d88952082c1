//! How a connection begins: greetings of TLS, heads of requests, look-ups of names.

use std::borrow::Cow;

use simple_dns::rdata::{A, HTTPS, RData, SVCB, SVCParam};
use simple_dns::{CLASS, CharacterString, Name, Packet, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

use super::{Seeds, named};

fn vec16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vec16(data)].concat()
}

/// A ClientHello in records of at most so many bytes, without its first two.
fn hello(name: &str, ech: bool, record: usize) -> Vec<u8> {
    let host = [&[0][..], &vec16(name.as_bytes())].concat();
    let share = [&[0, 0x1d][..], &vec16(&[7; 32])].concat();
    let mut extensions = [
        extension(0, &vec16(&host)),
        extension(10, &vec16(&[0, 0x1d, 0, 0x17])),
        extension(13, &vec16(&[4, 3, 8, 4, 4, 1])),
        extension(16, &vec16(b"\x02h2\x08http/1.1")),
        extension(43, &[4, 3, 4, 3, 3]),
        extension(51, &vec16(&share)),
    ]
    .concat();
    if ech {
        extensions.extend(extension(0xfe0d, &[0; 24]));
    }
    let body = [
        &[3, 3][..],
        &[9; 32],
        &[0],
        &vec16(&[0x13, 1, 0x13, 2, 0xc0, 0x2f]),
        &[1, 0],
        &vec16(&extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    let records: Vec<u8> = message
        .chunks(record)
        .flat_map(|part| [&[0x16, 3, 1][..], &vec16(part)].concat())
        .collect();
    records[2..].to_vec()
}

pub(super) fn hellos() -> Seeds {
    named(&[
        (
            "plain",
            [vec![0], hello("api.openai.com", false, 16_384)].concat(),
        ),
        ("records", [vec![1], hello("api.openai.com", false, 40)].concat()),
        ("ech", [vec![50], hello("a-b.example.org", true, 16_384)].concat()),
    ])
}

pub(super) fn heads() -> Seeds {
    let text = |mode: u8, how: u8, text: &str| [&[mode, how][..], text.as_bytes()].concat();
    named(&[
        (
            "get",
            text(0, 3, "GET / HTTP/1.1\r\nHost: api.openai.com:80\r\n\r\n"),
        ),
        (
            "absolute",
            text(
                0,
                0,
                "POST http://u@api.openai.com/v1 HTTP/1.1\nhost: b.example\n\n",
            ),
        ),
        (
            "address",
            text(0, 9, "GET / HTTP/1.0\r\nHost: [::1]:80\r\n\r\nrest"),
        ),
        ("other", text(0, 1, "SSH-2.0-x\r\n")),
        ("chat", text(1, 0, "/v1/chat/completions")),
        (
            "bedrock",
            text(1, 17, "/model/us.anthropic.claude-v1%3A0/converse-stream"),
        ),
        (
            "escape",
            text(1, 17, "/model/us.anthropic.claude-v1%253A0/converse"),
        ),
        (
            "gemini",
            text(1, 3, "/v1beta/models/gemini-2.5-flash:generateContent"),
        ),
        (
            "azure",
            text(1, 15, "/openai/deployments/gpt-4o/chat/completions"),
        ),
        (
            "headers",
            text(
                2,
                0,
                "connection:keep-alive, x-a\nx-a:1\nte:trailers\naccept:b\naccept:c",
            ),
        ),
        ("rewind", text(3, 100, "some bytes that were read before")),
    ])
}

pub(super) fn queries() -> Seeds {
    let name = || Name::new("www.example.com").unwrap();
    let query = |kind| {
        let mut packet = Packet::new_query(7);
        packet.questions.push(Question::new(
            name(),
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        packet.build_bytes_vec().unwrap()
    };
    let answered = |asked: &[u8], data: RData<'static>| {
        let mut packet = Packet::parse(asked).unwrap().into_reply();
        packet
            .answers
            .push(ResourceRecord::new(name(), CLASS::IN, 300, data));
        let answer = packet.build_bytes_vec_compressed().unwrap();
        [vec16(asked), answer].concat()
    };
    let mut binding = SVCB::new(1, name());
    binding.set_mandatory([1, 5].into_iter());
    binding.set_alpn(&[b"h3".as_slice(), b"h2"].map(|name| CharacterString::new(name).unwrap()));
    binding.set_port(8443);
    binding.set_param(SVCParam::Ech(Cow::Borrowed(b"config")));
    named(&[
        (
            "address",
            answered(&query(TYPE::A), RData::A(A { address: 0xcb00_7107 })),
        ),
        (
            "service",
            answered(&query(TYPE::HTTPS), RData::HTTPS(HTTPS(binding))),
        ),
    ])
}
