//! One entry of `egress.allow` or `egress.deny`: a host pattern, or addresses; either with a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use globset::{GlobBuilder, GlobMatcher};

/// One entry, as it is written and as it is used.
#[derive(Debug, Clone)]
pub struct Rule {
    text: String,
    what: What,
    /// Every port when there is none.
    port: Option<u16>,
}

#[derive(Debug, Clone)]
enum What {
    Host(GlobMatcher),
    Net { ip: IpAddr, prefix: u8 },
}

/// What is wrong with an entry, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub struct BadRule {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

fn bad(message: impl Into<String>, fix: impl Into<String>) -> BadRule {
    BadRule {
        message: message.into(),
        fix: fix.into(),
    }
}

const FORMS: &str = "write a host (\"*.internal\", \"git.example.com:22\") or addresses (\"10.0.0.0/8\", \"10.0.0.5:5432\", \"[fd00::]/8:443\")";

impl Rule {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`BadRule`].
    pub fn parse(text: &str) -> Result<Self, BadRule> {
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split('/').next().unwrap_or_default();
            return Err(bad(
                format!("{text:?} is a URL"),
                format!("write the host alone: \"{host}\""),
            ));
        }
        let (host, port) = split_port(text)?;
        let what = match net(text, host) {
            Some(net) => net?,
            None => What::Host(pattern(text, host)?),
        };
        Ok(Self {
            text: text.to_owned(),
            what,
            port,
        })
    }

    /// Whether it lists this address and port.
    pub fn covers_address(&self, destination: SocketAddr) -> bool {
        let What::Net { ip, prefix } = &self.what else {
            return false;
        };
        self.covers_port(destination.port()) && masked(destination.ip().to_canonical(), *prefix) == Some(*ip)
    }

    /// Whether it lists this name (in lower case) and port.
    pub fn covers_name(&self, name: &str, port: u16) -> bool {
        matches!(&self.what, What::Host(host) if host.is_match(name)) && self.covers_port(port)
    }

    fn covers_port(&self, port: u16) -> bool {
        self.port.is_none_or(|wanted| wanted == port)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Takes the port off. Without brackets, what has more than one colon is an IPv6 address.
fn split_port(text: &str) -> Result<(&str, Option<u16>), BadRule> {
    let after_bracket = text.rfind(']').map_or(0, |at| at + 1);
    let bare_v6 = after_bracket == 0 && text.matches(':').count() > 1;
    let Some((host, port)) = text
        .rsplit_once(':')
        .filter(|(host, _)| !bare_v6 && host.len() >= after_bracket)
    else {
        return Ok((text, None));
    };
    match port.parse::<u16>() {
        Ok(number) if number > 0 && !port.starts_with('+') => Ok((host, Some(number))),
        Ok(_) | Err(_) => Err(bad(
            format!("bad port {port:?} in {text:?}"),
            "write a number from 1 to 65535 after the colon, or leave the port out for every port",
        )),
    }
}

/// Addresses, if that is what it is.
fn net(text: &str, host: &str) -> Option<Result<What, BadRule>> {
    let (address, prefix) = match host.rsplit_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (host, None),
    };
    let inside = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip = inside.unwrap_or(address).parse::<IpAddr>();
    let looks_like_one = prefix.is_some() || inside.is_some() || super::super::addresses::is_address(address);
    match ip {
        Ok(ip) => Some(checked(text, ip, prefix)),
        Err(_) if looks_like_one => Some(Err(bad(format!("bad address {text:?}"), FORMS))),
        Err(_) => None,
    }
}

fn checked(text: &str, ip: IpAddr, prefix: Option<&str>) -> Result<What, BadRule> {
    if let IpAddr::V6(v6) = ip
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(bad(
            format!("{text:?} is an IPv4 address inside an IPv6 one"),
            format!("write \"{v4}\": it covers both forms"),
        ));
    }
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(written) => written
            .parse::<u8>()
            .ok()
            .filter(|prefix| *prefix <= bits && !written.starts_with('+'))
            .ok_or_else(|| {
                bad(
                    format!("bad prefix length {written:?} in {text:?}"),
                    format!("write a number from 0 to {bits} after the slash"),
                )
            })?,
    };
    match masked(ip, prefix) {
        Some(first) if first == ip => Ok(What::Net { ip, prefix }),
        Some(first) => Err(bad(
            format!("{text:?} has bits set behind its prefix"),
            format!("write \"{first}/{prefix}\" for the network, or the address alone"),
        )),
        None => Err(bad(format!("bad address {text:?}"), FORMS)),
    }
}

