//! Any bytes as certificate files, as what is in the Secret of the CAs, and as what callers were told to
//! trust.
//!
//! Text that begins as PEM does is taken as it is: the files follow one another in the order of [`NAMES`],
//! with a line `===` between them, whether they are there or not. Any other bytes choose among real certificates and keys, and what is
//! changed about them.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use certs::{
    Authorities, Authority, Bundle, Certificate, Content, Data, FileError, Files, Name, Pair,
    PairError, Part, Policy, Problem, Published, Replica, Stored, StoredError, Validity,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::UnixTime;
use rustls::{RootCertStore, SignatureScheme};
use time::{Duration, OffsetDateTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::choices::Choices;

/// When the certificates of [`REAL`] are good, but for one that has expired. `tests/fuzz/examples/pem.rs`
/// made them.
const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::days(20_000));

/// Certificates and their keys: two CAs of the webhook, a server certificate of the first one, and
/// others' as a webhook may be given them. Two keys have a form older than PKCS #8.
const REAL: [[&str; 2]; 8] = [
    [include_str!("../../fuzz/pem/ca.crt"), include_str!("../../fuzz/pem/ca.key")],
    [include_str!("../../fuzz/pem/leaf.crt"), include_str!("../../fuzz/pem/leaf.key")],
    [include_str!("../../fuzz/pem/next.crt"), include_str!("../../fuzz/pem/next.key")],
    [include_str!("../../fuzz/pem/rsa.crt"), include_str!("../../fuzz/pem/rsa.key")],
    [include_str!("../../fuzz/pem/p384.crt"), include_str!("../../fuzz/pem/p384.key")],
    [include_str!("../../fuzz/pem/ed25519.crt"), include_str!("../../fuzz/pem/ed25519.key")],
    [include_str!("../../fuzz/pem/expired.crt"), include_str!("../../fuzz/pem/expired.key")],
    [include_str!("../../fuzz/pem/sec1.crt"), include_str!("../../fuzz/pem/sec1.key")],
];
const CA: usize = 0;
const LEAF: usize = 1;
const NEXT: usize = 2;

/// What is read: the two files, the values in the Secret, and two webhooks' `caBundle`.
const NAMES: [&str; 9] = [
    "tls.crt",
    "tls.key",
    "ca.crt",
    "ca.key",
    "next.crt",
    "next.key",
    "retired.crt",
    "bundle",
    "other",
];

/// What is read, each of it or nothing.
type Texts = [Option<Vec<u8>>; NAMES.len()];

/// Reads certificates and keys. What is accepted is a pair of which the key belongs to the certificate, or
/// a CA whose certificates clients take that trust it; what is not accepted is told by the part that is at
/// fault, and replaced where it is ours to replace.
///
/// # Panics
///
/// If anything of that does not hold.
pub fn check(data: &[u8]) {
    let ([certificate, key, secret @ .., bundle, other], now) = match data {
        [b'-' | b'=', ..] => (as_it_is(data), NOW),
        _ => {
            let mut choices = Choices::new(data);
            let now = NOW + Duration::hours(choices.pick(&[0, 23, -48, 24 * 25, 24 * 40]));
            (chosen(&mut choices), now)
        }
    };
    if let (Some(certificate), Some(key)) = (certificate, key) {
        files(&certificate, &key, now);
    }
    let names = &NAMES[2..NAMES.len() - 2];
    let values = names.iter().zip(secret);
    let secret: Data =
        values.filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect();
    let bundles: Vec<_> = [bundle, other].into_iter().flatten().collect();
    if !(secret.is_empty() && bundles.is_empty()) {
        look(secret, &bundles, now);
    }
}

fn as_it_is(text: &[u8]) -> Texts {
    let text = String::from_utf8_lossy(text);
    let mut parts = text.split("===\n").map(|part| part.as_bytes().to_vec());
    NAMES.map(|_| parts.next().filter(|part| !part.is_empty()))
}

/// Files of a certificate and a key.
fn files(certificate: &[u8], key: &[u8], now: OffsetDateTime) {
    match parse(certificate, key, now) {
        Ok(pair) => {
            assert!(!pair.validity().expired(now));
            fits(&pair);
            for doubt in pair.doubts(now) {
                check_line(&doubt.to_string());
            }
        }
        Err(error) => {
            check_line(&error.to_string());
            rightly_blamed(certificate, key, now, &error);
        }
    }
}

