use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{ServerName, UnixTime};

use super::*;
use crate::clock;
use crate::tls::Leaves;

pub(crate) fn authority(dir: &Path, hosts: &[&str]) -> Authority {
    let hosts: Vec<String> = hosts.iter().map(|h| (*h).to_owned()).collect();
    Authority::load_or_create(dir, &hosts, Timestamp::now()).unwrap()
}

fn verify(authority: &Authority, leaf: &CertificateDer<'_>, name: &str) -> Result<(), rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.certificate().clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier
        .verify_server_cert(leaf, &[], &name, &[], UnixTime::now())
        .map(|_| ())
}

fn openssl_text(certificate: &CertificateDer<'_>) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), certificate).unwrap();
    let out = Command::new("openssl")
        .args(["x509", "-inform", "DER", "-noout", "-text", "-in"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_leaf_is_accepted_for_its_name_only() {
    let dir = tempfile::tempdir().unwrap();
    let leaves = Leaves::new(
        authority(dir.path(), &["api.openai.com", "api.anthropic.com"]),
        clock::system(),
    )
    .unwrap();
    let leaf = leaves.leaf("api.openai.com").unwrap();
    verify(leaves.authority(), &leaf.cert[0], "api.openai.com").unwrap();
    verify(leaves.authority(), &leaf.cert[0], "api.anthropic.com").unwrap_err();
    assert!(leaves.leaf("example.com").is_none(), "no root covers it");
    assert!(
        Arc::ptr_eq(&leaf, &leaves.leaf("api.openai.com").unwrap()),
        "made once"
    );
}

#[test]
fn a_stolen_key_forges_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path(), &["api.openai.com"]);
    let key = KeyPair::generate().unwrap();
    for name in [
        "bank.example",
        "openai.com",
        "api.openai.com.evil.example",
        "127.0.0.1",
        "::1",
    ] {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let forged = params.signed_by(&key, &authority.roots()[0].issuer).unwrap();
        let error = verify(&authority, forged.der(), name).unwrap_err();
        assert!(error.to_string().contains("NameConstraint"), "{name}: {error}");
    }
}

#[test]
fn openssl_shows_the_constraints() {
    let dir = tempfile::tempdir().unwrap();
    let leaves = Leaves::new(authority(dir.path(), &["api.openai.com"]), clock::system()).unwrap();
    let root = openssl_text(leaves.authority().roots()[0].certificate());
    for expected in [
        "X509v3 Name Constraints: critical\n                Permitted:\n                  DNS:api.openai.com",
        "IP:0.0.0.0/0.0.0.0",
        "IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0",
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Subject Key Identifier",
        "prime256v1",
    ] {
        assert!(root.contains(expected), "{expected:?} is not in {root}");
    }
    let leaf = openssl_text(&leaves.leaf("api.openai.com").unwrap().cert[0]);
    for expected in [
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication",
        "X509v3 Subject Alternative Name: \n                DNS:api.openai.com",
        "X509v3 Authority Key Identifier",
        "X509v3 Subject Key Identifier",
    ] {
        assert!(leaf.contains(expected), "{expected:?} is not in {leaf}");
    }
}

#[test]
fn openssl_verifies_a_leaf_strictly() {
    let dir = tempfile::tempdir().unwrap();
    let leaves = Leaves::new(authority(dir.path(), &["api.openai.com"]), clock::system()).unwrap();
    let leaf = dir.path().join("leaf.pem");
    let der = leaves.leaf("api.openai.com").unwrap().cert[0].to_vec();
    fs::write(&leaf, pem::encode(&pem::Pem::new("CERTIFICATE", der))).unwrap();
    let out = Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-verify_hostname",
            "api.openai.com",
            "-CAfile",
        ])
        .arg(dir.path().join("root.pem"))
        .arg(&leaf)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn keys_are_private_and_roots_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    let first = authority(&ca, &["a.example"]);
    assert_eq!(first.created(), Some(ca.join("root.pem").as_path()));
    let mode = fs::metadata(ca.join("root.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = authority(&ca, &["a.example"]);
    assert_eq!(again.created(), None);
    assert_eq!(again.certificates(), first.certificates());
}

#[test]
fn hosts_added_later_get_a_further_root() {
    let dir = tempfile::tempdir().unwrap();
    let first = authority(dir.path(), &["a.example"]);
    let second = authority(dir.path(), &["a.example", "b.example"]);
    assert_eq!(second.created(), Some(dir.path().join("root-2.pem").as_path()));
    assert_eq!(second.roots()[0].certificate(), first.roots()[0].certificate());
    assert_eq!(
        second.roots()[1].hosts().iter().collect::<Vec<_>>(),
        ["b.example"]
    );
    let leaves = Leaves::new(second, clock::system()).unwrap();
    for name in ["a.example", "b.example"] {
        verify(leaves.authority(), &leaves.leaf(name).unwrap().cert[0], name).unwrap();
    }
    assert_eq!(authority(dir.path(), &["a.example", "b.example"]).created(), None);
}

#[test]
fn a_root_that_ends_soon_is_replaced_and_no_leaf_outlives_its_root() {
    let dir = tempfile::tempdir().unwrap();
    let long_ago = Timestamp::now() - jiff::SignedDuration::from_hours(24 * (365 * 10 - 32));
    Authority::load_or_create(dir.path(), &["a.example".to_owned()], long_ago).unwrap();
    let near = Timestamp::now();
    let same = Authority::load_or_create(dir.path(), &["a.example".to_owned()], near).unwrap();
    assert_eq!(same.created(), None);
    assert_eq!(
        leaf_end(&same.roots()[0], 0, Duration::from_secs(u64::MAX / 2)),
        u64::try_from(same.roots()[0].ends()).unwrap()
    );
    let later = near + jiff::SignedDuration::from_hours(24 * 3);
    let replaced = Authority::load_or_create(dir.path(), &["a.example".to_owned()], later).unwrap();
    assert_eq!(replaced.created(), Some(dir.path().join("root-2.pem").as_path()));
}

#[test]
fn a_damaged_root_is_an_error_and_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    authority(dir.path(), &["a.example"]);
    let other = tempfile::tempdir().unwrap();
    authority(other.path(), &["a.example"]);
    fs::copy(other.path().join("root.key"), dir.path().join("root.key")).unwrap();
    let result = Authority::load_or_create(dir.path(), &["a.example".to_owned()], Timestamp::now());
    assert!(matches!(result, Err(AuthorityError::Damaged(_))));
    let bad = Authority::load_or_create(other.path(), &["10.0.0.1".to_owned()], Timestamp::now());
    assert!(matches!(bad, Err(AuthorityError::Host(_))));
}

#[test]
fn the_bundle_holds_system_and_own_roots_once() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path(), &["a.example"]);
    let system = rustls_native_certs::load_native_certs().certs;
    let mut given = system.clone();
    given.push(authority.certificates()[0].clone());
    given.push(CertificateDer::from(vec![1, 2, 3]));
    let path = dir.path().join("bundle.pem");
    let count = crate::tls::write_bundle(&path, &given, &authority).unwrap();
    assert_eq!(count, system.len() + 1);
    let read: Vec<_> = CertificateDer::pem_file_iter(&path)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(read.len(), count);
    assert_eq!(read[0], authority.certificates()[0]);
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.lines().all(|l| l.starts_with("-----") || l.len() <= 64),
        "PEM and nothing else"
    );
}
