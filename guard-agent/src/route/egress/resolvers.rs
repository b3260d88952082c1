//! Public resolvers over HTTPS and TLS: a name that is looked up there is seen by nobody here, and neither are the ECH
//! keys that come with it. Listing one in `egress.allow` lets it pass.

use std::net::{IpAddr, SocketAddr};

/// The port of DNS over TLS and QUIC, whoever answers there.
const DOT: u16 = 853;

/// Names, and everything below them.
const NAMES: [&str; 31] = [
    "adguard-dns.com",
    "appliedprivacy.net",
    "chrome.cloudflare-dns.com",
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
    "dns.quad9.net",
    "dns.sb",
    "dns.switch.ch",
    "dns10.quad9.net",
    "dns11.quad9.net",
    "dns0.eu",
    "dns9.quad9.net",
    "dns64.dns.google",
    "doh.cleanbrowsing.org",
    "doh.dns.apple.com",
    "doh.opendns.com",
    "doh.pub",
    "doh.umbrella.com",
    "mozilla.cloudflare-dns.com",
    "one.one.one.one",
    "security.cloudflare-dns.com",
];

/// Addresses, where they answer HTTPS without a name.
const ADDRESSES: [&str; 24] = [
    "1.1.1.1",
    "1.0.0.1",
    "1.1.1.2",
    "1.0.0.2",
    "1.1.1.3",
    "1.0.0.3",
    "8.8.8.8",
    "8.8.4.4",
    "9.9.9.9",
    "149.112.112.112",
    "9.9.9.10",
    "9.9.9.11",
    "94.140.14.14",
    "94.140.15.15",
    "208.67.222.222",
    "208.67.220.220",
    "223.5.5.5",
    "223.6.6.6",
    "2606:4700:4700::1111",
    "2606:4700:4700::1001",
    "2001:4860:4860::8888",
    "2001:4860:4860::8844",
    "2620:fe::fe",
    "2620:fe::9",
];

/// What of a destination and its (lower-case) name is a resolver's.
pub(super) fn find(destination: SocketAddr, name: Option<&str>) -> Option<String> {
    let below = |name: &str, known: &str| {
        name.strip_suffix(known)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if let Some(name) = name
        && NAMES.iter().any(|known| below(name, known))
    {
        return Some(name.to_owned());
    }
    let ip = destination.ip().to_canonical();
    let known = || {
        ADDRESSES
            .iter()
            .any(|known| known.parse::<IpAddr>().is_ok_and(|known| known == ip))
    };
    (destination.port() == DOT || (destination.port() == 443 && known())).then(|| destination.to_string())
}
