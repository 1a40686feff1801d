//! The form in which authorities stand in a Secret.

use std::collections::BTreeMap;

use crate::{Authorities, Authority, AuthorityError, Certificate, CertificateError};

/// The data of a Secret: names and values.
pub type Data = BTreeMap<String, Vec<u8>>;

const CURRENT_CERTIFICATE: &str = "ca.crt";
const CURRENT_KEY: &str = "ca.key";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const RETIRED: &str = "retired.crt";

/// What a Secret was found to hold.
#[derive(Debug)]
pub enum Stored {
    /// No Secret, or one without anything of ours in it.
    Nothing,
    /// Authorities.
    Authorities(Box<Authorities>),
    /// Authorities, but for former ones that can't be read. It will be overwritten.
    Damaged(Box<Authorities>, StoredError),
    /// Something else. It will be overwritten.
    Broken(StoredError),
}

/// Why a Secret holds no authorities.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// A value that has to be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A key that isn't text.
    #[error("{0} is not text")]
    Encoding(&'static str),
    /// A CA that can't be used.
    #[error("{certificate} and {key}: {error}")]
    Authority {
        /// The name of the certificate.
        certificate: &'static str,
        /// The name of the key.
        key: &'static str,
        /// What is wrong with them.
        error: AuthorityError,
    },
    /// A former CA that can't be read.
    #[error("{RETIRED}: a certificate {0}")]
    Retired(#[from] CertificateError),
}

impl Stored {
    /// Reads the data of a Secret. Names that aren't ours are ignored.
    pub fn read(data: &Data) -> Self {
        let ours = [CURRENT_CERTIFICATE, CURRENT_KEY, NEXT_CERTIFICATE, NEXT_KEY, RETIRED];
        if !ours.iter().any(|name| data.contains_key(*name)) {
            return Self::Nothing;
        }
        match decode(data) {
            Ok((authorities, None)) => Self::Authorities(Box::new(authorities)),
            Ok((authorities, Some(error))) => Self::Damaged(Box::new(authorities), error),
            Err(error) => Self::Broken(error),
        }
    }
}

impl Authorities {
    /// Puts the authorities into the data of a Secret, and leaves in it what isn't ours.
    pub fn write(&self, data: &mut Data) {
        let mut put = |name: &str, value: Option<String>| match value {
            Some(value) => drop(data.insert(name.to_owned(), value.into())),
            None => drop(data.remove(name)),
        };
        let next = self.next();
        put(CURRENT_CERTIFICATE, Some(self.current().certificate().pem()));
        put(CURRENT_KEY, Some(self.current().key_pem()));
        put(NEXT_CERTIFICATE, next.map(|next| next.certificate().pem()));
        put(NEXT_KEY, next.map(Authority::key_pem));
        let retired: String = self.retired().iter().map(Certificate::pem).collect();
        put(RETIRED, (!retired.is_empty()).then_some(retired));
    }
}

/// The authorities, and what is wrong with former ones: they don't sign, so the others are good.
fn decode(data: &Data) -> Result<(Authorities, Option<StoredError>), StoredError> {
    let current = authority(data, CURRENT_CERTIFICATE, CURRENT_KEY)?;
    let current = current.ok_or(StoredError::Missing(CURRENT_CERTIFICATE))?;
    let next = authority(data, NEXT_CERTIFICATE, NEXT_KEY)?;
    let retired = data.get(RETIRED).map(Vec::as_slice).unwrap_or_default();
    let (retired, complaint) = match Certificate::all_from_pem(retired) {
        Ok(retired) => (retired, None),
        Err(error) => (Vec::new(), Some(error.into())),
    };
    Ok((Authorities::from_parts(current, next, retired), complaint))
}

fn authority(
    data: &Data,
    certificate: &'static str,
    key: &'static str,
) -> Result<Option<Authority>, StoredError> {
    let (pem, text) = match (data.get(certificate), data.get(key)) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(StoredError::Missing(certificate)),
        (Some(_), None) => return Err(StoredError::Missing(key)),
        (Some(pem), Some(text)) => (pem, text),
    };
    let text = std::str::from_utf8(text).map_err(|_| StoredError::Encoding(key))?;
    let authority = Authority::from_pem(pem, text);
    authority.map(Some).map_err(|error| StoredError::Authority { certificate, key, error })
}

