//! What a connection begins with, and what the two halves of the daemon say to each other.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use rustls::server::Acceptor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{alike, controls};
use crate::http::admit::admit;
use crate::http::headers::end_to_end;
use crate::llm::EndpointKind;
use crate::llm::detect::{endpoint, is_plain};
use crate::llm::provider::builtin;
use crate::peek::{Classifier, First, Rewind};
use crate::seam::{FromWorker, ToWorker};

/// What the first bytes are: whole, or growing by so many bytes a time.
fn classified(bytes: &[u8], step: usize) -> Result<Option<First>, String> {
    let mut classifier = Classifier::default();
    for end in (step.max(1)..bytes.len()).step_by(step.max(1)) {
        let so_far = bytes.get(..end).unwrap_or_default();
        match classifier.classify(so_far) {
            Ok(None) => {}
            decided => return decided.map_err(|error| error.to_string()),
        }
    }
    classifier.classify(bytes).map_err(|error| error.to_string())
}

/// A ClientHello says the same however it comes, and names whom a server would hear it name.
pub(super) fn client_hello(input: &[u8]) {
    let Some((&step, rest)) = input.split_first() else {
        return;
    };
    // The first two bytes only say which protocol it is.
    let hello = [&[0x16, 3], rest].concat();
    let whole = classified(&hello, hello.len());
    if step > 0 {
        alike(&whole, &classified(&hello, usize::from(step)), "in pieces");
    }
    let (Ok(Some(First::Tls(hello_read))), Some(theirs)) = (whole, heard(&hello)) else {
        return;
    };
    assert!(
        theirs.is_none() || hello_read.sni == theirs,
        "the server hears {theirs:?}, Guard {:?}",
        hello_read.sni
    );
    if let Some(name) = &hello_read.sni {
        assert!(name.len() <= 253 && *name == name.to_ascii_lowercase());
    }
}

/// The name that a server's own library hears.
fn heard(hello: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    let mut rest = hello;
    while !rest.is_empty() && acceptor.read_tls(&mut rest).ok()? > 0 {}
    let accepted = acceptor.accept().ok()??;
    let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
    Some(name)
}

/// The head of a plain request, and what is refused from a request's head alone.
pub(super) fn http_head(input: &[u8]) {
    let Some((mode, how, rest)) = controls(input) else {
        return;
    };
    match mode & 3 {
        0 => plain(rest, how),
        1 => path(rest, how),
        2 => headers(rest),
        _ => rewound(rest, how),
    }
}

fn plain(bytes: &[u8], step: u8) {
    // What begins so is TLS, and another target's.
    if bytes.first() == Some(&0x16) {
        return;
    }
    let whole = classified(bytes, bytes.len());
    alike(&whole, &classified(bytes, usize::from(step)), "in pieces");
    let Ok(Some(First::Http(head))) = whole else {
        return;
    };
    for host in &head.hosts {
        assert!(!host.contains(['/', '?', '#', '\r', '\n', '\0']), "{host:?}");
        assert_eq!(*host, host.to_ascii_lowercase());
    }
}

/// A path that is judged as one thing is not served as another.
fn path(bytes: &[u8], how: u8) {
    let Ok(path) = std::str::from_utf8(bytes) else {
        return;
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", "api.example.com");
    let Ok((parts, ())) = request.body(()).map(Request::into_parts) else {
        return;
    };
    let providers = builtin();
    let Some(provider) = providers.get(usize::from(how) % providers.len().max(1)) else {
        return;
    };
    let path = parts.uri.path();
    let found = endpoint(provider, &parts.method, path);
    let admitted = admit(&parts, "api.example.com", 443, found.kind).is_ok();
    if found.kind == EndpointKind::Other || !admitted {
        return;
    }
    assert!(is_plain(path), "{path}");
    // Decoded once and twice, no segment leads elsewhere.
    let mut text = path.to_owned();
    for _ in 0..2 {
        assert!(!text.split('/').any(|part| matches!(part, "." | "..")), "{path}");
        assert!(!text.contains(['\\', '\0', '#', '?', ';']), "{path}");
        text = text
            .replace("%2e", ".")
            .replace("%2E", ".")
            .replace("%2f", "/")
            .replace("%2F", "/")
            .replace("%5c", "\\")
            .replace("%5C", "\\");
    }
    if let Some(model) = &found.place.model {
        assert!(!model.is_empty() && !model.contains('%'), "{path}");
    }
}

/// Lines `name:value`.
fn headers(bytes: &[u8]) {
    let mut all = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(64) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            all.append(name, value);
        }
    }
    let kept = end_to_end(&all, |name, _| name == "unwanted");
    let named: Vec<String> = all
        .get_all("connection")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in kept.keys() {
        let hop = [
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
        ];
        assert!(
            !hop.contains(&name.as_str()) && !named.contains(&name.as_str().to_owned()),
            "{name}"
        );
        let (before, after) = (all.get_all(name), kept.get_all(name));
        assert!(before.iter().eq(after.iter()), "{name}");
    }
}

/// What was read to decide is read again by who serves.
fn rewound(bytes: &[u8], how: u8) {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use tokio::io::{AsyncRead, ReadBuf};

    let at = bytes.len() * usize::from(how) / 256;
    let (head, tail) = bytes.split_at(at);
    let mut stream = Rewind::new(Bytes::copy_from_slice(head), tail);
    let mut again = Vec::new();
    let mut room = [0; 7];
    let mut context = Context::from_waker(Waker::noop());
    loop {
        let mut buffer = ReadBuf::new(&mut room);
        let read = Pin::new(&mut stream).poll_read(&mut context, &mut buffer);
        match read {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => again.extend_from_slice(buffer.filled()),
            _ => break,
        }
    }
    assert!(again == bytes, "other bytes than came");
}

/// Messages between keeper and worker: what is understood is understood in one way.
pub(super) fn seam(input: &[u8]) {
    let Some((&side, rest)) = input.split_first() else {
        return;
    };
    if side & 1 == 0 {
        again::<ToWorker>(rest);
    } else {
        again::<FromWorker>(rest);
    }
}

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    // What came from the other side is never sent again; where it could not be, there is nothing to compare.
    let Ok(text) = serde_json::to_vec(&message) else {
        return;
    };
    let read = serde_json::from_slice::<T>(&text).and_then(|message| serde_json::to_vec(&message));
    assert!(
        read.is_ok_and(|read| read == text),
        "a message that is not itself: {}",
        String::from_utf8_lossy(&text)
    );
}
