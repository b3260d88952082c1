//! The head of a plain HTTP/1 request: which hosts it names.

use crate::peek::client_hello::is_host_name;

/// Largest head that is read.
pub const MAX_HEAD: usize = 16 * 1024;
/// Longest method that looks like one; the longest registered is 17 (UPDATEREDIRECTREF).
const MAX_METHOD: usize = 20;
const MAX_HEADERS: usize = 128;

/// What the firewall needs of a plain request's head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlainHead {
    /// Every host that the request names, in the Host field or in an absolute target; lower case, without port.
    pub hosts: Vec<String>,
}

/// A head that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// Larger than Guard reads.
    #[error("the HTTP request head is larger than 16 KiB")]
    TooLarge,
    /// Not HTTP/1 after all, though its first line was.
    #[error("malformed HTTP request head")]
    Malformed,
}

pub(super) enum Verdict {
    NeedMore,
    NotHttp,
    Head(PlainHead),
}

pub(super) fn read(received: &[u8]) -> Result<Verdict, BadHead> {
    match first_line(received) {
        FirstLine::NeedMore if received.len() >= MAX_HEAD => return Err(BadHead::TooLarge),
        FirstLine::NeedMore => return Ok(Verdict::NeedMore),
        FirstLine::NotHttp => return Ok(Verdict::NotHttp),
        FirstLine::Http => {}
    }
    // Parsing is worth its price once the blank line has come.
    if memchr::memmem::find(received, b"\n\r\n").is_none()
        && memchr::memmem::find(received, b"\n\n").is_none()
    {
        return if received.len() >= MAX_HEAD {
            Err(BadHead::TooLarge)
        } else {
            Ok(Verdict::NeedMore)
        };
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(received) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Ok(Verdict::NeedMore),
        Err(httparse::Error::TooManyHeaders) => return Err(BadHead::TooLarge),
        Err(_) => return Err(BadHead::Malformed),
    }
    let mut hosts = Vec::new();
    if let Some(authority) = request.path.and_then(absolute_authority) {
        hosts.push(host_of(authority)?);
    }
    for header in request
        .headers
        .iter()
        .filter(|h| h.name.eq_ignore_ascii_case("host"))
    {
        let value = std::str::from_utf8(header.value).or(Err(BadHead::Malformed))?;
        hosts.push(host_of(value.trim())?);
    }
    Ok(Verdict::Head(PlainHead { hosts }))
}

enum FirstLine {
    NeedMore,
    NotHttp,
    Http,
}

/// `METHOD target HTTP/1.x`: other text protocols (Redis, NATS, memcached) also begin with a word and a space.
fn first_line(received: &[u8]) -> FirstLine {
    let method = received
        .iter()
        .take(MAX_METHOD + 1)
        .take_while(|b| b.is_ascii_uppercase() || **b == b'-')
        .count();
    match received.get(method) {
        None if method <= MAX_METHOD => return FirstLine::NeedMore,
        Some(b' ') if (1..=MAX_METHOD).contains(&method) => {}
        _ => return FirstLine::NotHttp,
    }
    let Some(end) = memchr::memchr(b'\n', received) else {
        return FirstLine::NeedMore;
    };
    let line = received.get(..end).unwrap_or_default().trim_ascii_end();
    if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") {
        FirstLine::Http
    } else {
        FirstLine::NotHttp
    }
}

fn absolute_authority(target: &str) -> Option<&str> {
    let (_, rest) = target
        .split_once("://")
        .filter(|(scheme, _)| !scheme.contains('/'))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = rest.get(..end)?;
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// The host of `host[:port]`; an address stays as it is written.
fn host_of(authority: &str) -> Result<String, BadHead> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    // A final dot names the same host to DNS and to most servers.
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = bracketed.is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok())
        || host.parse::<std::net::IpAddr>().is_ok();
    if host.is_empty() || address || is_host_name(&host) {
        Ok(host)
    } else {
        Err(BadHead::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<String> {
        match read(text.as_bytes()) {
            Ok(Verdict::Head(head)) => head.hosts,
            _ => panic!("not read as a head: {text}"),
        }
    }

    #[test]
    fn reads_every_host_that_is_named() {
        assert_eq!(
            hosts("GET / HTTP/1.1\r\nhOsT: Api.OpenAI.com:80\r\n\r\n"),
            ["api.openai.com"]
        );
        assert_eq!(
            hosts("GET / HTTP/1.1\r\nHost: api.openai.com.\r\n\r\n"),
            ["api.openai.com"]
        );
        assert_eq!(
            hosts("POST http://u@api.openai.com/v1 HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n"),
            ["api.openai.com", "a.example", "b.example"]
        );
        assert_eq!(
            hosts("GET /?u=http://a.example HTTP/1.1\nHost: [::1]:80\n\n"),
            ["[::1]"]
        );
        assert!(hosts("GET / HTTP/1.0\r\n\r\n").is_empty());
    }

    #[test]
    fn brackets_hold_an_address_or_the_head_is_malformed() {
        for host in [
            "[api.openai.com]",
            "[::1",
            "[::0]:zz http/1.180",
            "[]",
            "[1.2.3.4]",
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert!(matches!(read(text.as_bytes()), Err(BadHead::Malformed)), "{host}");
        }
    }

    #[test]
    fn other_text_protocols_are_not_http() {
        for text in [
            "SET key value\r\n",
            "CONNECT {\"verbose\":false}\r\n",
            "PING\r\n",
            "EHLO a\r\n",
            "\u{1}\u{2}",
        ] {
            assert!(matches!(read(text.as_bytes()), Ok(Verdict::NotHttp)), "{text:?}");
        }
    }

    #[test]
    fn every_split_waits_for_the_end() {
        let text = b"OPTIONS / HTTP/1.1\r\nA: b\r\nHost: a.example\r\n\r\n";
        for end in 1..text.len() {
            assert!(matches!(read(&text[..end]), Ok(Verdict::NeedMore)), "{end}");
        }
    }

    #[test]
    fn a_head_has_a_bound() {
        let mut text = b"GET / HTTP/1.1\r\n".to_vec();
        text.resize(MAX_HEAD, b'a');
        assert!(matches!(read(&text), Err(BadHead::TooLarge)));
        let mut line = b"GET ".to_vec();
        line.resize(MAX_HEAD, b'a');
        assert!(matches!(read(&line), Err(BadHead::TooLarge)));
        assert!(matches!(
            read(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
            Err(BadHead::Malformed)
        ));
    }
}
