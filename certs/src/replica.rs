//! What one replica knows, and what follows from it.
//!
//! A look at the cluster goes through it once:
//!
//! 1. read the configuration, then the Secret, in this order ([`Replica::plan`] tells why);
//! 2. [`Replica::plan`]; write the Secret when the plan says so, on the condition that nobody else has;
//! 3. [`Replica::agree`] on what is in the Secret now;
//! 4. publish [`Replica::bundle`], on the condition that nobody has changed the configuration since 1;
//! 5. [`Replica::note_published`];
//! 6. [`Replica::renew`] the certificate, and look again when it is [`Replica::due`] or something
//!    changes.
//!
//! Replicas never talk to each other. Each one shows a certificate of its own, in memory, and trusts the
//! Secret more than its memory.

use time::OffsetDateTime;

use crate::authorities::{Carried, Circumstances};
use crate::{
    Authorities, AuthorityError, Bundle, Certificate, Change, Name, Pair, Policy, Published,
    Stored, StoredError, Validity,
};

/// What one replica knows.
#[derive(Debug)]
pub struct Replica {
    policy: Policy,
    names: Vec<Name>,
    /// What was in the Secret at the last look.
    authorities: Option<Authorities>,
    carried: Carried,
    leaf: Option<Leaf>,
    /// Whether callers have ever trusted the certificate that is shown.
    trusted: bool,
}

/// A server certificate and who signed it.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate and its key.
    pub pair: Pair,
    /// The CA.
    pub issuer: Certificate,
}

/// What should be in the Secret.
#[derive(Debug)]
pub struct Plan {
    found: Option<Authorities>,
    wanted: Authorities,
    changes: Vec<Change>,
    complaint: Option<StoredError>,
}

/// Whether callers can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There is no certificate yet.
    NoCertificate,
    /// Callers don't trust the certificate yet.
    NotPublished,
    /// Callers trust the certificate until its end.
    Until(OffsetDateTime),
}

impl Plan {
    /// What to write to the Secret; nothing when it is right as it is.
    pub fn to_write(&self) -> Option<&Authorities> {
        (!self.changes.is_empty()).then_some(&self.wanted)
    }

    /// What is new in it.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What was wrong with the Secret.
    pub fn complaint(&self) -> Option<&StoredError> {
        self.complaint.as_ref()
    }
}

impl Replica {
    /// A replica that knows nothing yet. Its certificates are good for `names`.
    pub fn new(policy: Policy, names: Vec<Name>) -> Self {
        let carried = Carried::default();
        Self { policy, names, authorities: None, carried, leaf: None, trusted: false }
    }

