//! Certificates from files that others replace.
//!
//! The kubelet renames a folder's symbolic link when a mounted Secret changes, so a watch for writes
//! to a file notices the first change and no other. Hence the content is read again and again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use certs::{Content, FileError, Files, Pair, Part};
use rustls::crypto::ring::default_provider;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use super::clock::Clock;
use super::resolver::CertResolver;

/// From one reading to the next.
const INTERVAL: Duration = Duration::from_secs(2);

/// `--tls-cert` or `--tls-key` is unusable.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {error}")]
pub struct ReloadError {
    flag: &'static str,
    error: FileError,
}

impl From<FileError> for ReloadError {
    fn from(error: FileError) -> Self {
        let flag = match error.part {
            Part::Certificate => "--tls-cert",
            Part::Key => "--tls-key",
        };
        Self { flag, error }
    }
}

/// Files whose pair is shown.
#[derive(Debug)]
pub struct Reload {
    files: Files,
    clock: Clock,
    resolver: Arc<CertResolver>,
    seen: Seen,
}

/// What was in the files at the last reading, good or bad.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Content(Content),
    Unreadable(String),
}

impl Reload {
    /// Reads the files for the first time.
    ///
    /// # Errors
    ///
    /// The flag and the file at fault.
    pub fn new(
        files: Files,
        clock: Clock,
        resolver: Arc<CertResolver>,
    ) -> Result<Self, ReloadError> {
        let content = files.read()?;
        show(&files, &content, &clock, &resolver)?;
        Ok(Self { files, clock, resolver, seen: Seen::Content(content) })
    }

    /// Shows what the files hold, as often as they change. What is no pair changes nothing.
    pub async fn run(mut self) -> Infallible {
        loop {
            sleep(INTERVAL).await;
            self.read().await;
        }
    }

    async fn read(&mut self) {
        let files = self.files.clone();
        let read = spawn_blocking(move || files.read()).await;
        let (seen, outcome) = match read.expect("reading doesn't panic") {
            Err(error) => (Seen::Unreadable(error.to_string()), Err(error.into())),
            Ok(content) if self.seen == Seen::Content(content.clone()) => return,
            Ok(content) => {
                let outcome = show(&self.files, &content, &self.clock, &self.resolver);
                (Seen::Content(content), outcome)
            }
        };
        if let Err(error) = outcome
            && self.seen != seen
        {
            self.resolver.failed();
            warn!("{error}; the certificate of before is kept");
        }
        self.seen = seen;
    }
}

fn show(
    files: &Files,
    content: &Content,
    clock: &Clock,
    resolver: &CertResolver,
) -> Result<(), ReloadError> {
    let now = clock.now();
    let pair = files.parse(content, now, &default_provider())?;
    for doubt in pair.doubts(now) {
        warn!("--tls-cert {}: {doubt}", files.certificate.display());
    }
    resolver.show(&pair, None);
    log(&pair);
    Ok(())
}

fn log(pair: &Pair) {
    info!(serial = pair.serial(), not_after = %pair.validity().not_after, "certificate");
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    use tempfile::TempDir;
    use tracing::level_filters::LevelFilter;
    use tracing::subscriber::set_default;

    use super::*;
    use crate::log::tests::Lines;
    use crate::log::{Format, subscriber};

    /// A folder as the kubelet mounts a Secret: files are links through `..data`, which is a link to
    /// the folder of the latest version.
    struct Mounted(TempDir);

    impl Mounted {
        fn new() -> Self {
            let mounted = Self(TempDir::new().unwrap());
            mounted.update("1", &pair());
            for name in ["tls.crt", "tls.key"] {
                symlink(Path::new("..data").join(name), mounted.0.path().join(name)).unwrap();
            }
            mounted
        }

        /// What the kubelet does when the Secret changes.
        fn update(&self, version: &str, [certificate, key]: &[String; 2]) {
            let folder = self.0.path();
            let latest = folder.join(format!("..{version}"));
            std::fs::create_dir(&latest).unwrap();
            std::fs::write(latest.join("tls.crt"), certificate).unwrap();
            std::fs::write(latest.join("tls.key"), key).unwrap();
            symlink(format!("..{version}"), folder.join("..data_tmp")).unwrap();
            let former = std::fs::read_link(folder.join("..data"));
            std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
            if let Ok(former) = former {
                std::fs::remove_dir_all(folder.join(former)).unwrap();
            }
        }

        fn files(&self) -> Files {
            let path = |name| self.0.path().join(name);
            Files { certificate: path("tls.crt"), key: path("tls.key") }
        }
    }

    fn pair() -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        [params.self_signed(&key).unwrap().pem(), key.serialize_pem()]
    }

    fn is_shown(resolver: &CertResolver, [certificate, _]: &[String; 2]) -> bool {
        let expect = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        resolver.certified().unwrap().cert == [expect]
    }

    #[tokio::test(start_paused = true)]
    async fn every_change_is_noticed() {
        let mounted = Mounted::new();
        let resolver = Arc::new(CertResolver::new(Clock::system()));
        let reload = Reload::new(mounted.files(), Clock::system(), Arc::clone(&resolver)).unwrap();
        let _running = tokio::task::JoinSet::from_iter([async { match reload.run().await {} }]);
        for version in ["2", "3", "4"] {
            let pair = pair();
            mounted.update(version, &pair);
            assert!(!is_shown(&resolver, &pair));
            sleep(2 * INTERVAL).await;
            assert!(is_shown(&resolver, &pair), "version {version}");
        }
    }

    #[tokio::test]
    async fn what_is_no_pair_changes_nothing_and_is_told_once() {
        let mounted = Mounted::new();
        let lines = Lines::default();
        let _guard = set_default(subscriber(Format::Text, LevelFilter::WARN, lines.clone()));
        let resolver = Arc::new(CertResolver::new(Clock::system()));
        let files = mounted.files();
        let mut reload =
            Reload::new(files.clone(), Clock::system(), Arc::clone(&resolver)).unwrap();
        let [certificate, key] = pair();
        mounted.update("2", &[certificate.clone(), key.clone()]);
        reload.read().await;

        let told = async |reload: &mut Reload, expect: &str| {
            for _ in 0..3 {
                reload.read().await;
            }
            let told = lines.take();
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(told.contains(expect) && told.contains("is kept"), "{told}");
            assert!(is_shown(&resolver, &[certificate.clone(), key.clone()]));
        };
        let [other_certificate, other_key] = pair();
        mounted.update("3", &[other_certificate.clone(), key.clone()]);
        told(&mut reload, "tls.key: the key is not the one").await;
        mounted.update("4", &[other_certificate[..200].to_owned(), other_key.clone()]);
        told(&mut reload, "tls.crt: is not valid PEM").await;
        std::fs::remove_file(&files.key).unwrap();
        told(&mut reload, "tls.key: No such file or directory").await;

        symlink("..data/tls.key", &files.key).unwrap();
        let other = [other_certificate, other_key];
        mounted.update("5", &other);
        reload.read().await;
        assert!(is_shown(&resolver, &other));
        assert_eq!(lines.take(), "");
    }
}
