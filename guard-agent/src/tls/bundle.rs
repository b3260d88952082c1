//! `bundle.pem`: the system's roots and Guard's, for clients whose trust setting replaces the system's store instead
//! of extending it (`SSL_CERT_FILE` in Python and others).
//!
//! Every certificate is encoded anew: text between the blocks of a system bundle breaks some readers, and a
//! certificate that does not parse is left out. Order and case of the system's store do not matter.

use std::path::Path;

use pem::{EncodeConfig, LineEnding, Pem};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::authority::{Authority, AuthorityError, write_atomically};

/// Writes the bundle, readable by all, as a whole or not at all. Returns the number of certificates in it.
///
/// # Errors
/// When the file can't be written.
pub fn write_bundle(
    path: &Path,
    system: &[CertificateDer<'static>],
    authority: &Authority,
) -> Result<usize, AuthorityError> {
    let own = authority.certificates();
    let system = system.iter().filter(|certificate| !own.contains(certificate));
    let blocks: Vec<Pem> = own
        .iter()
        .chain(system)
        .filter(|certificate| X509Certificate::from_der(certificate).is_ok())
        .map(|certificate| Pem::new("CERTIFICATE", certificate.to_vec()))
        .collect();
    let text = pem::encode_many_config(&blocks, EncodeConfig::new().set_line_ending(LineEnding::LF));
    write_atomically(path, text.as_bytes(), 0o644).map_err(|source| AuthorityError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(blocks.len())
}