    /// What should be in the Secret, given what was found in it and in the configuration (`None` when
    /// that could not be read).
    ///
    /// The configuration has to be read first. Then what is published on its version can't be older
    /// than what the writer of that version published: it was in the Secret before.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn plan(
        &self,
        stored: Stored,
        published: Option<&Published>,
        now: OffsetDateTime,
    ) -> Result<Plan, AuthorityError> {
        let (found, complaint) = match stored {
            Stored::Nothing => (None, None),
            Stored::Authorities(found) => (Some(*found), None),
            Stored::Damaged(found, error) => (Some(*found), Some(error)),
            Stored::Broken(error) => (None, Some(error)),
        };
        let mut changes = Vec::new();
        let usable = |authorities: &&Authorities| !authorities.ended(now);
        let mut wanted =
            match (found.as_ref().filter(usable), self.authorities.as_ref().filter(usable)) {
                (Some(found), _) if complaint.is_none() => found.clone(),
                (Some(found), known) => {
                    let mut repaired = found.clone();
                    changes.push(Change::Repaired(found.current().certificate().clone()));
                    changes.extend(repaired.retire_trusted(published, now));
                    let remembered = known.into_iter().flat_map(Authorities::retired);
                    changes.extend(remembered.filter_map(|known| repaired.retire(known)));
                    repaired
                }
                (None, Some(known)) => {
                    changes.push(Change::PutBack(known.current().certificate().clone()));
                    known.clone()
                }
                (None, None) => {
                    let made = Authorities::new(&self.policy, published, now)?;
                    changes.push(Change::Made(made.current().certificate().clone()));
                    made
                }
            };
        // Others may have begun anew while this replica shows a certificate of before.
        if let Some(leaf) = &self.leaf
            && !leaf.validity().expired(now)
        {
            changes.extend(wanted.retire(&leaf.issuer));
        }
        let next_carried_since = self.next_carried_since(&wanted);
        let policy = &self.policy;
        let circumstances = Circumstances { policy, published, next_carried_since, now };
        changes.extend(wanted.advance(&circumstances)?);
        Ok(Plan { found, wanted, changes, complaint })
    }

    /// Takes over what is in the Secret now: the plan if it was written or there was nothing to write,
    /// else what was found there.
    pub fn agree(&mut self, plan: Plan, written: bool) {
        let agreed =
            if written || plan.changes.is_empty() { Some(plan.wanted) } else { plan.found };
        if let Some(agreed) = agreed {
            self.authorities = Some(agreed);
        }
    }

    /// What callers should trust, the CA that signs first, once that is known.
    pub fn bundle(&self) -> Option<Bundle> {
        self.authorities.as_ref().map(Authorities::bundle)
    }

    /// Notes what callers were told to trust.
    pub fn note_published(&mut self, published: &Published, now: OffsetDateTime) {
        if let Some(authorities) = &self.authorities {
            self.carried.note(authorities, published, now);
        }
        self.note_trust();
    }

    /// Issues a certificate if it is time for one.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn renew(&mut self, now: OffsetDateTime) -> Result<Option<&Leaf>, AuthorityError> {
        let Some(authorities) = &self.authorities else { return Ok(None) };
        if now < self.leaf_due(authorities, now) {
            return Ok(None);
        }
        let current = authorities.current();
        let validity = Validity::starting(now, self.policy.certificate_lifetime());
        let pair = current.issue(&self.names, validity)?;
        self.leaf = Some(Leaf { pair, issuer: current.certificate().clone() });
        self.note_trust();
        Ok(self.leaf.as_ref())
    }

    /// When to look again, even if nothing seems to change.
    pub fn due(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let authorities = self.authorities.as_ref()?;
        let successor = authorities.due(&self.policy, self.next_carried_since(authorities));
        Some(successor.min(self.leaf_due(authorities, now)))
    }

    /// When a certificate has to be renewed, for which nobody else is needed.
    pub fn renewal_due(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.authorities.as_ref().map(|authorities| self.leaf_due(authorities, now))
    }

    /// Whether callers can be served. Once they could be, only the certificate's end changes it:
    /// everything else heals without any help of the callers.
    pub fn readiness(&self) -> Readiness {
        match &self.leaf {
            None => Readiness::NoCertificate,
            Some(_) if !self.trusted => Readiness::NotPublished,
            Some(leaf) => Readiness::Until(leaf.validity().not_after),
        }
    }

    /// The certificate to show.
    pub fn leaf(&self) -> Option<&Leaf> {
        self.leaf.as_ref()
    }

    /// When it is time for a new certificate.
    fn leaf_due(&self, authorities: &Authorities, now: OffsetDateTime) -> OffsetDateTime {
        let Some(leaf) = &self.leaf else { return now };
        let current = authorities.current().certificate();
        if leaf.issuer == *current {
            // In its last days a CA has no longer-lived certificate to give.
            return match leaf.validity().not_after < current.validity().not_after {
                true => leaf.validity().renewal(),
                false => NEVER,
            };
        }
        // Callers have to know the other CA before they see its certificates. While they don't, those of
        // the former one are good to the last.
        match self.carried.since(current) {
            Some(since) => since
                .saturating_add(self.policy.ca_overlap())
                .max(current.validity().not_before)
                .min(leaf.validity().urgency()),
            None => leaf.validity().not_after,
        }
    }

    fn next_carried_since(&self, authorities: &Authorities) -> Option<OffsetDateTime> {
        authorities.next().and_then(|next| self.carried.since(next.certificate()))
    }

    fn note_trust(&mut self) {
        let carried = |leaf: &Leaf| self.carried.since(&leaf.issuer).is_some();
        self.trusted |= self.leaf.as_ref().is_some_and(carried);
    }
}

/// A moment that doesn't come (RFC 5280, section 4.1.2.5: 31 December 9999).
const NEVER: OffsetDateTime = time::PrimitiveDateTime::MAX.assume_utc();

impl Leaf {
    /// From when until when the certificate is good.
    pub fn validity(&self) -> Validity {
        self.pair.validity()
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::{Authority, Data};

    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::days(20_000));

    /// A replica, its Secret and its configuration.
    struct Alone {
        replica: Replica,
        secret: Option<Data>,
        published: Published,
        /// Whether the configuration can be read and changed.
        publishing: bool,
        now: OffsetDateTime,
    }