/// Checks that the part that is blamed is at fault whatever the other one is, and that of parts that don't
/// fit each one is good.
fn rightly_blamed(certificate: &[u8], key: &[u8], now: OffsetDateTime, error: &FileError) {
    let [good_certificate, good_key] = REAL[LEAF].map(str::as_bytes);
    let blamed = |certificate, key| {
        parse(certificate, key, NOW).err().map(|error| (error.part, is_mismatch(&error)))
    };
    let (other_key, other_certificate) =
        (blamed(certificate, good_key), blamed(good_certificate, key));
    match (error.part, &error.problem) {
        (Part::Certificate, Problem::Expired(end)) => {
            assert!(*end < now);
            fits(&parse(certificate, key, *end).expect("it was good at its end"));
        }
        (Part::Certificate, _) => {
            assert_eq!(other_key, Some((Part::Certificate, false)), "{error}");
        }
        (Part::Key, _) if is_mismatch(error) => {
            assert!(!matches!(other_certificate, Some((Part::Key, false))), "{error}");
            let fits_or_expired = [None, Some((Part::Key, true)), Some((Part::Certificate, false))];
            assert!(fits_or_expired.contains(&other_key), "{error}");
        }
        (Part::Key, _) => assert!(matches!(other_certificate, Some((Part::Key, _))), "{error}"),
    }
}

fn is_mismatch(error: &FileError) -> bool {
    matches!(error.problem, Problem::Pair(PairError::Mismatch))
}

fn parse(certificate: &[u8], key: &[u8], now: OffsetDateTime) -> Result<Pair, FileError> {
    // Files without a name: nothing is left of them, however this ends.
    let [certificate, key] = [certificate, key].map(|content| {
        let mut file = File::from(memfd_create("part", MFdFlags::empty()).expect("a file"));
        file.write_all(content).expect("memory");
        file
    });
    let path = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd()).into();
    let files = Files { certificate: path(&certificate), key: path(&key) };
    let content: Content = files.read().expect("the files are there");
    files.parse(&content, now, &default_provider())
}

/// Checks that what the key signs the certificate's key verifies.
fn fits(pair: &Pair) {
    let algorithms: [(SignatureScheme, &dyn VerificationAlgorithm); 4] = [
        (SignatureScheme::ECDSA_NISTP256_SHA256, &ECDSA_P256_SHA256_ASN1),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &ECDSA_P384_SHA384_ASN1),
        (SignatureScheme::ED25519, &ED25519),
        (SignatureScheme::RSA_PSS_SHA256, &RSA_PSS_2048_8192_SHA256),
    ];
    let certified = pair.certified_key();
    let schemes = algorithms.map(|(scheme, _)| scheme);
    let signer = certified.key.choose_scheme(&schemes).expect("a key of a kind that we know");
    let signature = signer.sign(b"message").expect("a signature");
    let known = algorithms.into_iter().find(|(scheme, _)| *scheme == signer.scheme());
    let (_, algorithm) = known.expect("it was chosen among these");
    let (_, certificate) = X509Certificate::from_der(&pair.chain()[0]).expect("X.509");
    let key = UnparsedPublicKey::new(algorithm, &certificate.public_key().subject_public_key.data);
    key.verify(b"message", &signature).expect("the key is another one");
}

