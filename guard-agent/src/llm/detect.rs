//! What a request to a provider's host is, by method and path.
//!
//! In: provider, method, path. Out: the kind of endpoint, the format that is spoken there, and what the path itself says
//! about the call. On failure: `Other`, which is refused unless the agent lists it: a path that Guard and the provider
//! could read differently is never inference, a model list or a count.

use http::Method;

use crate::llm::provider::{Mount, Provider, SideKind, dialect_at, dialect_for};
use crate::llm::socket::SocketFormat;
use crate::llm::{Dialect, EndpointKind, Place};

mod percent;

use percent::decoded;

/// The mark of a base path's segment that names the model.
const MODEL: &str = "{model}";
/// What stands in a base path for the region that serves the call.
const REGION: &str = "{region}";

/// An endpoint.
#[derive(Clone)]
pub struct Endpoint {
    /// What it is.
    pub kind: EndpointKind,
    /// Who reads requests and replies there, and words refusals.
    pub dialect: &'static dyn Dialect,
    /// What its path says.
    pub place: Place,
}

/// The endpoint that `method` on `path` (without the query) is at this provider. The first format that knows the path
/// has it.
pub fn endpoint(provider: &Provider, method: &Method, path: &str) -> Endpoint {
    let unknown = |kind| Endpoint {
        kind,
        dialect: nearest(provider, path),
        place: Place::default(),
    };
    if !is_plain(path) {
        return unknown(EndpointKind::Other);
    }
    for mount in &provider.formats {
        let Some(place) = below(mount, path) else { continue };
        let dialect = dialect_at(provider, mount.dialect);
        let kind = dialect.endpoint(method, &place.tail);
        if kind != EndpointKind::Other {
            return Endpoint { kind, dialect, place };
        }
    }
    let side = provider.side(method, path).filter(|_| !path.contains('%'));
    unknown(match side {
        Some(SideKind::Needed) => EndpointKind::Side,
        Some(SideKind::Telemetry) => EndpointKind::Telemetry,
        None => EndpointKind::Other,
    })
}

/// The endpoint that a WebSocket opened at `path` is, where a format at this provider is spoken over one.
pub fn socket(provider: &Provider, path: &str) -> Option<(Endpoint, &'static dyn SocketFormat)> {
    if !is_plain(path) {
        return None;
    }
    provider.formats.iter().find_map(|mount| {
        let place = below(mount, path).filter(|place| place.model.is_none())?;
        let dialect = dialect_at(provider, mount.dialect);
        let format = dialect.socket(&place.tail)?;
        let kind = EndpointKind::Socket;
        Some((Endpoint { kind, dialect, place }, format))
    })
}

/// The format with the longest base path that this one is below: a refusal is worded as its clients read it.
fn nearest(provider: &Provider, path: &str) -> &'static dyn Dialect {
    let mut found: Option<&Mount> = None;
    for mount in &provider.formats {
        let longer = found.is_none_or(|other| mount.base.len() > other.base.len());
        if longer && below(mount, path).is_some() {
            found = Some(mount);
        }
    }
    found.map_or_else(
        || dialect_for(provider),
        |mount| dialect_at(provider, mount.dialect),
    )
}

/// What a path says below a mount.
fn below(mount: &Mount, path: &str) -> Option<Place> {
    let mut rest = path;
    let (mut model, mut region) = (None, None);
    for wanted in mount.base.split('/').skip(1) {
        let after = rest.strip_prefix('/')?;
        let (segment, tail) = after.find('/').map_or((after, ""), |at| after.split_at(at));
        match wanted {
            MODEL => model = Some(decoded(segment)?),
            REGION if !segment.is_empty() => region = Some(segment.to_owned()),
            "*" if !segment.is_empty() => {}
            exact if exact == segment => {}
            _ => return None,
        }
        rest = tail;
    }
    rest.starts_with('/').then(|| Place {
        model,
        region,
        tail: rest.to_owned(),
        content_type: None,
    })
}

/// Whether every server reads the path in the same way: segments of unreserved characters (RFC 3986 §2.3) and a few
/// that stand in model names, none of them empty, `.` or `..`; no parameters, no query, no trailing slash. Escapes are
/// left to the one segment in which a model's name stands, and must stand for the characters of such a name.
pub fn is_plain(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    rest.split('/').all(|segment| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:@".contains(&byte);
        !matches!(segment, "" | "." | "..") && (segment.bytes().all(plain) || decoded(segment).is_some())
    })
}

/// A model's name from the segment of a path in which it stands.
pub(crate) fn model_name(segment: &str) -> Option<String> {
    decoded(segment)
}

/// `/models`, or one model in it. Names may have slashes in them (`vendor/name`).
pub(crate) fn is_models(tail: &str) -> bool {
    let plain = !tail.contains('%');
    plain && (tail == "/models" || tail.strip_prefix("/models/").is_some_and(|name| !name.is_empty()))
}
