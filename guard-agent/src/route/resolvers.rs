//! Resolvers that Guard cannot read, and names that stand for others.
//!
//! In: a destination and a name. Out: whether it is a resolver for DNS over TLS or HTTPS, or a front for
//! encrypted_client_hello. On failure: one that is not in the table is not known as such; its look-ups pass like any other
//! HTTPS, and only the names and addresses of the connections that follow are seen.
//!
//! The names are those that the operators publish, each in its documentation of DNS over HTTPS.

use std::net::{IpAddr, SocketAddr};

/// DNS over TLS and over QUIC (RFC 7858, RFC 9250), whoever answers there.
const DOT: u16 = 853;
/// Exactly, or a name below.
const NAMES: &[&str] = &[
    "adguard-dns.com",
    "appliedprivacy.net",
    "cloudflare-dns.com",
    "cloudflare-gateway.com",
    "controld.com",
    "dns.adguard.com",
    "dns.aliddns.com",
    "dns.alidns.com",
    "dns.brahma.world",
    "dns.digitale-gesellschaft.ch",
    "dns.google",
    "dns.google.com",
    "dns.mullvad.net",
    "dns.nextdns.io",
    "dns.opendns.com",
    "dns.quad9.net",
    "dns.sb",
    "dns.switch.ch",
    "dns0.eu",
    "dns10.quad9.net",
    "dns11.quad9.net",
    "dns9.quad9.net",
    "doh.cleanbrowsing.org",
    "doh.dns.apple.com",
    "doh.familyshield.opendns.com",
    "doh.opendns.com",
    "doh.pub",
    "doh.umbrella.com",
    "one.one.one.one",
];
/// Addresses that answer HTTPS without a name, on one port or another.
const ADDRESSES: &[&str] = &[
    "1.1.1.1",
    "1.0.0.1",
    "1.1.1.2",
    "1.0.0.2",
    "1.1.1.3",
    "1.0.0.3",
    "2606:4700:4700::1111",
    "2606:4700:4700::1001",
    "8.8.8.8",
    "8.8.4.4",
    "2001:4860:4860::8888",
    "2001:4860:4860::8844",
    "9.9.9.9",
    "9.9.9.10",
    "9.9.9.11",
    "149.112.112.112",
    "2620:fe::fe",
    "2620:fe::9",
    "208.67.222.222",
    "208.67.220.220",
    "94.140.14.14",
    "94.140.15.15",
    "223.5.5.5",
    "223.6.6.6",
];
/// Public names of encrypted_client_hello: behind each is any site of its operator.
const ECH_FRONTS: &[&str] = &["cloudflare-ech.com"];

/// What of a destination and its name (in lower case) is such a resolver's.
pub fn find(destination: SocketAddr, name: Option<&str>) -> Option<String> {
    if destination.port() == DOT {
        return Some(format!("{destination}, by its port,"));
    }
    if let Some(name) = name.filter(|name| is_name(name)) {
        return Some(format!("{name:?}"));
    }
    is_resolver(destination.ip()).then(|| destination.to_string())
}

/// Whether a name (in lower case) is such a resolver's.
pub fn is_name(name: &str) -> bool {
    NAMES.iter().any(|host| is_or_below(name, host))
}

/// Whether a name stands for any site of its operator.
pub fn is_ech_front(name: &str) -> bool {
    ECH_FRONTS.iter().any(|front| is_or_below(name, front))
}

fn is_or_below(name: &str, host: &str) -> bool {
    name.strip_suffix(host)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_resolver(address: IpAddr) -> bool {
    let address = address.to_canonical();
    ADDRESSES.iter().any(|known| known.parse() == Ok(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(destination: &str, name: Option<&str>) -> bool {
        find(destination.parse().unwrap(), name).is_none()
    }

    #[test]
    fn resolvers_are_known_by_port_name_or_address() {
        assert!(!passes("203.0.113.1:853", None));
        for name in ["dns.google", "cloudflare-dns.com", "mozilla.cloudflare-dns.com"] {
            assert!(!passes("203.0.113.1:443", Some(name)), "{name}");
        }
        for address in ["1.1.1.1:443", "[::ffff:8.8.8.8]:443", "[2620:fe::fe]:443"] {
            assert!(!passes(address, Some("a.example")), "{address}");
        }
        assert!(passes("203.0.113.1:443", Some("notdns.google.example")));
        assert!(passes("203.0.113.1:443", Some("xdns.google")));
        assert!(passes("203.0.113.1:443", None));
        assert!(ADDRESSES.iter().all(|address| address.parse::<IpAddr>().is_ok()));
    }
}
