//! Guard's certificate authority: the roots on disk.
//!
//! A root is an ECDSA P-256 certificate, critical `CA:TRUE, pathlen:0`, whose critical name constraints permit
//! exactly the configured provider hosts (and, as RFC 5280 §4.2.1.10 has it, names below them) and exclude every IP
//! address: a stolen key forges nothing else. Hosts that are configured later are not covered, so they get a further
//! root, `root-2.pem` and so on, which has to be installed like the first one.
//!
//! Roots live ten years: as long as a host, because replacing one means touching every trust store on it, and their
//! reach is bounded by the constraints and not by time. A root with less than a month left is replaced by a further one.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::llm::provider::subtree_of;
use crate::peek::client_hello::is_host_name;

const DAY: u64 = 24 * 60 * 60;
/// Life of a root, in seconds.
const ROOT_LIFE: u64 = 10 * 365 * DAY;
/// A root that ends sooner than this is not used for new leaves, in seconds.
const ROOT_MARGIN: i64 = 30 * 24 * 60 * 60;
/// Certificates begin an hour ago: containers and virtual machines have clocks of their own.
pub(super) const BACKDATED: u64 = 60 * 60;
/// More roots than this are a mistake (hosts that change with every start).
const MAX_ROOTS: usize = 64;

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{0}: not a root certificate of Guard's with its key; move it away to have a new one made")]
    Damaged(PathBuf),
    /// A certificate could not be made.
    #[error("making a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A host that no certificate can name.
    #[error("{0:?} is not a host name")]
    Host(String),
    /// The directory holds too many roots.
    #[error("{0}: more than {MAX_ROOTS} roots")]
    TooMany(PathBuf),
}

/// One root: its certificate, its key, and the hosts that it may name.
pub struct Root {
    pub(super) issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    hosts: BTreeSet<String>,
    ends: i64,
}

impl Root {
    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The hosts that it may name.
    pub fn hosts(&self) -> &BTreeSet<String> {
        &self.hosts
    }

    /// Whether it may name a host because that is below one of its names.
    fn covers(&self, host: &str) -> bool {
        let mut rest = host;
        while let Some((_, parent)) = rest.split_once('.') {
            if self.hosts.contains(parent) {
                return true;
            }
            rest = parent;
        }
        false
    }

    /// End of its validity, in seconds since 1970.
    pub(super) fn ends(&self) -> i64 {
        self.ends
    }
}

/// All roots of this host.
pub struct Authority {
    roots: Vec<Root>,
    created: Option<PathBuf>,
}

impl Authority {
    /// Loads the roots in `dir` (`root.pem` and `root.key`, `root-2.pem`, …) and makes a further one when they do not
    /// cover all of `hosts` at `now`. Keys are readable by the owner only.
    ///
    /// # Errors
    /// A damaged or unreadable root is an error, never replaced in silence: clients trust it.
    pub fn load_or_create(dir: &Path, hosts: &[String], now: Timestamp) -> Result<Self, AuthorityError> {
        let file_error = |path: &Path| {
            let path = path.to_owned();
            move |source| AuthorityError::File { path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)
            .map_err(file_error(dir))?;
        let mut roots = Vec::new();
        while let Some(root) = load(&certificate_path(dir, roots.len()), &key_path(dir, roots.len()))? {
            roots.push(root);
            if roots.len() > MAX_ROOTS {
                return Err(AuthorityError::TooMany(dir.to_owned()));
            }
        }
        let mut this = Self { roots, created: None };
        let missing: BTreeSet<&String> = hosts
            .iter()
            .filter(|host| this.root_for(host, now).is_none())
            .collect();
        if missing.is_empty() && !this.roots.is_empty() {
            return Ok(this);
        }
        let (certificate, key) = make_root(&missing, now)?;
        let (pem_path, key_file) = (
            certificate_path(dir, this.roots.len()),
            key_path(dir, this.roots.len()),
        );
        // The certificate comes last: a key without one is a creation that was interrupted, and is replaced.
        write_atomically(&key_file, key.as_bytes(), 0o600).map_err(file_error(&key_file))?;
        write_atomically(&pem_path, certificate.as_bytes(), 0o644).map_err(file_error(&pem_path))?;
        let root = load(&pem_path, &key_file)?.ok_or_else(|| AuthorityError::Damaged(pem_path.clone()))?;
        this.roots.push(root);
        this.created = Some(pem_path);
        Ok(this)
    }

    /// The roots, oldest first.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The root that was made just now and that clients do not trust yet, if one was.
    pub fn created(&self) -> Option<&Path> {
        self.created.as_deref()
    }

    /// The certificates of all roots: what an upstream must never be verified against.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.roots.iter().map(|root| root.certificate.clone()).collect()
    }

