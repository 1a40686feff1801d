//! The CAs that replicas agree on, and how they follow one another.
//!
//! ```text
//! published │ next │                current                │ retired │
//! ──────────┴──────┴───────────────────────────────────────┴─────────┴──▶ time
//!       two thirds of     it signs              two thirds of  its end
//!       the former's life                       its life
//! ```

use std::fmt;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{Authority, AuthorityError, Bundle, Certificate, Policy, Published, Validity};

/// The common name of every CA that is made here.
const COMMON_NAME: &str = "sfunnel-webhook CA";

/// The CAs that replicas agree on.
#[derive(Clone, Debug)]
pub struct Authorities {
    current: Authority,
    next: Option<Authority>,
    retired: Vec<Certificate>,
}

/// What else is known when CAs follow one another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    /// How long what lives.
    pub(crate) policy: &'a Policy,
    /// What callers were told to trust; `None` when that can't be found out.
    pub(crate) published: Option<&'a Published>,
    /// Since when they trust the next CA.
    pub(crate) next_carried_since: Option<OffsetDateTime>,
    /// The time.
    pub(crate) now: OffsetDateTime,
}

/// What is new about authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A CA from nothing.
    Made(Certificate),
    /// What was known before is put back.
    PutBack(Certificate),
    /// The CA stays, without what can't be read beside it.
    Repaired(Certificate),
    /// A CA that follows the current one.
    Next(Certificate),
    /// The next CA signs from now on.
    Promoted(Certificate),
    /// The next CA ended before its turn came.
    Missed(Certificate),
    /// A former CA is trusted until its end.
    Retired(Certificate),
    /// The end of a former CA: it is trusted no longer.
    Ended(Certificate),
}

/// For the log.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, certificate) = match self {
            Self::Made(certificate) => ("a new CA signs", certificate),
            Self::PutBack(certificate) => ("the CA is put back", certificate),
            Self::Repaired(certificate) => ("the CA stays, what is broken goes", certificate),
            Self::Next(certificate) => ("a new CA is announced", certificate),
            Self::Promoted(certificate) => ("the announced CA signs", certificate),
            Self::Missed(certificate) => ("the announced CA ended before its turn", certificate),
            Self::Retired(certificate) => ("a former CA is kept until its end", certificate),
            Self::Ended(certificate) => ("a former CA has ended", certificate),
        };
        let not_after = certificate.validity().not_after;
        write!(f, "{what}: serial {}, not after {not_after}", certificate.serial())
    }
}

