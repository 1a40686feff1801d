//! A cluster in memory whose replicas take turns at random, and callers who hear of everything late.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use certs::{
    Bundle, Change, Data, Name, Pair, Plan, Policy, Published, Readiness, Replica, Stored,
};
use fastrand::Rng;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use time::{Duration, OffsetDateTime};

const NAME: &str = "sfunnel-webhook.sfunnel-system.svc";

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    DeleteSecret,
    GarbleSecret,
    /// A backup is restored: the Secret as it was when it was first written.
    RestoreOldSecret,
    WipeBundle,
    DeleteConfiguration,
    ApplyConfiguration,
    /// A replica forgets everything.
    Restart(usize),
    /// Nobody reaches the API server for so many hours.
    Outage(i64),
    /// The next two writes are done, but nobody hears of it.
    LoseAnswers,
}

/// Something with a `resourceVersion`.
#[derive(Clone)]
struct Versioned<T> {
    version: u64,
    value: T,
}

/// What stands between reading and the end of a look.
enum Phase {
    Idle,
    /// The configuration was read.
    Configuration(Option<Versioned<String>>),
    /// The Secret was read, and this is to be done.
    Planned(Option<Versioned<String>>, Option<Versioned<Data>>, Box<Plan>),
    /// The Secret is settled; to be published.
    Agreed(Option<Versioned<String>>),
}

struct Member {
    replica: Replica,
    policy: Policy,
    /// How far its clock is from the callers'.
    skew: Duration,
    phase: Phase,
    /// When it looks next.
    wake: OffsetDateTime,
    /// Since when it is ready.
    ready: Option<OffsetDateTime>,
    /// The serial of the last certificate that callers accepted, and since when they had their bundle.
    accepted: Option<(String, OffsetDateTime)>,
    /// Whether a look that began after the last loss of trust has come to its end.
    looked: bool,
    began_after_loss: bool,
}

pub struct World {
    rng: Rng,
    now: OffsetDateTime,
    members: Vec<Member>,
    version: u64,
    secret: Option<Versioned<Data>>,
    first_secret: Option<Data>,
    configuration: Option<Versioned<String>>,
    /// What callers were told to trust, and since when; the latest last.
    told: VecDeque<(OffsetDateTime, Option<String>)>,
    /// How late callers hear of it.
    lag: Duration,
    /// Until when the API server is out of reach.
    outage: OffsetDateTime,
    lost_answers: u32,
    /// Until when callers are known to fail: someone took away what they trust.
    distrust: Option<OffsetDateTime>,
    pub changes: Vec<Change>,
    pub writes: usize,
    pub publications: usize,
    pub certificates: usize,
    pub calls: usize,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes: Vec<_> = self.changes.iter().map(ToString::to_string).collect();
        f.debug_struct("World").field("now", &self.now).field("changes", &changes).finish()
    }
}

const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH.saturating_add(Duration::days(20_000));

