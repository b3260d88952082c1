//! `[host]`

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::tz::TimeZone;

use super::read::Section;
use super::{Host, Mode};

/// Where `guard-agent` looks when nothing else is said.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9477);

/// Reads `[host]`; without one, every value is the default.
pub(super) fn read(section: Option<&Section<'_, '_>>) -> Host {
    let path = |key: &str, default: &str| {
        section
            .and_then(|host| host.path(key))
            .unwrap_or_else(|| PathBuf::from(default))
    };
    Host {
        cgroup_root: path("cgroup_root", "/sys/fs/cgroup"),
        state_dir: path("state_dir", "/var/lib/guard"),
        runtime_dir: path("runtime_dir", "/run/guard"),
        bpffs: path("bpffs", "/sys/fs/bpf/guard"),
        metrics: section.and_then(metrics).unwrap_or(METRICS),
        mode: section
            .and_then(|host| host.choice("mode", &[("enforce", Mode::Enforce), ("observe", Mode::Observe)]))
            .unwrap_or(Mode::Enforce),
        timezone: section.and_then(timezone).unwrap_or(TimeZone::UTC),
    }
}

fn metrics(host: &Section<'_, '_>) -> Option<SocketAddr> {
    let text = host.string("metrics")?;
    let fix = format!(
        "write an address and a port, for example {:?}",
        METRICS.to_string()
    );
    match text.get_ref().parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(address),
        Ok(address) => {
            let message = format!(
                "`metrics` must be a loopback address, not {}: the figures are not for the network",
                address.ip()
            );
            host.reader.error(
                &text.span(),
                message,
                format!("write \"127.0.0.1:{}\"", address.port()),
            );
            None
        }
        Err(_not_an_address) => {
            host.reader
                .error(&text.span(), format!("bad address {:?}", text.get_ref()), fix);
            None
        }
    }
}

fn timezone(host: &Section<'_, '_>) -> Option<TimeZone> {
    let text = host.string("timezone")?;
    match TimeZone::get(text.get_ref()) {
        Ok(zone) => Some(zone),
        Err(_unknown_zone) => {
            let message = format!("this host knows no time zone {:?}", text.get_ref());
            let fix = "write an IANA name, for example \"UTC\" or \"Europe/Berlin\" (`timedatectl list-timezones` has the list)";
            host.reader.error(&text.span(), message, fix);
            None
        }
    }
}
