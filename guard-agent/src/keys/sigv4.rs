//! AWS Signature Version 4: how a request to Bedrock proves which key it is made with when that key is a pair.
//!
//! In: the key pair, the region, the request as it will leave. Out: the headers that sign it. On failure: `None`, when
//! the secret is no key pair.
//! An agent signs with a placeholder: Guard reads the id of its key to see whose it is, verifies nothing (the secret
//! half of a placeholder is as public as the agent's environment), takes the signature away and signs anew. Nothing but
//! HMAC and SHA-256 is needed, which Guard has anyway, so this is its own code, held to published signatures.
//! Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html.

use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use http::Method;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The scheme's name in `Authorization`.
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The service's name in signatures for Bedrock, on all of its hosts.
pub const BEDROCK: &str = "bedrock";

/// A key pair: `ACCESS_KEY_ID:SECRET`, or `ACCESS_KEY_ID:SECRET:SESSION_TOKEN`. No `Debug`: it holds a secret.
pub struct KeyPair<'a> {
    id: &'a str,
    secret: &'a str,
    session: Option<&'a str>,
}

/// Whether a configured key is a pair; else it is a Bedrock API key, which goes as a bearer token.
pub fn is_key_pair(text: &str) -> bool {
    KeyPair::read(text).is_some()
}

impl<'a> KeyPair<'a> {
    /// Reads a pair.
    pub fn read(text: &'a str) -> Option<Self> {
        let (id, rest) = text.split_once(':')?;
        let plain_id = (16..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        let (secret, session) = match rest.split_once(':') {
            None => (rest, None),
            Some((secret, session)) => (secret, Some(session)),
        };
        (plain_id && !secret.is_empty()).then_some(Self { id, secret, session })
    }
}

/// The id of the key that signed a request, from its `Authorization`; `None` when that is no such signature.
pub fn access_key_id(authorization: &str) -> Option<&str> {
    let rest = authorization.trim().strip_prefix(ALGORITHM)?;
    let credential = rest
        .split([',', ' '])
        .find_map(|part| part.trim().strip_prefix("Credential="))?;
    // The scope's four parts stand behind the id.
    credential.split('/').next().filter(|id| !id.is_empty())
}

/// What of a request is signed.
pub struct Request<'a> {
    /// Method.
    pub method: &'a Method,
    /// The host, as it will stand in `Host`.
    pub host: &'a str,
    /// The path as it will be sent, escapes and all.
    pub path: &'a str,
    /// The query as it will be sent, without the question mark.
    pub query: &'a str,
    /// The body as it will be sent.
    pub body: &'a [u8],
}

/// The headers that sign a request.
pub struct Signed {
    /// `Authorization`.
    pub authorization: Zeroizing<String>,
    /// `X-Amz-Date`.
    pub date: String,
    /// `X-Amz-Security-Token`, for a session's keys.
    pub session: Option<Zeroizing<String>>,
}

/// Signs a request.
pub fn sign(
    keys: &KeyPair<'_>,
    region: &str,
    service: &str,
    request: &Request<'_>,
    now: Timestamp,
) -> Signed {
    let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let day = date.get(..8).unwrap_or_default().to_owned();
    let (names, lines) = match keys.session {
        None => ("host;x-amz-date", String::new()),
        Some(session) => (
            "host;x-amz-date;x-amz-security-token",
            format!("x-amz-security-token:{session}\n"),
        ),
    };
    let canonical = format!(
        "{}\n{}\n{}\nhost:{}\nx-amz-date:{date}\n{lines}\n{names}\n{}",
        request.method,
        canonical_path(request.path),
        canonical_query(request.query),
        request.host,
        hex::encode(Sha256::digest(request.body)),
    );
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let text = format!(
        "{ALGORITHM}\n{date}\n{scope}\n{}",
        hex::encode(Sha256::digest(canonical.as_bytes()))
    );
    let first = Zeroizing::new(format!("AWS4{}", keys.secret));
    let mut key = code(first.as_bytes(), day.as_bytes());
    for part in [region, service, "aws4_request"] {
        key = code(&key, part.as_bytes());
    }
    let signature = hex::encode(&*code(&key, text.as_bytes()));
    Signed {
        authorization: Zeroizing::new(format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            keys.id
        )),
        date,
        session: keys.session.map(|session| Zeroizing::new(session.to_owned())),
    }
}