#[cfg(test)]
mod tests {
    use time::{Duration, OffsetDateTime};

    use super::*;
    use crate::{CLOCK_SKEW, Validity};

    fn authority() -> Authority {
        let validity = Validity::starting(OffsetDateTime::UNIX_EPOCH + CLOCK_SKEW, Duration::DAY);
        Authority::new("CA", validity).unwrap()
    }

    /// The data with a current, a next and two former CAs.
    fn full() -> Data {
        let retired = [authority(), authority()].map(|former| former.certificate().clone());
        let authorities = Authorities::from_parts(authority(), Some(authority()), retired.into());
        let mut data = Data::new();
        authorities.write(&mut data);
        data
    }

    #[test]
    fn what_is_written_is_read() {
        let data = full();
        let names: Vec<_> = data.keys().map(String::as_str).collect();
        assert_eq!(names, ["ca.crt", "ca.key", "next.crt", "next.key", "retired.crt"]);
        let Stored::Authorities(read) = Stored::read(&data) else { panic!("not read") };
        assert_eq!(read.bundle().certificates().len(), 4);
        assert_eq!(read.bundle().pem().as_bytes(), {
            let parts = ["ca.crt", "next.crt", "retired.crt"];
            parts.map(|name| data[name].as_slice()).concat()
        });

        // What isn't ours stays, what is there no longer goes.
        let mut data = Data::from([("theirs".to_owned(), b"theirs".to_vec())]);
        assert!(matches!(Stored::read(&data), Stored::Nothing));
        read.write(&mut data);
        let least = Authorities::from_parts(read.current().clone(), None, Vec::new());
        least.write(&mut data);
        let names: Vec<_> = data.keys().map(String::as_str).collect();
        assert_eq!(names, ["ca.crt", "ca.key", "theirs"]);
    }

    #[test]
    fn former_cas_that_are_broken_spoil_nothing_else() {
        let mut data = full();
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        data.insert("retired.crt".to_owned(), broken.to_vec());
        let Stored::Damaged(read, error) = Stored::read(&data) else { panic!("not damaged") };
        assert!(error.to_string().starts_with("retired.crt: a certificate can't be read: "));
        assert_eq!(read.current().certificate().pem().as_bytes(), data["ca.crt"]);
        assert_eq!(read.bundle().certificates().len(), 2);
    }

    #[test]
    fn what_is_broken_is_refused_as_a_whole() {
        #[track_caller]
        fn check(change: impl Fn(&mut Data), expect: &str) {
            let mut data = full();
            change(&mut data);
            let Stored::Broken(error) = Stored::read(&data) else { panic!("not broken") };
            assert!(error.to_string().starts_with(expect), "{error}");
        }
        let remove = |name: &'static str| move |data: &mut Data| drop(data.remove(name));
        check(remove("ca.crt"), "ca.crt is missing");
        check(remove("ca.key"), "ca.key is missing");
        check(remove("next.crt"), "next.crt is missing");
        check(remove("next.key"), "next.key is missing");
        let put = |name: &'static str, value: &'static [u8]| {
            move |data: &mut Data| drop(data.insert(name.to_owned(), value.to_vec()))
        };
        check(put("ca.crt", b""), "ca.crt and ca.key: the CA certificate is no PEM certificate: ");
        check(put("ca.key", b"\xff"), "ca.key is not text");
        check(put("ca.key", b"-"), "ca.crt and ca.key: the CA key is no PEM private key");
        let swap = |data: &mut Data| {
            let key = data["next.key"].clone();
            data.insert("ca.key".to_owned(), key);
        };
        check(swap, "ca.crt and ca.key: the CA key is not the one of the CA certificate");
        let both =
            |data: &mut Data| ["ca.crt", "ca.key"].iter().for_each(|name| drop(data.remove(*name)));
        check(both, "ca.crt is missing");
    }
}
