use std::sync::Arc;

use super::*;

/// A real ClientHello, as rustls writes it.
pub(crate) fn rustls_hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let name = name.to_owned().try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// A hello with exactly these extensions.
fn hello_with(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, data) in extensions {
        list.extend(kind.to_be_bytes());
        list.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        list.extend(data);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
    body.extend(list);
    let mut message = vec![1];
    message.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    message.extend(body);
    records(&message, MAX_RECORD)
}

fn sni(name: &[u8]) -> Vec<u8> {
    let length = u16::try_from(name.len()).unwrap();
    let mut data = (length + 3).to_be_bytes().to_vec();
    data.push(0);
    data.extend(length.to_be_bytes());
    data.extend(name);
    data
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for part in message.chunks(size) {
        out.extend([22, 3, 1]);
        out.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
        out.extend(part);
    }
    out
}

fn read(bytes: &[u8]) -> Result<Option<ClientHello>, BadHello> {
    HelloReader::default().feed(bytes)
}

#[test]
fn every_tcp_split_gives_the_same_hello() {
    let bytes = rustls_hello("Api.OpenAI.com", &[b"h2", b"http/1.1"]);
    assert!(
        bytes.len() > 1400,
        "a post-quantum share makes it longer than a segment"
    );
    for split in 0..bytes.len() {
        let mut reader = HelloReader::default();
        assert_eq!(reader.feed(&bytes[..split]), Ok(None), "split {split}");
        let hello = reader.feed(&bytes).unwrap().unwrap();
        assert_eq!(hello.sni.as_deref(), Some("api.openai.com"), "split {split}");
        assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}

#[test]
fn every_record_size_and_every_byte_by_byte_reading_gives_the_same_hello() {
    let whole = rustls_hello("api.anthropic.com", &[]);
    for size in (1..=whole.len()).step_by(13) {
        let bytes = records(&whole[RECORD_HEADER..], size);
        let mut reader = HelloReader::default();
        for end in 0..bytes.len() {
            assert_eq!(reader.feed(&bytes[..end]), Ok(None), "size {size} end {end}");
        }
        let hello = reader.feed(&bytes).unwrap().unwrap();
        assert_eq!(hello.sni.as_deref(), Some("api.anthropic.com"), "size {size}");
    }
}

#[test]
fn finds_the_name_behind_padding_and_behind_broken_extensions() {
    // Length 1 is not a valid max_fragment_length of 3 bytes: a parser that stops there would miss the name.
    let bytes = hello_with(&[
        (1, vec![9, 9, 9]),
        (21, vec![0; 15000]),
        (0, sni(b"api.openai.com")),
    ]);
    assert_eq!(
        read(&bytes).unwrap().unwrap().sni.as_deref(),
        Some("api.openai.com")
    );
}

#[test]
fn sees_encrypted_client_hello() {
    let bytes = hello_with(&[(0xfe0d, vec![0, 1, 2]), (0, sni(b"public.example"))]);
    assert!(read(&bytes).unwrap().unwrap().ech);
    assert!(!read(&rustls_hello("a.example", &[])).unwrap().unwrap().ech);
}

#[test]
fn refuses_what_can_be_read_in_two_ways() {
    let mut two = sni(b"api.openai.com");
    two.extend(&sni(b"b.example")[2..]);
    let length = u16::try_from(two.len() - 2).unwrap().to_be_bytes();
    two[..2].copy_from_slice(&length);
    for (bytes, expected) in [
        (hello_with(&[(0, two)]), BadHello::ServerName),
        (
            hello_with(&[(0, sni(b"a.example")), (0, sni(b"b.example"))]),
            BadHello::Extension,
        ),
        (hello_with(&[(0, sni(b"api.openai.com."))]), BadHello::ServerName),
        (
            hello_with(&[(0, sni(b"api.openai.com\0.evil"))]),
            BadHello::ServerName,
        ),
        (
            hello_with(&[(0, sni("bücher.example".as_bytes()))]),
            BadHello::ServerName,
        ),
        (hello_with(&[(0, sni(b""))]), BadHello::ServerName),
        (hello_with(&[(0, vec![])]), BadHello::ServerName),
    ] {
        assert_eq!(read(&bytes), Err(expected));
    }
}

#[test]
fn refuses_broken_records_and_other_messages() {
    let good = rustls_hello("a.example", &[]);
    let mut alert_between = records(&good[RECORD_HEADER..], 100);
    alert_between[105] = 21;
    assert_eq!(read(&alert_between), Err(BadHello::Record));
    assert_eq!(read(&[22, 3, 1, 0, 0]), Err(BadHello::Record));
    assert_eq!(read(&[22, 3, 1, 0x40, 1]), Err(BadHello::Record));
    assert_eq!(read(&[22, 3, 3, 0, 1, 2]), Err(BadHello::NotClientHello));
    assert_eq!(read(&[22, 3, 3, 0, 4, 1, 1, 0, 1]), Err(BadHello::TooLarge));
}

#[test]
fn an_endless_hello_is_cut_at_its_bound() {
    let mut message = vec![1, 0, 0xff, 0xff];
    message.resize(100_000, 0);
    let bytes = records(&message, 1);
    assert_eq!(read(&bytes[..MAX_HELLO - 1]), Ok(None));
    assert_eq!(read(&bytes[..MAX_HELLO]), Err(BadHello::TooLarge));
}

#[test]
fn an_address_is_no_name() {
    let bytes = hello_with(&[(0, sni(b"203.0.113.7"))]);
    assert_eq!(read(&bytes).unwrap().unwrap().sni, None);
    assert_eq!(
        read(&rustls_hello("203.0.113.7", &[])).unwrap().unwrap().sni,
        None
    );
}

proptest::proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
        let mut record = records(&bytes, 300);
        let _unused = read(&record);
        if record.len() > 9 {
            record[5] = 1;
            record[6] = 0;
        }
        let _unused = read(&record);
    }
}
