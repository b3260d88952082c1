//! What is refused from the head of a request alone.

use http::Method;
use http::header::{HOST, UPGRADE};
use http::request::Parts;
use http::uri::Authority;

use crate::llm::EndpointKind;
use crate::refusal::{Reason, Refusal};

/// Checks that the request is for the name of its connection, is no upgrade, and has a path that can be read in one
/// way only.
///
/// # Errors
/// The refusal.
pub fn admit(parts: &Parts, sni: &str, port: u16, endpoint: EndpointKind) -> Result<(), Refusal> {
    if !authority_is(parts, sni, port) {
        return Err(Refusal::new(
            Reason::AuthorityMismatch,
            format!(
                "This connection was made for {sni}, but the request names another host. Open a connection of its own for that host."
            ),
        ));
    }
    let upgrade = parts.headers.contains_key(UPGRADE) && endpoint != EndpointKind::Socket;
    if upgrade || parts.method == Method::CONNECT {
        return Err(Refusal::new(
            Reason::UpgradeRequired,
            "Guard reads no WebSocket or other upgrade here, so it lets none through. Use plain HTTPS requests instead.",
        ));
    }
    // A model's name may hold an escaped slash where the format has it in one segment of the path.
    let names_model = matches!(endpoint, EndpointKind::Inference | EndpointKind::CountTokens);
    if !is_plain_path(parts.uri.path(), names_model) {
        return Err(Refusal::new(
            Reason::Malformed,
            "The path of the request has dot segments, empty segments or escaped separators. Send it in its plain form.",
        ));
    }
    Ok(())
}

/// Every place in which a request names its host must name the same one.
fn authority_is(parts: &Parts, sni: &str, port: u16) -> bool {
    let mut named = false;
    let is_ours = |authority: &Authority| {
        let port_ok = authority
            .port_u16()
            .is_none_or(|given| given == 443 || given == port);
        !authority.as_str().contains('@') && authority.host().eq_ignore_ascii_case(sni) && port_ok
    };
    if let Some(authority) = parts.uri.authority() {
        named = true;
        if !is_ours(authority) {
            return false;
        }
    }
    for value in parts.headers.get_all(HOST) {
        named = true;
        if !value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .is_some_and(|authority| is_ours(&authority))
        {
            return false;
        }
    }
    named && parts.headers.get_all(HOST).iter().count() <= 1
}

/// Whether a path means the same to every server: what is judged must be what is served.
fn is_plain_path(path: &str, escaped_slash: bool) -> bool {
    let lower = path.to_ascii_lowercase();
    let escaped = ["%2e", "%5c", "%00"].iter().any(|bad| lower.contains(bad))
        || (!escaped_slash && lower.contains("%2f"));
    path.starts_with('/')
        && !escaped
        && !path.contains('\\')
        && !path.contains("//")
        && !path.split('/').any(|segment| segment == "." || segment == "..")
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::llm::detect::endpoint;
    use crate::llm::provider::builtin;

    fn verdict(uri: &str, headers: &[(&str, &str)]) -> Result<(), Reason> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        admit(&parts, "api.openai.com", 8443, EndpointKind::Other).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn every_name_must_be_the_connections() {
        let host = |value| verdict("/v1/models", &[("host", value)]);
        for good in ["api.openai.com", "API.openai.com:443", "api.openai.com:8443"] {
            assert_eq!(host(good), Ok(()), "{good}");
        }
        for bad in [
            "evil.example",
            "api.openai.com:80",
            "u@api.openai.com",
            "api.openai.com.",
            "",
        ] {
            assert_eq!(host(bad), Err(Reason::AuthorityMismatch), "{bad}");
        }
        let mismatch = Err(Reason::AuthorityMismatch);
        assert_eq!(verdict("/", &[]), mismatch);
        assert_eq!(
            verdict("/", &[("host", "api.openai.com"), ("host", "api.openai.com")]),
            mismatch
        );
        assert_eq!(
            verdict("https://evil.example/", &[("host", "api.openai.com")]),
            mismatch
        );
        assert_eq!(
            verdict("https://api.openai.com/", &[("host", "evil.example")]),
            mismatch
        );
        assert_eq!(verdict("https://api.openai.com/", &[]), Ok(()));
    }

    #[test]
    fn upgrades_and_ambiguous_paths_are_refused() {
        let host = ("host", "api.openai.com");
        let upgrade = [host, ("connection", "upgrade"), ("upgrade", "websocket")];
        assert_eq!(verdict("/v1/responses", &upgrade), Err(Reason::UpgradeRequired));
        for path in [
            "/v1/../v1/x",
            "//v1/x",
            "/v1/%2E%2e/x",
            "/v1%2fx",
            "/v1/./x",
            "/v1\\x",
            "/v1/..",
        ] {
            assert_eq!(verdict(path, &[host]), Err(Reason::Malformed), "{path}");
        }
        assert_eq!(verdict("/v1/models/gpt-5.1?x=..//", &[host]), Ok(()));
    }

    #[test]
    fn a_socket_whose_format_is_not_read_is_told_what_to_use_instead() {
        let live = "google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained";
        for (provider, path) in [
            (
                "openai",
                "/v1/realtime/translations?model=gpt-realtime-translate".to_owned(),
            ),
            ("xai", "/v1/realtime".to_owned()),
            ("gemini", format!("/ws/{live}?key=k")),
        ] {
            let provider = builtin().into_iter().find(|known| known.name == provider);
            let provider = provider.unwrap();
            let host = provider.hosts[0].clone();
            let (parts, ()) = Request::get(path)
                .header("host", &host)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .body(())
                .unwrap()
                .into_parts();
            let kind = endpoint(&provider, &parts.method, parts.uri.path()).kind;
            let refusal = admit(&parts, &host, 443, kind).unwrap_err();
            assert_eq!(refusal.reason, Reason::UpgradeRequired, "{host}");
            assert!(
                refusal.message.contains("Use plain HTTPS requests instead"),
                "{refusal:?}"
            );
        }
    }
}