/// One look of a replica at the cluster.
fn look(mut secret: Data, bundles: &[Vec<u8>], now: OffsetDateTime) {
    const ANOTHERS: &str = "another's";
    secret.insert(ANOTHERS.to_owned(), b"left alone".to_vec());
    let stored = Stored::read(&secret);
    rightly_told(&stored, &secret);
    let found = match &stored {
        Stored::Authorities(found) | Stored::Damaged(found, _) => Some((**found).clone()),
        Stored::Nothing | Stored::Broken(_) => None,
    };
    let published = Published::new(bundles.iter().map(Vec::as_slice));
    assert!(matches!(&published, Published::Bundles(all) if all.len() == bundles.len()));

    let days = Duration::days;
    let policy = Policy::new(days(30), days(3), Duration::HOUR).expect("a policy that makes sense");
    let mut replica = Replica::new(policy, names());
    let plan = replica.plan(stored, Some(&published), now).expect("a plan");
    plan.changes().iter().for_each(|change| check_line(&change.to_string()));
    if let Some(wanted) = plan.to_write() {
        wanted.write(&mut secret);
    }
    let bundle = held(&secret, now);
    assert_eq!(secret[ANOTHERS], b"left alone");
    // What signs goes on signing as long as it is good.
    if let Some(found) = found.filter(|found| !found.current().validity().expired(now)) {
        assert!(bundle.certificates().contains(found.current().certificate()));
    }

    replica.agree(plan, true);
    assert_eq!(replica.bundle().as_ref(), Some(&bundle));
    let published = published.updated(&bundle);
    assert!(published.is(&bundle));
    replica.note_published(&published, now);
    let leaf = replica.renew(now).expect("a certificate").expect("the first one is due");
    fits(&leaf.pair);
    assert!(published.carries(&leaf.issuer));
    trusted(&bundle, &leaf.pair);
}

/// What is in the Secret has to be authorities now, and nothing to complain of.
fn held(secret: &Data, now: OffsetDateTime) -> Bundle {
    let Stored::Authorities(held) = Stored::read(secret) else {
        panic!("{:?}", Stored::read(secret))
    };
    assert!(!held.ended(now));
    let mut again = secret.clone();
    held.write(&mut again);
    assert_eq!(held.bundle(), read_again(&again).bundle());
    if let Some(next) = held.next() {
        let pair = next.issue(&names(), Validity::starting(now, Duration::HOUR));
        trusted(&[next.certificate().clone()].into_iter().collect(), &pair.expect("a pair"));
    }
    held.bundle()
}

fn read_again(secret: &Data) -> Authorities {
    match Stored::read(secret) {
        Stored::Authorities(authorities) => *authorities,
        other => panic!("{other:?}"),
    }
}

fn names() -> Vec<Name> {
    vec![Name::try_from("sfunnel-webhook.sfunnel-system.svc").expect("a name")]
}

/// Checks that a client that trusts `bundle` takes the certificate, in its time.
fn trusted(bundle: &Bundle, pair: &Pair) {
    let mut roots = RootCertStore::empty();
    for certificate in bundle.certificates() {
        // A former one may be odd, and isn't asked for.
        let _ = roots.add(certificate.der().clone());
    }
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let Validity { not_before, not_after } = pair.validity();
    if not_before > not_after {
        // The CA ends before it begins.
        return;
    }
    let at = std::time::Duration::from_secs(not_after.unix_timestamp().try_into().expect("late"));
    let verified = verifier.expect("a trusted CA").verify_server_cert(
        &pair.chain()[0],
        &[],
        &names()[0],
        &[],
        UnixTime::since_unix_epoch(at),
    );
    verified.unwrap_or_else(|error| panic!("nobody takes it: {error}\n{}", bundle.pem()));
}

/// Checks that what is wrong with the Secret is told by the value that is at fault.
fn rightly_told(stored: &Stored, secret: &Data) {
    let has = |name: &str| secret.contains_key(name);
    let ours = NAMES[2..7].iter().any(|name| has(name));
    let error = match stored {
        Stored::Nothing => return assert!(!ours),
        Stored::Authorities(found) => return read_as_written(found, secret),
        Stored::Damaged(found, error) => {
            assert!(matches!(error, StoredError::Retired(_)), "{error}");
            assert!(Certificate::all_from_pem(&secret["retired.crt"]).is_err());
            read_as_written(found, secret);
            error
        }
        Stored::Broken(error) => error,
    };
    check_line(&error.to_string());
    match error {
        StoredError::Missing(name) => assert!(!has(name)),
        StoredError::Encoding(name) => assert!(std::str::from_utf8(&secret[*name]).is_err()),
        StoredError::Authority { certificate, key, .. } => {
            let text = String::from_utf8_lossy(&secret[*key]);
            assert!(Authority::from_pem(&secret[*certificate], &text).is_err());
        }
        StoredError::Retired(_) => assert!(has("retired.crt")),
    }
}

