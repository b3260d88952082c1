//! The request as it leaves: the client's own, with the edits that policy asked for and the provider's key in place of
//! whatever the caller presented.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap,
    HeaderName, HeaderValue,
};
use http::{Request, Uri, Version};
use http_body_util::Full;

use crate::call::{CREDENTIAL_HEADERS, Call, is_credential_parameter, parameters};
use crate::http::headers::end_to_end;
use crate::keys::{Secret, sigv4};
use crate::llm::{BodyEdits, Dialect, Malformed};
use crate::policy::Credential;
use crate::refusal::{Reason, Refusal};

/// Builds it.
///
/// # Errors
/// The body cannot be rewritten, or the key is no header value.
pub(super) fn request(
    dialect: &dyn Dialect,
    sni: &str,
    call: Call,
    edits: &BodyEdits,
    plain: bool,
    credential: &Credential,
) -> Result<Request<Full<Bytes>>, Refusal> {
    let edited = !edits.is_empty();
    let inject = !matches!(credential, Credential::Pass);
    let mut headers = end_to_end(&call.headers, |name, _| {
        // The host comes from the URI again, the length from the body; 100-continue was answered here.
        [HOST, CONTENT_LENGTH, EXPECT].contains(name)
            || (inject && (CREDENTIAL_HEADERS.contains(name) || SIGNATURE_HEADERS.contains(name)))
            || (edited && *name == CONTENT_ENCODING)
            || (plain && *name == ACCEPT_ENCODING)
    });
    join_cookies(&mut headers);
    if plain {
        // An event can only be hidden from, and a call only be judged in, a reply that is not compressed.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    if let Credential::Inject { header, secret } = credential {
        headers.insert(header.clone(), credential_value(header, secret)?);
    }
    let body = if edited {
        dialect
            .rewrite(&call.body, edits)
            .map_err(|Malformed(why)| Refusal::new(Reason::Malformed, why))?
    } else {
        call.encoded_body.unwrap_or(call.body)
    };
    let target = call.target.path_and_query().map_or("/", |target| target.as_str());
    let target = if inject {
        without_credentials(target)
    } else {
        target.to_owned()
    };
    let uri = Uri::builder()
        .scheme("https")
        .authority(sni)
        .path_and_query(target)
        .build();
    let uri = uri.map_err(|error| internal(&error))?;
    if let Credential::Sign { secret } = credential {
        sign(&mut headers, secret, sni, &call.method, &uri, &body)?;
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = call.method;
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Headers in which a caller's signature stands; Guard's own takes their place.
const SIGNATURE_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-amz-date"),
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-amz-content-sha256"),
];

/// Signs the request as it will leave. The region is the second label of the host
/// (`bedrock-runtime.REGION.amazonaws.com`).
fn sign(
    headers: &mut HeaderMap,
    secret: &Secret,
    sni: &str,
    method: &http::Method,
    uri: &Uri,
    body: &[u8],
) -> Result<(), Refusal> {
    let (Some(keys), Some(region)) = (sigv4::KeyPair::read(secret.expose()), sni.split('.').nth(1)) else {
        return Err(internal(&"the key is no key pair"));
    };
    let request = sigv4::Request {
        method,
        host: sni,
        path: uri.path(),
        query: uri.query().unwrap_or_default(),
        body,
    };
    let signed = sigv4::sign(&keys, region, sigv4::BEDROCK, &request, jiff::Timestamp::now());
    let values = [
        (AUTHORIZATION, Some(signed.authorization.as_str())),
        (HeaderName::from_static("x-amz-date"), Some(signed.date.as_str())),
        (
            HeaderName::from_static("x-amz-security-token"),
            signed.session.as_ref().map(|session| session.as_str()),
        ),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value).ok();
            let mut value = value.ok_or_else(|| internal(&"the key is not a header value"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    Ok(())
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "a request could not be built");
    Refusal::new(
        Reason::Internal,
        "The request could not be forwarded, because of a fault in Guard.",
    )
}

fn credential_value(header: &HeaderName, secret: &Secret) -> Result<HeaderValue, Refusal> {
    let value = if *header == http::header::AUTHORIZATION {
        HeaderValue::from_str(&zeroize::Zeroizing::new(format!("Bearer {}", secret.expose())))
    } else {
        HeaderValue::from_str(secret.expose())
    };
    // The error would quote the value.
    let mut value = value
        .ok()
        .ok_or_else(|| internal(&"the key is not a header value"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// HTTP/2 clients may split the cookie header (RFC 9113 §8.2.3); HTTP/1.1 servers want one.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

fn without_credentials(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    if !parameters(query).any(|(name, _)| is_credential_parameter(name)) {
        return target.to_owned();
    }
    let kept: Vec<String> = parameters(query)
        .filter(|(name, _)| !is_credential_parameter(name))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    }
}
