//! What is wrong with a PEM text.

use rustls::pki_types::pem;

/// What is wrong with a PEM text (RFC 7468). It quotes nothing: the text may be a key, and of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Nothing of the kind that is looked for.
    #[error("nothing of that kind is in it")]
    Nothing,
    /// A section's first line is cut off, or goes on with something else.
    #[error("a line -----BEGIN ...----- is broken")]
    Begin,
    /// A section has no last line.
    #[error("a line -----END ...----- is missing")]
    End,
    /// A section holds other than Base64.
    #[error("between its -----BEGIN and -----END is something that isn't Base64")]
    Base64,
    /// A section is larger than certificates and keys are.
    #[error("it is too large")]
    TooLarge,
    /// It could not be read to its end.
    #[error("it can't be read")]
    Read,
}

impl From<pem::Error> for PemError {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::NoItemsFound => Self::Nothing,
            pem::Error::IllegalSectionStart { .. } => Self::Begin,
            pem::Error::MissingSectionEnd { .. } => Self::End,
            pem::Error::Base64Decode(_) => Self::Base64,
            pem::Error::SectionTooLarge => Self::TooLarge,
            // Texts are in memory.
            _ => Self::Read,
        }
    }
}
