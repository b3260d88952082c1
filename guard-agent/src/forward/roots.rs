//! What upstream certificates are verified against: the system's public roots and a provider's own `trust`, never
//! Guard's roots. If those were accepted, whoever stole the key could stand between Guard and a provider unseen.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::seam::settings::TrustFiles;

/// Why upstream certificates can't be verified.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The system has no usable root.
    #[error("no public root certificates were found on this system: {0}")]
    NoPublicRoots(String),
    /// A file named in `trust` is not PEM with certificates in it.
    #[error("trust file {path}: {why}")]
    Trust {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The TLS library can't be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// The system's roots without Guard's own, compared as a whole.
///
/// # Errors
/// When none is left.
pub fn public_roots(own: &[CertificateDer<'static>]) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = loaded.certs;
    roots.retain(|root| !own.contains(root));
    if roots.is_empty() {
        let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(RootsError::NoPublicRoots(errors.join("; ")));
    }
    Ok(roots)
}

/// TLS to a provider: these roots and those in its `trust` files, again without Guard's own.
///
/// # Errors
/// When a trust file can't be read or holds no certificate.
pub fn client_config(
    public: &[CertificateDer<'static>],
    trust: &[PathBuf],
    files: &TrustFiles,
    own: &[CertificateDer<'static>],
) -> Result<ClientConfig, RootsError> {
    let mut store = RootCertStore::empty();
    // Some systems carry roots that webpki does not take; one less is not an error.
    let (_added, _ignored) = store.add_parsable_certificates(public.iter().cloned());
    for path in trust {
        for certificate in read_trust(path, files)?
            .into_iter()
            .filter(|certificate| !own.contains(certificate))
        {
            store.add(certificate).map_err(|error| bad_trust(path, &error))?;
        }
    }
    Ok(
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(store)
            .with_no_client_auth(),
    )
}

fn read_trust(path: &Path, files: &TrustFiles) -> Result<Vec<CertificateDer<'static>>, RootsError> {
    let text = files.read(path).map_err(|error| bad_trust(path, &error))?;
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad_trust(path, &error))?;
    if certificates.is_empty() {
        return Err(bad_trust(path, &"it holds no certificate"));
    }
    Ok(certificates)
}

fn bad_trust(path: &Path, why: &dyn std::fmt::Display) -> RootsError {
    RootsError::Trust {
        path: path.to_owned(),
        why: why.to_string(),
    }
}