    impl Alone {
        fn new() -> Self {
            let policy =
                Policy::new(Duration::days(30), Duration::days(3), Duration::HOUR).unwrap();
            let names = vec![Name::try_from("localhost").unwrap()];
            let replica = Replica::new(policy, names);
            let published = Published::new([b"".as_slice()]);
            Self { replica, secret: None, published, publishing: true, now: START }
        }

        /// One look, some time after the one before.
        fn look_after(&mut self, duration: Duration) -> Vec<Change> {
            self.now += duration;
            let stored = self.secret.as_ref().map_or(Stored::Nothing, Stored::read);
            let published = self.publishing.then_some(&self.published);
            let plan = self.replica.plan(stored, published, self.now).unwrap();
            let changes = plan.changes().to_vec();
            if let Some(wanted) = plan.to_write() {
                wanted.write(self.secret.get_or_insert_default());
            }
            self.replica.agree(plan, true);
            if self.publishing {
                self.published = self.published.updated(&self.replica.bundle().unwrap());
                self.replica.note_published(&self.published, self.now);
            }
            self.replica.renew(self.now).unwrap();
            changes
        }

        fn issuer(&self) -> &Certificate {
            &self.replica.leaf().unwrap().issuer
        }
    }

    #[test]
    fn readiness_begins_with_publication_and_ends_with_the_certificate() {
        let mut alone = Alone::new();
        assert_eq!(alone.replica.readiness(), Readiness::NoCertificate);
        alone.publishing = false;
        alone.look_after(Duration::ZERO);
        assert_eq!(alone.replica.readiness(), Readiness::NotPublished);
        alone.publishing = true;
        alone.look_after(Duration::SECOND);
        let end = START + Duration::days(3);
        assert_eq!(alone.replica.readiness(), Readiness::Until(end));

        // Whoever is cut off from the cluster renews nevertheless.
        alone.now = START + Duration::days(2) - Duration::SECOND;
        assert!(alone.replica.renew(alone.now).unwrap().is_none());
        alone.now += Duration::SECOND;
        assert!(alone.replica.renew(alone.now).unwrap().is_some());
        assert_eq!(alone.replica.readiness(), Readiness::Until(end + Duration::days(2)));
    }

    #[test]
    fn a_ca_that_was_not_published_signs_when_there_is_no_other() {
        let mut alone = Alone::new();
        alone.look_after(Duration::ZERO);
        let first = alone.issuer().clone();
        alone.publishing = false;
        let changes = alone.look_after(Duration::days(20));
        assert!(matches!(changes[..], [Change::Next(_)]));
        // The last moment of the first CA.
        assert_eq!(alone.look_after(Duration::days(10)), []);
        assert_eq!(*alone.issuer(), first);
        assert_eq!(alone.replica.readiness(), Readiness::Until(START + Duration::days(30)));
        let changes = alone.look_after(Duration::SECOND);
        assert!(matches!(changes[..], [Change::Promoted(_), Change::Ended(_)]));
        assert_ne!(*alone.issuer(), first);
    }

    #[test]
    fn a_late_ca_signs_as_soon_as_it_is_published() {
        let mut alone = Alone::new();
        alone.look_after(Duration::ZERO);
        alone.publishing = false;
        alone.look_after(Duration::days(25));
        alone.publishing = true;
        assert_eq!(alone.look_after(Duration::SECOND), []);
        let changes = alone.look_after(Duration::SECOND);
        assert!(matches!(changes[..], [Change::Promoted(_)]));
    }

    #[test]
    fn a_ca_that_is_published_shortly_before_it_is_late_is_due_in_time() {
        let mut alone = Alone::new();
        alone.look_after(Duration::ZERO);
        alone.publishing = false;
        alone.look_after(Duration::days(20));
        alone.publishing = true;
        assert_eq!(alone.look_after(Duration::days(5) - Duration::MINUTE), []);
        // In a minute it is late. The overlap would end in an hour.
        assert_eq!(alone.replica.due(alone.now), Some(alone.now + Duration::MINUTE));
        assert!(matches!(alone.look_after(Duration::MINUTE)[..], [Change::Promoted(_)]));
    }