    /// The first root that may name `host` and does not end soon. A subtree, `*.name`, is what it permits by the name.
    pub(super) fn root_for(&self, host: &str, now: Timestamp) -> Option<&Root> {
        let host = subtree_of(host);
        let fresh = |root: &&Root| root.ends > now.as_second() + ROOT_MARGIN;
        let exact = self
            .roots
            .iter()
            .filter(fresh)
            .find(|root| root.hosts.contains(host));
        exact.or_else(|| self.roots.iter().filter(fresh).find(|root| root.covers(host)))
    }
}

fn certificate_path(dir: &Path, index: usize) -> PathBuf {
    dir.join(if index == 0 {
        "root.pem".to_owned()
    } else {
        format!("root-{}.pem", index + 1)
    })
}

fn key_path(dir: &Path, index: usize) -> PathBuf {
    certificate_path(dir, index).with_extension("key")
}

/// A random positive serial number of 126 bits (RFC 5280 §4.1.2.2: positive, at most 20 octets).
pub(super) fn serial_number() -> SerialNumber {
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x3f | 0x20;
    SerialNumber::from_slice(&serial)
}

/// `seconds` since 1970 as the type that rcgen takes, without naming the crate behind it.
macro_rules! date {
    ($seconds:expr) => {
        ::rcgen::date_time_ymd(1970, 1, 1) + ::std::time::Duration::from_secs($seconds)
    };
}
pub(super) use date;

fn make_root(hosts: &BTreeSet<&String>, now: Timestamp) -> Result<(String, String), AuthorityError> {
    // Addresses are excluded by the constraints, so a host can't be one.
    let impossible = |host: &str| !is_host_name(subtree_of(host)) || host.parse::<std::net::IpAddr>().is_ok();
    if let Some(bad) = hosts.iter().find(|host| impossible(host)) {
        return Err(AuthorityError::Host((**bad).clone()));
    }
    let now = u64::try_from(now.as_second()).unwrap_or_default();
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Guard");
    // Several roots on several hosts may meet in one trust store: their names must differ.
    name.push(
        DnType::CommonName,
        format!("Guard host CA {:08x}", rand::random::<u32>()),
    );
    params.distinguished_name = name;
    params.serial_number = Some(serial_number());
    params.not_before = date!(now.saturating_sub(BACKDATED));
    params.not_after = date!(now + ROOT_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: hosts
            .iter()
            .map(|host| GeneralSubtree::DnsName(subtree_of(host).to_owned()))
            .collect(),
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)),
        ],
    });
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// `None` when there is no such root.
fn load(pem_path: &Path, key_path: &Path) -> Result<Option<Root>, AuthorityError> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| AuthorityError::File {
            path: path.to_owned(),
            source,
        })
    };
    if !pem_path.try_exists().unwrap_or(true) {
        return Ok(None);
    }
    let pem = read(pem_path)?;
    let key = zeroize::Zeroizing::new(read(key_path)?);
    parse_root(&pem, &key)
        .map(Some)
        .ok_or_else(|| AuthorityError::Damaged(pem_path.to_owned()))
}

fn parse_root(pem: &str, key: &str) -> Option<Root> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let key = KeyPair::from_pem(key).ok()?;
    let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() || !parsed.is_ca() {
        return None;
    }
    let constraints = parsed.name_constraints().ok()??.value;
    let hosts = constraints
        .permitted_subtrees
        .iter()
        .flatten()
        .filter_map(|subtree| match subtree.base {
            GeneralName::DNSName(name) => Some(name.to_owned()),
            _ => None,
        });
    let hosts = hosts.collect();
    let ends = parsed.validity().not_after.timestamp();
    Some(Root {
        issuer: Issuer::from_ca_cert_der(&certificate, key).ok()?,
        certificate,
        hosts,
        ends,
    })
}

/// Writes a file so that it is there as a whole, durably, or not at all.
pub(super) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = path.with_extension(format!("tmp-{:08x}", rand::random::<u32>()));
    let written = (|| {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent()
            .map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    })();
    if written.is_err() {
        // The first error is the one worth telling; a left-over temporary file harms nobody.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// How long a leaf issued by `root` at `now` may live, at most `wanted`.
pub(super) fn leaf_end(root: &Root, now: u64, wanted: Duration) -> u64 {
    u64::try_from(root.ends())
        .unwrap_or_default()
        .min(now + wanted.as_secs())
}

#[cfg(test)]
pub(crate) mod tests;