fn code(key: &[u8], text: &[u8]) -> Zeroizing<Vec<u8>> {
    // HMAC takes keys of any length (RFC 2104 §3); the error is of the type, not of the code.
    let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(key) else {
        return Zeroizing::default();
    };
    mac.update(text);
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

/// Escapes everything but unreserved characters (RFC 3986 §2.3) and those in `also`.
fn escaped(text: &str, also: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || also.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Every service but S3 wants the path escaped once more than it is sent.
fn canonical_path(path: &str) -> String {
    escaped(path, b"/")
}

/// Parameters in the order of their names, then of their values. They are sent escaped already, and signed so.
fn canonical_query(query: &str) -> String {
    let mut parameters: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    parameters.sort_unstable();
    let each: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name, b"%"), escaped(value, b"%")))
        .collect();
    each.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "AKIDEXAMPLEEXAMPLE:wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    /// AWS's own test suite signs for this moment, region and service.
    fn signature(method: Method, path: &str, query: &str) -> String {
        let keys = KeyPair {
            id: "AKIDEXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            session: None,
        };
        let request = Request {
            method: &method,
            host: "example.amazonaws.com",
            path,
            query,
            body: b"",
        };
        let now = "2015-08-30T12:36:00Z".parse().unwrap();
        let signed = sign(&keys, "us-east-1", "service", &request, now);
        assert_eq!(signed.date, "20150830T123600Z");
        let (head, signature) = signed.authorization.split_once("Signature=").unwrap();
        assert_eq!(
            head,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, "
        );
        signature.to_owned()
    }

    #[test]
    fn signatures_are_those_of_the_published_suite() {
        for (method, path, query, wanted) in [
            // get-vanilla, get-vanilla-query-order-key-case, post-vanilla
            (
                Method::GET,
                "/",
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                Method::GET,
                "/",
                "Param2=value2&Param1=value1",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                Method::POST,
                "/",
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
        ] {
            assert_eq!(signature(method, path, query), wanted, "{path}?{query}");
        }
    }

    #[test]
    fn an_escaped_path_is_escaped_once_more() {
        assert_eq!(
            canonical_path("/model/a.b-v1%3A0/converse"),
            "/model/a.b-v1%253A0/converse"
        );
        assert_eq!(canonical_path("/model/a:0/converse"), "/model/a%3A0/converse");
    }

    #[test]
    fn a_key_pair_is_told_from_an_api_key() {
        assert!(is_key_pair(KEYS) && is_key_pair(&format!("{KEYS}:session/token==")));
        for other in [
            "ABSKQmVkcm9ja0FQSUtleS1hYmNk",
            "bedrock-api-key-abc:def",
            "AKIDEXAMPLEEXAMPLE:",
            "AKIDEXAMPLEEXAMPLE",
            "short:secret",
        ] {
            assert!(!is_key_pair(other), "{other}");
        }
        let text = format!("{KEYS}:token");
        assert_eq!(KeyPair::read(&text).unwrap().session, Some("token"));
    }

    #[test]
    fn the_id_of_the_key_is_read_from_a_signature() {
        let header = "AWS4-HMAC-SHA256 Credential=sk-guard-00/20260101/us-east-1/bedrock/aws4_request, \
                      SignedHeaders=host;x-amz-date, Signature=00";
        assert_eq!(access_key_id(header), Some("sk-guard-00"));
        for other in [
            "Bearer x",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 Credential=/x",
            "",
        ] {
            assert_eq!(access_key_id(other), None, "{other}");
        }
    }
}