    #[test]
    fn former_cas_that_cant_be_read_are_taken_from_what_is_published() {
        let mut alone = Alone::new();
        alone.look_after(Duration::ZERO);
        alone.look_after(Duration::days(20));
        alone.look_after(Duration::HOUR);
        let bundle = alone.replica.bundle().unwrap();
        assert_eq!(bundle.certificates().len(), 2);
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let secret = alone.secret.as_mut().unwrap();
        let good = secret.insert("retired.crt".to_owned(), broken.to_vec()).unwrap();
        // Nobody remembers.
        alone.replica = Replica::new(alone.replica.policy, alone.replica.names.clone());
        let changes = alone.look_after(Duration::SECOND);
        assert!(matches!(changes[..], [Change::Repaired(_), Change::Retired(_)]), "{changes:?}");
        assert_eq!(alone.replica.bundle().unwrap(), bundle);
        assert_eq!(alone.secret.as_ref().unwrap()["retired.crt"], good);
        assert_eq!(alone.look_after(Duration::SECOND), []);
    }

    #[test]
    fn the_announced_ca_signs_after_the_overlap_and_not_before() {
        let mut alone = Alone::new();
        alone.look_after(Duration::ZERO);
        assert!(matches!(alone.look_after(Duration::days(20))[..], [Change::Next(_)]));
        assert_eq!(alone.replica.due(alone.now), Some(alone.now + Duration::HOUR));
        let former = alone.issuer().clone();
        assert_eq!(alone.look_after(Duration::HOUR - Duration::SECOND), []);
        assert_eq!(*alone.issuer(), former);
        assert!(matches!(alone.look_after(Duration::SECOND)[..], [Change::Promoted(_)]));
        assert_ne!(*alone.issuer(), former);
        assert_eq!(alone.replica.bundle().unwrap().certificates().len(), 2);
        assert_eq!(alone.look_after(Duration::days(10) - Duration::HOUR), []);
        let changes = alone.look_after(Duration::SECOND);
        assert_eq!(changes, [Change::Ended(former)]);
    }

    /// The configuration can't be read or changed, the Secret can.
    #[test]
    fn a_certificate_of_an_unknown_ca_waits_for_the_end_of_the_known_ones() {
        let mut alone = Alone::new();
        alone.look_after(Duration::ZERO);
        let known = alone.issuer().clone();
        alone.publishing = false;
        let mut data = Data::new();
        let policy = alone.replica.policy;
        Authorities::new(&policy, None, alone.now).unwrap().write(&mut data);
        alone.secret = Some(data);
        // The certificate's last moment.
        alone.look_after(Duration::days(3) - Duration::SECOND);
        assert_eq!(*alone.issuer(), known);
        assert_eq!(alone.replica.renewal_due(alone.now), Some(alone.now + Duration::SECOND));
        alone.look_after(Duration::SECOND);
        assert_ne!(*alone.issuer(), known);
    }

    #[test]
    fn a_known_ca_that_replaces_another_signs_after_the_overlap() {
        let mut alone = Alone::new();
        alone.look_after(Duration::ZERO);
        let known = alone.issuer().clone();
        let mut data = Data::new();
        let policy = alone.replica.policy;
        Authorities::new(&policy, None, alone.now).unwrap().write(&mut data);
        alone.secret = Some(data);
        alone.look_after(Duration::SECOND);
        alone.look_after(Duration::HOUR - Duration::SECOND);
        assert_eq!(*alone.issuer(), known);
        alone.look_after(Duration::SECOND);
        assert_ne!(*alone.issuer(), known);
    }

    /// Such as someone's own CA that is put into the Secret, without an end.
    #[test]
    fn a_ca_may_end_with_the_calendar() {
        let unending = || {
            let validity = Validity { not_before: START, not_after: NEVER };
            Authority::new("CA", validity).unwrap()
        };
        let mut alone = Alone::new();
        let retired = vec![unending().certificate().clone()];
        let mut data = Data::new();
        Authorities::from_parts(unending(), Some(unending()), retired).write(&mut data);
        alone.secret = Some(data);
        alone.publishing = false;
        alone.look_after(Duration::ZERO);
        let due = alone.replica.due(alone.now);
        assert_eq!(due, Some(START + Duration::days(2)), "that of the certificate");
        assert_eq!(alone.replica.authorities.as_ref().unwrap().retired().len(), 1);
    }

    #[test]
    fn a_cluster_that_slept_for_years_begins_anew() {
        let mut alone = Alone::new();
        alone.look_after(Duration::ZERO);
        let former = alone.issuer().clone();
        let changes = alone.look_after(Duration::days(1000));
        assert!(matches!(changes[..], [Change::Made(_)]), "{changes:?}");
        assert_ne!(*alone.issuer(), former);
        assert_eq!(alone.replica.bundle().unwrap().certificates().len(), 1);
    }
}
