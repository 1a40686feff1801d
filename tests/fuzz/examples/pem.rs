//! Makes the certificates and keys that the fuzz target `certificates` changes, into `pem/`.
//!
//! They are made once and kept, so that an input means the same tomorrow:
//! `cargo run --manifest-path tests/fuzz/Cargo.toml --example pem`. What has been found with them before is
//! of no use afterwards. `rcgen` has no RSA keys of its own and knows one form of a key; `openssl` makes the
//! rest.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use certs::{Authority, Validity};
use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::days(20_000));

fn main() {
    let validity = Validity::starting(NOW - Duration::DAY, Duration::days(31));
    for name in ["ca", "next"] {
        let authority = Authority::new("sfunnel-webhook CA", validity).expect("a CA");
        write(name, &authority.certificate().pem(), &authority.key_pem());
    }
    // Not by `Authority::issue`: a pair keeps its key to itself.
    let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.crt"), key_of("ca")).expect("an issuer");
    let key = KeyPair::generate().expect("a key");
    let leaf = params(30).signed_by(&key, &issuer).expect("a certificate");
    write("leaf", &leaf.pem(), &key.serialize_pem());

    let generate = |algorithm| KeyPair::generate_for(algorithm).expect("a key");
    let self_signed = |name, days, key: &KeyPair| {
        write(name, &params(days).self_signed(key).expect("signed").pem(), &key.serialize_pem());
    };
    self_signed("p384", 30, &generate(&rcgen::PKCS_ECDSA_P384_SHA384));
    self_signed("ed25519", 30, &generate(&rcgen::PKCS_ED25519));
    self_signed("expired", 0, &generate(&rcgen::PKCS_ECDSA_P256_SHA256));
    let rsa = openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    self_signed("rsa", 30, &KeyPair::from_pem(&rsa).expect("a key of openssl"));

    older_form("rsa.key", &["rsa", "-traditional"]);
    self_signed("sec1", 30, &generate(&rcgen::PKCS_ECDSA_P256_SHA256));
    older_form("sec1.key", &["ec"]);
}

/// Has a key written in the form that its kind had before PKCS #8.
fn older_form(name: &str, command: &[&str]) {
    let path = path(name);
    let key = openssl(&[command, &["-in", path.to_str().expect("a plain path")]].concat());
    std::fs::write(path, key).expect("a file");
}

fn params(days: i64) -> CertificateParams {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).expect("names");
    params.not_before = NOW - Duration::days(2);
    params.not_after = NOW + Duration::days(days) - Duration::HOUR;
    params
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pem").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).expect("a file")
}

fn key_of(name: &str) -> KeyPair {
    KeyPair::from_pem(&read(&format!("{name}.key"))).expect("a key")
}

fn write(name: &str, certificate: &str, key: &str) {
    std::fs::write(path(&format!("{name}.crt")), certificate).expect("a file");
    std::fs::write(path(&format!("{name}.key")), key).expect("a file");
}

/// What openssl prints. What it says beside is left out, unless it fails.
fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output();
    let output = output.expect("openssl is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("PEM")
}
