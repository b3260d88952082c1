//! Leaves: certificates for single provider hosts, made when they are first asked for, in memory only.
//!
//! All leaves of a process share one key of their own, so that the root's key signs certificates and nothing else.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::PrivateKeyDer;

use crate::clock::SharedClock;
use crate::tls::authority::{Authority, AuthorityError, BACKDATED, date, leaf_end, serial_number};

/// Life of a leaf; short, because nothing revokes one.
const LEAF_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a leaf is handed out: far less than it lives, so that none expires inside a connection.
const CACHED: Duration = Duration::from_secs(6 * 60 * 60);
/// Leaves kept; one per provider host.
const MAX_LEAVES: u64 = 1024;
/// Longest common name (RFC 5280, upper bound `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// Makes and keeps leaves.
pub struct Leaves {
    authority: Authority,
    key: KeyPair,
    signing: Arc<dyn SigningKey>,
    cache: Cache<String, Arc<CertifiedKey>>,
    clock: SharedClock,
}

impl std::fmt::Debug for Leaves {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaves")
            .field("cached", &self.cache.entry_count())
            .finish_non_exhaustive()
    }
}

impl Leaves {
    /// Leaves under these roots, with a fresh key.
    ///
    /// # Errors
    /// When no key can be made.
    pub fn new(authority: Authority, clock: SharedClock) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let signing = any_ecdsa_type(&der).or(Err(rcgen::Error::CouldNotParseKeyPair))?;
        let cache = Cache::builder()
            .max_capacity(MAX_LEAVES)
            .time_to_live(CACHED)
            .build();
        Ok(Self {
            authority,
            key,
            signing,
            cache,
            clock,
        })
    }

    /// The roots.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The leaf for `host`, made once however many ask at the same time; `None` when no root covers it.
    pub fn leaf(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.cache.optionally_get_with_by_ref(host, || {
            self.issue(host)
                .inspect_err(|error| tracing::error!(host, %error, "no certificate could be made"))
                .ok()
                .flatten()
        })
    }

    fn issue(&self, host: &str) -> Result<Option<Arc<CertifiedKey>>, AuthorityError> {
        let now = self.clock.now();
        let Some(root) = self.authority.root_for(host, now) else {
            return Ok(None);
        };
        let now = u64::try_from(now.as_second()).unwrap_or_default();
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        if host.len() <= MAX_COMMON_NAME {
            name.push(DnType::CommonName, host);
        }
        params.distinguished_name = name;
        params.serial_number = Some(serial_number());
        params.not_before = date!(now.saturating_sub(BACKDATED));
        params.not_after = date!(leaf_end(root, now, LEAF_LIFE));
        params.subject_alt_names = vec![match host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.try_into()?),
        }];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&self.key, &root.issuer)?;
        let chain = vec![certificate.der().clone()];
        Ok(Some(Arc::new(CertifiedKey::new(chain, self.signing.clone()))))
    }
}

impl ResolvesServerCert for Leaves {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.leaf(&hello.server_name()?.to_ascii_lowercase())
    }
}
