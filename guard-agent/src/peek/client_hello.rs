//! Reads a TLS ClientHello that may come in any number of TCP segments and TLS records.
//!
//! Whatever is ambiguous is refused rather than guessed: two names, an extension list that does not add up or a
//! handshake interleaved with other records would let a client show the firewall one name and the server another.

use tls_parser::parse_tls_handshake_client_hello;

/// Largest handshake message, and largest number of raw bytes that it may be spread over.
pub const MAX_HELLO: usize = 64 * 1024;

/// A TLS plaintext record carries at most 2^14 bytes (RFC 8446 §5.1).
const MAX_RECORD: usize = 1 << 14;
const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const TYPE_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

const EXT_SERVER_NAME: u16 = 0;
const EXT_ALPN: u16 = 16;
/// `encrypted_client_hello` (RFC 9849).
const EXT_ECH: u16 = 0xfe0d;

/// What the firewall needs of a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// The name asked for, lower case, checked to be a host name; `None` when there is none or it is an address.
    pub sni: Option<String>,
    /// Protocols offered, in order.
    pub alpn: Vec<Vec<u8>>,
    /// An encrypted_client_hello extension is there; GREASE and real ones look alike.
    pub ech: bool,
}

/// A ClientHello that is not one, or that could be read in two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// Larger than Guard reads.
    #[error("the TLS ClientHello is larger than 64 KiB")]
    TooLarge,
    /// Record layer.
    #[error("malformed TLS record before the end of the ClientHello")]
    Record,
    /// The first handshake message is another one.
    #[error("the first TLS handshake message is not a ClientHello")]
    NotClientHello,
    /// The message does not parse.
    #[error("malformed TLS ClientHello")]
    Message,
    /// The extension list does not parse, or names an extension twice.
    #[error("malformed or repeated TLS extension")]
    Extension,
    /// The server name is no host name, or there are several.
    #[error("malformed TLS server name")]
    ServerName,
}

/// Collects the handshake message out of the records. It is fed the whole buffer each time and remembers how far
/// it came, so that a client which dribbles bytes costs linear, not quadratic, work.
#[derive(Debug, Default)]
pub struct HelloReader {
    message: Vec<u8>,
    consumed: usize,
}

impl HelloReader {
    /// Takes everything received so far; `None` means that more is needed.
    ///
    /// # Errors
    /// [`BadHello`] as soon as the bytes can't become a ClientHello.
    pub fn feed(&mut self, received: &[u8]) -> Result<Option<ClientHello>, BadHello> {
        loop {
            if let Some(hello) = self.complete()? {
                return Ok(Some(hello));
            }
            let rest = received.get(self.consumed..).unwrap_or_default();
            let Some(payload) = next_record(rest)? else {
                if received.len() >= MAX_HELLO {
                    return Err(BadHello::TooLarge);
                }
                return Ok(None);
            };
            self.message.extend_from_slice(payload);
            self.consumed += RECORD_HEADER + payload.len();
        }
    }

    fn complete(&self) -> Result<Option<ClientHello>, BadHello> {
        let Some((header, body)) = self.message.split_at_checked(HANDSHAKE_HEADER) else {
            return match self.message.first() {
                Some(&kind) if kind != CLIENT_HELLO => Err(BadHello::NotClientHello),
                _ => Ok(None),
            };
        };
        let &[kind, high, middle, low] = header else {
            return Ok(None);
        };
        if kind != CLIENT_HELLO {
            return Err(BadHello::NotClientHello);
        }
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        if length > MAX_HELLO {
            return Err(BadHello::TooLarge);
        }
        match body.len() {
            have if have < length => Ok(None),
            // A second message behind a first ClientHello can't be answered yet: no client sends one.
            have if have > length => Err(BadHello::Message),
            _ => parse(body).map(Some),
        }
    }
}

/// The payload of the first record in `bytes`, once it is there as a whole.
fn next_record(bytes: &[u8]) -> Result<Option<&[u8]>, BadHello> {
    if bytes.first().is_some_and(|&kind| kind != TYPE_HANDSHAKE)
        || bytes.get(1).is_some_and(|&major| major != 3)
    {
        return Err(BadHello::Record);
    }
    let Some((&[_, _, _, high, low], rest)) = bytes.split_at_checked(RECORD_HEADER).and_then(as_header)
    else {
        return Ok(None);
    };
    let length = usize::from(high) << 8 | usize::from(low);
    // Empty handshake records are forbidden (RFC 8446 §5.1).
    if length == 0 || length > MAX_RECORD {
        return Err(BadHello::Record);
    }
    Ok(rest.get(..length))
}

fn as_header<'a>((header, rest): (&'a [u8], &'a [u8])) -> Option<(&'a [u8; RECORD_HEADER], &'a [u8])> {
    Some((header.try_into().ok()?, rest))
}

fn parse(body: &[u8]) -> Result<ClientHello, BadHello> {
    let (rest, contents) = parse_tls_handshake_client_hello(body).or(Err(BadHello::Message))?;
    if !rest.is_empty() {
        return Err(BadHello::Message);
    }
    let mut hello = ClientHello::default();
    let mut seen = Vec::new();
    let mut extensions = contents.ext.unwrap_or_default();
    // The list is walked here: tls-parser stops in silence at the first extension whose content it dislikes, and a
    // server name behind it would go unseen.
    while !extensions.is_empty() {
        let (kind, rest) = take_u16(extensions).ok_or(BadHello::Extension)?;
        let (data, rest) = take_vec16(rest).ok_or(BadHello::Extension)?;
        extensions = rest;
        if seen.contains(&kind) {
            return Err(BadHello::Extension);
        }
        // Only what is read is kept: a hello of empty extensions must not cost quadratic time.
        match kind {
            EXT_SERVER_NAME => hello.sni = server_name(data)?,
            EXT_ALPN => hello.alpn = protocols(data).ok_or(BadHello::Extension)?,
            EXT_ECH => hello.ech = true,
            _ => continue,
        }
        seen.push(kind);
    }
    Ok(hello)
}

/// RFC 6066 §3, but exactly one entry of type host_name: no deployed client sends more.
fn server_name(data: &[u8]) -> Result<Option<String>, BadHello> {
    let entry = || {
        let (list, rest) = take_vec16(data)?;
        let (&kind, list) = list.split_first()?;
        let (name, more) = take_vec16(list)?;
        (rest.is_empty() && more.is_empty() && kind == 0).then_some(name)
    };
    let name = entry().ok_or(BadHello::ServerName)?;
    let name = std::str::from_utf8(name)
        .or(Err(BadHello::ServerName))?
        .to_ascii_lowercase();
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Ok(None);
    }
    if is_host_name(&name) {
        Ok(Some(name))
    } else {
        Err(BadHello::ServerName)
    }
}

/// Whether this is a host name as TLS carries it: labels of letters, digits, `-` and `_`, no final dot.
pub fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

fn protocols(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut list, rest) = take_vec16(data)?;
    let mut names = Vec::new();
    while let Some((&length, after)) = list.split_first() {
        let (name, after) = after.split_at_checked(usize::from(length))?;
        names.push(name.to_vec());
        list = after;
    }
    rest.is_empty().then_some(names)
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_at_checked(2)?;
    Some((u16::from_be_bytes(number.try_into().ok()?), rest))
}

fn take_vec16(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = take_u16(bytes)?;
    rest.split_at_checked(usize::from(length))
}

#[cfg(test)]
pub(crate) mod tests;