impl World {
    /// A cluster with a configuration and nothing else.
    pub fn new(seed: u64, policies: [Policy; 3]) -> Self {
        let mut rng = Rng::with_seed(seed);
        // Callers hear of everything before a new CA signs, and clocks go wrong by less than a leaf's
        // last sixth.
        let shortest = |lifetime: fn(&Policy) -> Duration| -> Duration {
            policies.iter().map(lifetime).min().unwrap()
        };
        let lag = Duration::MINUTE.min(shortest(Policy::ca_overlap) / 2);
        let skew = Duration::minutes(2).min(shortest(Policy::certificate_lifetime) / 20);
        let skew = skew.whole_milliseconds() as i64;
        let members = policies.map(|policy| Member {
            replica: Replica::new(policy, names()),
            policy,
            skew: Duration::milliseconds(rng.i64(-skew..=skew)),
            phase: Phase::Idle,
            wake: START + Duration::milliseconds(rng.i64(0..1000)),
            ready: None,
            accepted: None,
            looked: false,
            began_after_loss: false,
        });
        let mut world = Self {
            rng,
            now: START,
            members: members.into(),
            version: 0,
            secret: None,
            first_secret: None,
            configuration: None,
            told: VecDeque::from([(START, None)]),
            lag,
            outage: START,
            lost_answers: 0,
            distrust: None,
            changes: Vec::new(),
            writes: 0,
            publications: 0,
            certificates: 0,
            calls: 0,
        };
        world.configure(Some(String::new()));
        world
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            // Whoever is in the middle of a look goes on soon; others wait for their time.
            let pause = Duration::milliseconds(self.rng.i64(1..500));
            let busy: Vec<_> = (0..self.members.len())
                .filter(|index| !matches!(self.members[*index].phase, Phase::Idle))
                .collect();
            let next =
                (0..self.members.len()).min_by_key(|index| self.members[*index].wake).unwrap();
            let wake = self.members[next].wake;
            let (index, at) = match busy.is_empty() {
                false if wake > self.now + pause => {
                    (busy[self.rng.usize(..busy.len())], self.now + pause)
                }
                _ => (next, wake.max(self.now + Duration::MILLISECOND)),
            };
            // Just before something changes, things are as old as they get.
            self.call_all(at.min(end) - Duration::MILLISECOND);
            if at > end {
                self.now = end;
                return;
            }
            self.now = at;
            self.step(index);
            self.call_all(at);
        }
    }

    pub fn strike(&mut self, fault: Fault) {
        self.version += 1;
        let version = self.version;
        match fault {
            Fault::DeleteSecret => self.secret = None,
            Fault::GarbleSecret => {
                let value = Data::from([("ca.crt".to_owned(), b"garbage".to_vec())]);
                self.secret = Some(Versioned { version, value });
            }
            Fault::RestoreOldSecret => {
                self.secret = self.first_secret.clone().map(|value| Versioned { version, value });
            }
            Fault::WipeBundle if self.configuration.is_some() => {
                self.configure(Some(String::new()));
                self.lose_trust();
            }
            Fault::WipeBundle => {}
            // Nobody calls.
            Fault::DeleteConfiguration => self.configure(None),
            Fault::ApplyConfiguration => {
                self.configure(Some(String::new()));
                self.lose_trust();
            }
            Fault::Restart(index) => {
                let member = &mut self.members[index];
                member.replica = Replica::new(member.policy, names());
                member.phase = Phase::Idle;
                member.ready = None;
            }
            Fault::Outage(hours) => self.outage = self.now + Duration::hours(hours),
            Fault::LoseAnswers => self.lost_answers = 2,
        }
        if self.distrust.is_some() {
            // What was about to heal may have to begin anew.
            self.lose_trust();
        }
        self.wake_all();
    }

    /// Whether all is well.
    pub fn healthy(&self) -> bool {
        self.distrust.is_none_or(|until| until < self.now)
            && self.members.iter().all(|member| member.ready.is_some())
            && matches!(
                self.secret.as_ref().map(|secret| Stored::read(&secret.value)),
                Some(Stored::Authorities(_))
            )
    }

    fn lose_trust(&mut self) {
        // The far future: set when all have looked.
        self.distrust = Some(self.now + Duration::days(100 * 365));
        for member in &mut self.members {
            (member.looked, member.began_after_loss) = (false, false);
        }
    }

    /// A watch tells everybody, sooner or later.
    fn wake_all(&mut self) {
        for member in &mut self.members {
            let delay = Duration::milliseconds(self.rng.i64(1..1000));
            member.wake = member.wake.min(self.now + delay);
        }
    }

    fn configure(&mut self, bundle: Option<String>) {
        self.version += 1;
        let version = self.version;
        self.told.push_back((self.now, bundle.clone()));
        self.configuration = bundle.map(|value| Versioned { version, value });
        self.wake_all();
    }

    fn reachable(&self) -> bool {
        self.now >= self.outage
    }

    /// The next part of a member's look.
    fn step(&mut self, index: usize) {
        let now = self.now + self.members[index].skew;
        let phase = std::mem::replace(&mut self.members[index].phase, Phase::Idle);
        if !self.reachable() {
            return self.end_look(index, false);
        }
        let replica = &mut self.members[index].replica;
        let phase = match phase {
            Phase::Idle => {
                self.members[index].began_after_loss = true;
                Phase::Configuration(self.configuration.clone())
            }
            Phase::Configuration(configuration) => {
                let stored = self.secret.as_ref().map(|secret| Stored::read(&secret.value));
                let stored = stored.unwrap_or(Stored::Nothing);
                let published = published(&configuration);
                let plan = replica.plan(stored, Some(&published), now).unwrap();
                Phase::Planned(configuration, self.secret.clone(), Box::new(plan))
            }
            // As in a cluster, the Secret is made by one request and filled by another.
            Phase::Planned(configuration, None, plan) if plan.to_write().is_some() => {
                let made = self.create();
                let nothing = matches!(Stored::read(&made.value), Stored::Nothing);
                if !(nothing && self.answered()) {
                    let replica = &mut self.members[index].replica;
                    replica.agree(*plan, false);
                    replica.note_published(&published(&configuration), now);
                    return self.end_look(index, false);
                }
                Phase::Planned(configuration, Some(made), plan)
            }
            Phase::Planned(configuration, found, plan) => {
                let written = match plan.to_write() {
                    None => true,
                    Some(wanted) => {
                        let mut data =
                            found.as_ref().map(|found| found.value.clone()).unwrap_or_default();
                        wanted.write(&mut data);
                        let written = self.write(found, data);
                        if written {
                            self.changes.extend(plan.changes().iter().cloned());
                        }
                        written && self.answered()
                    }
                };
                let replica = &mut self.members[index].replica;
                replica.agree(*plan, written);
                replica.note_published(&published(&configuration), now);
                if !written {
                    return self.end_look(index, false);
                }
                Phase::Agreed(configuration)
            }
            Phase::Agreed(configuration) => {
                let bundle = replica.bundle().unwrap();
                let seen = published(&configuration);
                let done = seen.is(&bundle) || self.publish(&configuration, &bundle);
                if done {
                    self.members[index].replica.note_published(&seen.updated(&bundle), now);
                }
                return self.end_look(index, done);
            }
        };
        self.members[index].phase = phase;
        // It goes on when the others let it.
        self.members[index].wake = self.now + Duration::seconds(1);
    }

    /// Makes the Secret, unless it is there.
    fn create(&mut self) -> Versioned<Data> {
        if self.secret.is_none() {
            self.version += 1;
            self.secret = Some(Versioned { version: self.version, value: Data::new() });
            self.wake_all();
        }
        self.secret.clone().unwrap()
    }

    fn write(&mut self, found: Option<Versioned<Data>>, data: Data) -> bool {
        let version =
            |secret: &Option<Versioned<Data>>| secret.as_ref().map(|secret| secret.version);
        if version(&found) != version(&self.secret) {
            return false;
        }
        self.version += 1;
        self.first_secret.get_or_insert_with(|| data.clone());
        self.secret = Some(Versioned { version: self.version, value: data });
        self.writes += 1;
        self.wake_all();
        true
    }

    fn publish(&mut self, seen: &Option<Versioned<String>>, bundle: &Bundle) -> bool {
        let version = |found: &Option<Versioned<String>>| found.as_ref().map(|found| found.version);
        if version(seen) != version(&self.configuration) {
            return false;
        }
        self.configure(Some(bundle.pem()));
        self.publications += 1;
        self.answered()
    }

    fn answered(&mut self) -> bool {
        let lost = self.lost_answers > 0;
        self.lost_answers = self.lost_answers.saturating_sub(1);
        !lost
    }

    fn end_look(&mut self, index: usize, done: bool) {
        let member = &mut self.members[index];
        let now = self.now + member.skew;
        self.certificates += usize::from(member.replica.renew(now).unwrap().is_some());
        match member.replica.readiness() {
            Readiness::Until(end) if now <= end => drop(member.ready.get_or_insert(self.now)),
            _ => member.ready = None,
        }
        let retry = Duration::milliseconds(self.rng.i64(100..2000));
        member.wake = match done {
            // Some looks happen for no reason.
            true => {
                let due = member.replica.due(now).unwrap() - member.skew;
                due.clamp(
                    self.now + Duration::milliseconds(100),
                    self.now + member.policy.certificate_lifetime() / 10,
                )
            }
            false if self.now < self.outage => {
                let due = member.replica.renewal_due(now);
                let due = due.map(|due| due.saturating_sub(member.skew));
                let due = due.unwrap_or(self.outage).clamp(self.now + retry, self.outage + retry);
                due.min(self.now + Duration::hours(12))
            }
            false => self.now + retry,
        };
        if done && member.began_after_loss {
            member.looked = true;
        }
        if self.distrust.is_some() && self.members.iter().all(|member| member.looked) {
            let until = self.now + self.lag;
            self.distrust = self.distrust.map(|distrust| distrust.min(until));
        }
    }

    /// Every replica that is ready is called, by a caller who knows what everybody knew a while ago.
    fn call_all(&mut self, at: OffsetDateTime) {
        if self.distrust.is_some_and(|until| at <= until) {
            return;
        }
        self.distrust = None;
        let heard = at - self.lag;
        while self.told.get(1).is_some_and(|(since, _)| *since <= heard) {
            self.told.pop_front();
        }
        let (since, Some(bundle)) = &self.told[0] else { return };
        // Readiness takes its way through kubelet and endpoints, too.
        for member in &mut self.members {
            if member.ready.is_none_or(|ready| ready > heard) {
                continue;
            }
            let leaf = member.replica.leaf().unwrap();
            // webpki does not look at the time of a root, Go does.
            let in_time = leaf.validity().contains(at) && leaf.issuer.validity().contains(at);
            assert!(in_time, "{at}: {:?} of {:?}", leaf.validity(), leaf.issuer.validity());
            // Signatures of one certificate are verified once for one bundle.
            let question = (leaf.pair.serial().to_owned(), *since);
            if member.accepted.as_ref() != Some(&question) {
                if let Err(error) = verify(bundle, &leaf.pair, at) {
                    let changes: Vec<_> = self.changes.iter().map(ToString::to_string).collect();
                    panic!("{at}: {error}; issuer {}, {changes:#?}", leaf.issuer.serial());
                }
                member.accepted = Some(question);
            }
            self.calls += 1;
        }
    }
}

fn names() -> Vec<Name> {
    vec![Name::try_from(NAME).unwrap()]
}

fn published(configuration: &Option<Versioned<String>>) -> Published {
    match configuration {
        None => Published::Absent,
        Some(configuration) => Published::new([configuration.value.as_bytes()]),
    }
}

/// What a TLS client that trusts `bundle` says.
fn verify(bundle: &str, pair: &Pair, at: OffsetDateTime) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        at.unix_timestamp().try_into().unwrap(),
    ));
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?
        .verify_server_cert(&pair.chain()[0], &pair.chain()[1..], &names()[0], &[], at)
        .map(|_| ())
}