impl Authorities {
    /// A CA from nothing. CAs of this kind that callers still trust are kept until their end: other
    /// replicas may show certificates of theirs.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn new(
        policy: &Policy,
        published: Option<&Published>,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        let mut made = Self { current: make(policy, now)?, next: None, retired: Vec::new() };
        made.retire_trusted(published, now);
        Ok(made)
    }

    pub(crate) fn from_parts(
        current: Authority,
        next: Option<Authority>,
        retired: Vec<Certificate>,
    ) -> Self {
        Self { current, next, retired }
    }

    /// The CA that signs.
    pub fn current(&self) -> &Authority {
        &self.current
    }

    /// The CA that will sign when callers trust it.
    pub fn next(&self) -> Option<&Authority> {
        self.next.as_ref()
    }

    /// Former CAs. Certificates that they signed may still be shown.
    pub fn retired(&self) -> &[Certificate] {
        &self.retired
    }

    /// What callers should trust, the CA that signs first. It depends on nothing but the authorities, so replicas that agree on
    /// these publish the same.
    pub fn bundle(&self) -> Bundle {
        let next = self.next.iter().map(Authority::certificate);
        let all = [self.current.certificate()].into_iter().chain(next).chain(&self.retired);
        all.cloned().collect()
    }

    /// Whether the last CA that could sign has ended.
    pub fn ended(&self, now: OffsetDateTime) -> bool {
        let ended = |authority: &Authority| authority.validity().expired(now);
        ended(&self.current) && self.next.as_ref().is_none_or(ended)
    }

    /// Has CAs of this kind that callers still trust be trusted until their end.
    pub(crate) fn retire_trusted(
        &mut self,
        published: Option<&Published>,
        now: OffsetDateTime,
    ) -> Vec<Change> {
        let known = published.into_iter().flat_map(Published::certificates);
        known
            .filter(|known| known.common_name() == COMMON_NAME)
            .filter(|known| !known.validity().expired(now))
            .filter_map(|known| self.retire(&known))
            .collect()
    }

    /// Has `certificate` trusted until its end, if it isn't trusted anyhow.
    pub(crate) fn retire(&mut self, certificate: &Certificate) -> Option<Change> {
        let known = self.bundle().certificates().contains(certificate);
        (!known).then(|| {
            self.retired.push(certificate.clone());
            Change::Retired(certificate.clone())
        })
    }

    /// Does what the time asks for: announces a CA, has it sign, lets former ones go.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub(crate) fn advance(
        &mut self,
        circumstances: &Circumstances<'_>,
    ) -> Result<Vec<Change>, AuthorityError> {
        let Circumstances { policy, now, .. } = *circumstances;
        let mut changes = Vec::new();
        if let Some(missed) = self.next.take_if(|next| next.validity().expired(now)) {
            changes.push(Change::Missed(missed.certificate().clone()));
        }
        if self.next.is_none() && now >= self.current.validity().renewal() {
            let next = make(policy, now)?;
            changes.push(Change::Next(next.certificate().clone()));
            self.next = Some(next);
        }
        if let Some(next) = self.next.take_if(|next| {
            let next = next.certificate();
            turn_has_come(next, self.current.validity(), circumstances)
        }) {
            changes.push(Change::Promoted(next.certificate().clone()));
            let former = std::mem::replace(&mut self.current, next);
            self.retired.push(former.certificate().clone());
        }
        self.retired.retain(|retired| {
            let ended = retired.validity().expired(now);
            if ended {
                changes.push(Change::Ended(retired.clone()));
            }
            !ended
        });
        Ok(changes)
    }

    /// When [`Self::advance`] may have something to do: the earliest of several moments.
    pub(crate) fn due(
        &self,
        policy: &Policy,
        next_carried_since: Option<OffsetDateTime>,
    ) -> OffsetDateTime {
        let current = self.current.validity();
        let successor = match (&self.next, next_carried_since) {
            (None, _) => current.renewal(),
            (Some(_), Some(since)) => {
                since.saturating_add(policy.ca_overlap()).min(current.urgency())
            }
            (Some(_), None) => current.over(),
        };
        let ends = self.retired.iter().map(|retired| retired.validity().over());
        ends.fold(successor, OffsetDateTime::min)
    }
}

/// Whether `next` has to sign from now on. The sooner, the fewer callers may know it; when `current` has
/// ended, there is nothing to lose.
fn turn_has_come(next: &Certificate, current: Validity, circumstances: &Circumstances<'_>) -> bool {
    let Circumstances { policy, published, next_carried_since, now } = *circumstances;
    let carried = published.is_some_and(|published| published.carries(next));
    let known = next_carried_since.is_some_and(|since| now - since >= policy.ca_overlap());
    current.expired(now) || (carried && (known || now >= current.urgency()))
}

fn make(policy: &Policy, now: OffsetDateTime) -> Result<Authority, AuthorityError> {
    Authority::new(COMMON_NAME, Validity::starting(now, policy.ca_lifetime()))
}

/// Since when callers trust which CA, as far as one replica has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Carried(Vec<(CertificateDer<'static>, OffsetDateTime)>);

impl Carried {
    /// Notes which CAs of `authorities` callers trust at `now`, and forgets about all others.
    pub(crate) fn note(
        &mut self,
        authorities: &Authorities,
        published: &Published,
        now: OffsetDateTime,
    ) {
        let bundle = authorities.bundle();
        let carried = bundle.certificates().iter().filter(|ca| published.carries(ca));
        self.0 = carried.map(|ca| (ca.der().clone(), self.since(ca).unwrap_or(now))).collect();
    }

    /// Since when `certificate` has been trusted.
    pub(crate) fn since(&self, certificate: &Certificate) -> Option<OffsetDateTime> {
        let mut entries = self.0.iter();
        entries.find(|(der, _)| der == certificate.der()).map(|(_, since)| *since)
    }
}
