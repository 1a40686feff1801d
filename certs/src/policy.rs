//! How long what lives.

use time::Duration;

/// How long what lives. A policy that exists makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    ca_lifetime: Duration,
    certificate_lifetime: Duration,
    ca_overlap: Duration,
}

/// Why lifetimes make no sense together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A CA has a successor from two thirds of its life on, which signs from five sixths on at the
    /// latest: what is to be known for longer would sign too early.
    #[error("the overlap of CAs has to be shorter than a sixth of a CA's life")]
    Overlap,
    /// A certificate doesn't outlive its CA: in the end they would be renewed all the time.
    #[error("a certificate may live half as long as a CA at the most")]
    Certificate,
}

impl Policy {
    /// Lifetimes of a CA and of a certificate, and how long a new CA is published before certificates
    /// are signed with it.
    ///
    /// # Errors
    ///
    /// When they contradict each other.
    pub fn new(
        ca_lifetime: Duration,
        certificate_lifetime: Duration,
        ca_overlap: Duration,
    ) -> Result<Self, PolicyError> {
        if ca_overlap >= ca_lifetime / 6 {
            return Err(PolicyError::Overlap);
        }
        if certificate_lifetime > ca_lifetime / 2 {
            return Err(PolicyError::Certificate);
        }
        Ok(Self { ca_lifetime, certificate_lifetime, ca_overlap })
    }

    /// From a CA's issue to its end.
    pub fn ca_lifetime(&self) -> Duration {
        self.ca_lifetime
    }

    /// From a server certificate's issue to its end.
    pub fn certificate_lifetime(&self) -> Duration {
        self.certificate_lifetime
    }

    /// From a CA's publication to the first certificate that it signs.
    pub fn ca_overlap(&self) -> Duration {
        self.ca_overlap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_to_fit() {
        let check = |ca, certificate, overlap| {
            let [ca, certificate, overlap] = [ca, certificate, overlap].map(Duration::seconds);
            Policy::new(ca, certificate, overlap).map(|_| ())
        };
        assert_eq!(check(60, 15, 5), Ok(()));
        assert_eq!(check(60, 30, 9), Ok(()));
        assert_eq!(check(60, 31, 9), Err(PolicyError::Certificate));
        assert_eq!(check(60, 30, 10), Err(PolicyError::Overlap));
    }
}
