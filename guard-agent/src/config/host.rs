//! `[host]`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use toml::Spanned;

use super::read::Section;
use super::{ContainerCgroup, Host, Mode, WhenDown};

/// Where `guard-agent` looks when nothing else is said.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9477);

/// How often the canary flies.
const CANARY: Duration = Duration::from_secs(30);
/// More often it would be a load of its own, more seldom no proof.
const CANARY_SECONDS: std::ops::RangeInclusive<u64> = 1..=600;

/// Where an engine usually answers.
pub(super) const ENGINE: &str = "/var/run/docker.sock";
/// Where Docker puts containers with its two cgroup drivers.
const CONTAINER_CGROUPS: [&str; 2] = ["/docker/*", "/system.slice/docker-*.scope"];

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
        when_down: section.map_or_else(WhenDown::default, |host| when_down(host, "when_down")),
        unknown_when_down: section
            .map_or_else(WhenDown::default, |host| when_down(host, "unknown_when_down")),
        timezone: section.and_then(timezone).unwrap_or(TimeZone::UTC),
        docker: section.and_then(docker),
        canary: section.and_then(canary).unwrap_or(CANARY),
        container_cgroups: section
            .and_then(container_cgroups)
            .unwrap_or_else(|| CONTAINER_CGROUPS.iter().filter_map(|path| plain(path)).collect()),
    }
}

fn canary(host: &Section<'_, '_>) -> Option<Duration> {
    let text = host.string("canary")?;
    let seconds = text
        .get_ref()
        .strip_suffix('s')
        .and_then(|number| number.parse().ok());
    match seconds {
        Some(seconds) if CANARY_SECONDS.contains(&seconds) => Some(Duration::from_secs(seconds)),
        _ => {
            let message = format!("bad interval {:?}", text.get_ref());
            let fix = "write whole seconds from \"1s\" to \"600s\", for example \"30s\"";
            host.reader.error(&text.span(), message, fix);
            None
        }
    }
}

fn when_down(host: &Section<'_, '_>, key: &str) -> WhenDown {
    let choices = [("refuse", WhenDown::Refuse), ("direct", WhenDown::Direct)];
    host.choice(key, &choices).unwrap_or_default()
}

fn docker(host: &Section<'_, '_>) -> Option<PathBuf> {
    let text = host.string("docker")?;
    let path = text
        .get_ref()
        .strip_prefix("unix://")
        .filter(|path| path.starts_with('/'));
    if path.is_none() {
        host.reader.error(
            &text.span(),
            format!("bad socket address {:?}", text.get_ref()),
            format!("write \"unix://{ENGINE}\": an engine behind TCP is not this host's"),
        );
    }
    path.map(PathBuf::from)
}

fn container_cgroups(host: &Section<'_, '_>) -> Option<Vec<ContainerCgroup>> {
    let written = host.strings("container_cgroups")?;
    let good = written.iter().filter_map(|text| container_cgroup(host, text));
    Some(good.collect())
}

fn container_cgroup(host: &Section<'_, '_>, text: &Spanned<&str>) -> Option<ContainerCgroup> {
    host.reader.glob(text, true)?;
    let read = plain(text.get_ref());
    if read.is_none() {
        host.reader.error(
            &text.span(),
            format!("{:?} does not say where containers are", text.get_ref()),
            "write a directory below host.cgroup_root and a name, for example \"/docker/*\"",
        );
    }
    read
}

/// `/parent/name`: the parent is literal and not the root, the name may have wildcards.
fn plain(text: &str) -> Option<ContainerCgroup> {
    let (parent, name) = text.rsplit_once('/')?;
    let parts: Vec<&str> = parent.strip_prefix('/')?.split('/').collect();
    let literal =
        |part: &&str| !part.is_empty() && *part != "." && *part != ".." && !part.contains(['*', '?']);
    if !parts.iter().all(literal) || name.is_empty() || name.contains("**") {
        return None;
    }
    let glob = globset::GlobBuilder::new(name)
        .backslash_escape(false)
        .build()
        .ok()?;
    Some(ContainerCgroup {
        parent: PathBuf::from(parts.join("/")),
        name: glob.compile_matcher(),
        dedicated: name == "*",
    })
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