fn read_as_written(found: &Authorities, secret: &Data) {
    let first = |name: &str| Certificate::from_pem(&secret[name]).expect("it was read");
    assert_eq!(*found.current().certificate(), first("ca.crt"));
    assert_eq!(found.next().is_some(), secret.contains_key("next.crt"));
    if let Some(next) = found.next() {
        assert_eq!(*next.certificate(), first("next.crt"));
    }
}

/// One line of bearable length: for a log.
fn check_line(text: &str) {
    assert!(!text.is_empty() && text.len() <= 512, "{} bytes: {text}", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// Files, or a Secret and bundles, that are as they should be but for what is chosen to be otherwise.
fn chosen(choices: &mut Choices<'_>) -> Texts {
    let mut texts: Texts = Default::default();
    if choices.once_in(2) {
        texts[0] = Some(text(choices, LEAF, 0));
        texts[1] = Some(text(choices, LEAF, 1));
        return texts;
    }
    let usual = [(CA, 0), (CA, 1), (NEXT, 0), (NEXT, 1), (LEAF, 0), (CA, 0), (NEXT, 0)];
    for (at, (real, part)) in usual.into_iter().enumerate() {
        // A CA with its key, and seldom anything without the other.
        let there = if at < 2 { !choices.once_in(16) } else { choices.once_in(2) };
        if there {
            texts[2 + at] = Some(text(choices, real, part));
        }
    }
    texts
}

/// PEM blocks: a certificate's or a key's of [`REAL`], as `part` says, with changes.
fn text(choices: &mut Choices<'_>, usual: usize, part: usize) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..[1, 1, 1, 2, 0, 3][choices.below(6)] {
        let real = match choices.below(4) {
            0..2 => usual,
            _ => choices.below(REAL.len()),
        };
        let part = if choices.once_in(16) { 1 - part } else { part };
        text += &block(choices, REAL[real][part]);
    }
    let mut text = text.into_bytes();
    if choices.once_in(8) {
        choices.damage(&mut text);
    }
    text
}

/// One PEM block with its bytes changed, or its form.
fn block(choices: &mut Choices<'_>, pem: &str) -> String {
    if !choices.once_in(2) {
        return pem.to_owned();
    }
    let mut lines = pem.lines();
    let label = lines.next().and_then(|line| line.strip_prefix("-----BEGIN "));
    let label = label.and_then(|line| line.strip_suffix("-----")).expect("a label");
    let base64: String = lines.take_while(|line| !line.starts_with('-')).collect();
    let mut der = BASE64_STANDARD.decode(base64).expect("base64");
    for _ in 0..choices.below(4) {
        change(choices, &mut der);
    }

    let base64 = BASE64_STANDARD.encode(der);
    let width = choices.pick(&[64, 76, 1, 1 << 16]);
    let end = choices.pick(&["\n", "\r\n", " \n", "\r"]);
    let label = choices.pick(&[
        label,
        "CERTIFICATE",
        "PRIVATE KEY",
        "EC PRIVATE KEY",
        "RSA PRIVATE KEY",
        "X509 CRL",
        "",
    ]);
    let before = choices.pick(&["", "subject=CN = test\n", "\u{feff}", "-----\n", "\0"]);
    let mut text = format!("{before}-----BEGIN {label}-----{end}");
    let mut base64 = base64.as_str();
    while !base64.is_empty() {
        let (line, rest) = base64.split_at(width.min(base64.len()));
        text += line;
        text += end;
        base64 = rest;
    }
    text + &format!("-----END {label}-----{end}")
}

/// Changes a byte, or some, of a certificate or a key.
fn change(choices: &mut Choices<'_>, der: &mut Vec<u8>) {
    if der.is_empty() {
        return;
    }
    let at = choices.below(der.len());
    match choices.below(6) {
        0 => der[at] = choices.below(256) as u8,
        1 => der[at] ^= 1 << choices.below(8),
        2 => der[at] = choices.pick(&[0, 1, 2, 0x7F, 0x80, 0xFF]),
        3 => der.truncate(at),
        4 => {
            let to = (at + choices.below(16)).min(der.len());
            drop(der.drain(at..to));
        }
        _ => {
            let from = choices.below(der.len());
            let piece = der[from..(from + choices.below(64)).min(der.len())].to_vec();
            drop(der.splice(at..at, piece));
        }
    }
}