/// The first address of the network in which an address lies; `None` if the prefix is longer than the address.
fn masked(ip: IpAddr, prefix: u8) -> Option<IpAddr> {
    Some(match ip {
        IpAddr::V4(v4) => {
            let host_bits = 32_u32.checked_sub(u32::from(prefix))?;
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let host_bits = 128_u32.checked_sub(u32::from(prefix))?;
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    })
}

fn pattern(text: &str, host: &str) -> Result<GlobMatcher, BadRule> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.is_empty() || host.bytes().all(|b| b"*?.".contains(&b)) {
        return Err(bad(
            format!("{text:?} is every host"),
            "name a host, or set `default` to \"allow\" or \"deny\"",
        ));
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.*?".contains(&b);
    if host.len() > 253 || !host.bytes().all(fine) || host.split('.').any(str::is_empty) {
        return Err(bad(format!("bad host {text:?}"), FORMS));
    }
    GlobBuilder::new(&host)
        .backslash_escape(false)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|why| bad(format!("bad host {text:?}: {}", why.kind()), FORMS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(rule: &str, address: &str) -> bool {
        Rule::parse(rule)
            .unwrap()
            .covers_address(address.parse().unwrap())
    }

    #[test]
    fn addresses_are_compared_by_prefix_and_port() {
        for (rule, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1:22", "11.0.0.1:22"),
            ("10.0.0.0/8:5432", "10.1.2.3:5432", "10.1.2.3:5433"),
            ("192.0.2.7", "192.0.2.7:1", "192.0.2.8:1"),
            ("192.0.2.7:80", "[::ffff:192.0.2.7]:80", "192.0.2.7:81"),
            ("[fd00::]/8:443", "[fdab::1]:443", "[fdab::1]:80"),
            ("fd00::/8", "[fd12::9]:7", "[fe80::9]:7"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443", "[2001:db8::2]:443"),
            ("2001:db8::1", "[2001:db8::1]:9", "10.0.0.1:9"),
            ("0.0.0.0/0:443", "203.0.113.9:443", "[2001:db8::1]:443"),
        ] {
            assert!(covers(rule, inside), "{rule} {inside}");
            assert!(!covers(rule, outside), "{rule} {outside}");
        }
    }

    #[test]
    fn hosts_are_compared_without_case_and_a_star_covers_any_depth() {
        let rule = Rule::parse("*.Internal:8443").unwrap();
        assert!(rule.covers_name("db.internal", 8443) && rule.covers_name("a.b.internal", 8443));
        assert!(!rule.covers_name("internal", 8443) && !rule.covers_name("db.internal", 443));
        let rule = Rule::parse("git.example.com").unwrap();
        assert!(rule.covers_name("git.example.com", 22));
        assert!(!rule.covers_name("gitxexample.com", 22) && !rule.covers_name("a.git.example.com", 22));
        assert!(!rule.covers_address("203.0.113.1:22".parse().unwrap()));
    }

    #[test]
    fn each_bad_entry_is_told_what_to_write() {
        for (text, fix) in [
            ("https://example.com/x", "write the host alone: \"example.com\""),
            ("10.0.0.1/8", "write \"10.0.0.0/8\""),
            ("10.0.0.0/33", "from 0 to 32"),
            ("fd00::/129", "from 0 to 128"),
            ("10.0.0.0/8:0", "from 1 to 65535"),
            ("example.com:https", "from 1 to 65535"),
            ("10.0.0/8", "write a host"),
            ("10.0.0", "write a host"),
            ("::ffff:10.0.0.1", "write \"10.0.0.1\""),
            ("*", "`default`"),
            ("", "write a host"),
            ("exa mple.com", "write a host"),
            ("a..b", "write a host"),
            ("[example.com]:443", "write a host"),
            ("a,b", "write a host"),
        ] {
            let why = Rule::parse(text).unwrap_err();
            assert!(why.fix.contains(fix), "{text}: {why:?}");
        }
    }
}
