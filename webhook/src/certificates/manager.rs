//! Certificates that replicas manage themselves: the loop around [`certs::Replica`], which decides.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use certs::{AuthorityError, Bundle, Certificate, Name, Plan, Policy, Published, Replica};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use super::backoff::{Backoff, jittered};
use super::clock::Clock;
use super::cluster::{
    Cluster, ClusterError, Configuration, Kind, Operation, SecretData, decisive, published,
};
use super::resolver::CertResolver;

/// From one look to the next when nothing happens: a watch may be deaf.
const INTERVAL: Duration = Duration::from_secs(30);
/// From one look to the next, at the least: who writes much doesn't keep us busy.
const PAUSE: Duration = Duration::from_millis(100);

/// What keeps the certificate of one replica.
#[derive(Debug)]
pub struct Manager<C> {
    cluster: Arc<C>,
    clock: Clock,
    resolver: Arc<CertResolver>,
    replica: Replica,
    /// Whether the configuration was there at the last look.
    configured: Option<bool>,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("making a certificate: {0}")]
    Authority(#[from] AuthorityError),
}

impl LookError {
    /// A conflict is no failure: another replica was faster, and what it did is looked at next.
    fn report(&self, resolver: &CertResolver) {
        match self {
            Self::Cluster(ClusterError::Conflict(_)) => return debug!("{self}"),
            Self::Cluster(_) => warn!("{self}"),
            Self::Authority(_) => error!("{self}"),
        }
        resolver.failed();
    }
}

impl<C: Cluster> Manager<C> {
    /// A replica whose certificates are good for `names`.
    pub fn new(
        cluster: C,
        policy: Policy,
        names: Vec<Name>,
        clock: Clock,
        resolver: Arc<CertResolver>,
    ) -> Self {
        let replica = Replica::new(policy, names);
        Self { cluster: Arc::new(cluster), clock, resolver, replica, configured: None }
    }

    /// Looks at the cluster whenever it has `changed` or it is time to, and does what is to be done.
    pub async fn run(mut self, changed: Arc<Notify>) -> Infallible {
        let mut backoff = Backoff::default();
        loop {
            let delay = match self.look().await {
                Ok(()) => {
                    backoff.reset();
                    self.until(self.replica.due(self.clock.now())).min(jittered(INTERVAL))
                }
                // Another attempt to make a certificate would fail as well.
                Err(error @ LookError::Authority(_)) => {
                    error.report(&self.resolver);
                    backoff.delay()
                }
                Err(error) => {
                    error.report(&self.resolver);
                    // A certificate can be renewed without the cluster.
                    self.until(self.replica.renewal_due(self.clock.now())).min(backoff.delay())
                }
            };
            sleep(PAUSE).await;
            // Woken or not, it is time.
            let _ = timeout(delay, changed.notified()).await;
        }
    }

    fn until(&self, moment: Option<time::OffsetDateTime>) -> Duration {
        let delay = moment.map(|moment| moment - self.clock.now());
        // What was due before now is due now.
        delay.map_or(INTERVAL, |delay| Duration::try_from(delay).unwrap_or_default())
    }

    /// One look. The replica's documentation has its order, and why.
    async fn look(&mut self) -> Result<(), LookError> {
        let outcome = self.agree_and_publish().await;
        // Whatever went wrong, the certificate that is shown doesn't have to end.
        self.renew()?;
        outcome
    }

    async fn agree_and_publish(&mut self) -> Result<(), LookError> {
        let cluster = Arc::clone(&self.cluster);
        let configurations = self.renewing(cluster.configurations()).await;
        let known = configurations.as_ref().ok().map(|all| published(all));
        // A bundle that someone wiped comes back even when the Secret can't be read, and a CA is made even
        // when it can't be published.
        let agreed = self.agree(known.as_ref()).await;
        let configurations = match (configurations, &agreed) {
            (Ok(configurations), _) => configurations,
            (Err(error), agreed) => {
                agreed.as_ref().err().into_iter().for_each(|also| also.report(&self.resolver));
                return Err(error.into());
            }
        };
        self.log_configured(configurations.iter().any(|one| one.kind == Kind::Mutating));
        self.replica.note_published(&published(&configurations), self.clock.now());
        let outcome = self.publish(&configurations, agreed.is_ok()).await;
        agreed.and(outcome)
    }

    /// Publishes in each configuration what it lacks. That one can't be written doesn't keep the other
    /// from it.
    async fn publish(
        &mut self,
        configurations: &[Configuration],
        agreed: bool,
    ) -> Result<(), LookError> {
        let cluster = Arc::clone(&self.cluster);
        let decisive = decisive(configurations).map(|one| one.kind);
        let mut outcome = Ok(());
        for configuration in configurations {
            let published = configuration.published();
            let wanted = match agreed {
                true => self.replica.bundle().filter(|bundle| !published.is(bundle)),
                false => self.least(&published),
            };
            let Some(bundle) = wanted else { continue };
            if let Err(error) = self.renewing(cluster.publish(configuration, &bundle)).await {
                outcome = Err(error.into());
                continue;
            }
            let serials: Vec<_> = bundle.certificates().iter().map(Certificate::serial).collect();
            info!(cas = serials.join(" "), to = configuration.kind.name(), "published");
            if Some(configuration.kind) == decisive {
                self.replica.note_published(&published.updated(&bundle), self.clock.now());
            }
        }
        outcome
    }

    /// Without knowing what is in the Secret now, it is only seen to that calls succeed: others may have
    /// published something newer, so nothing is taken away. Nothing to do is `None`.
    fn least(&self, published: &Published) -> Option<Bundle> {
        let issuer = &self.replica.leaf()?.issuer;
        if issuer.validity().expired(self.clock.now()) || published.carries(issuer) {
            return None;
        }
        Some([issuer.clone()].into_iter().chain(published.certificates()).collect())
    }

    /// Makes the Secret what it should be.
    async fn agree(&mut self, published: Option<&Published>) -> Result<(), LookError> {
        let cluster = Arc::clone(&self.cluster);
        let found = self.renewing(cluster.secret()).await?;
        let stored = match &found {
            None => certs::Stored::Nothing,
            Some(found) => certs::Stored::read(&found.data),
        };
        let plan = self.replica.plan(stored, published, self.clock.now())?;
        if let Some(complaint) = plan.complaint() {
            warn!("the Secret can't be used as it is and is overwritten: {complaint}");
        }
        let written = self.write(found, &plan).await;
        self.replica.agree(plan, written.is_ok());
        written
    }

    async fn write(&mut self, found: Option<SecretData>, plan: &Plan) -> Result<(), LookError> {
        let Some(wanted) = plan.to_write() else { return Ok(()) };
        let cluster = Arc::clone(&self.cluster);
        let found = match found {
            Some(found) => found,
            None => {
                let made = self.renewing(cluster.create_secret()).await?;
                // The plan is for a Secret with nothing in it. Meanwhile another replica may have made it
                // and written its CA, which must not be lost.
                if !matches!(certs::Stored::read(&made.data), certs::Stored::Nothing) {
                    let operation = Operation { what: "creating", object: "the Secret".to_owned() };
                    return Err(ClusterError::Conflict(operation).into());
                }
                made
            }
        };
        let mut data = found.data.clone();
        wanted.write(&mut data);
        self.renewing(cluster.write_secret(&found, &data)).await?;
        for change in plan.changes() {
            info!("{change}");
        }
        Ok(())
    }

    /// Waits for `request`. However long that takes, the certificate that is shown is renewed in time.
    async fn renewing<T>(&mut self, request: impl Future<Output = T>) -> T {
        let mut request = pin!(request);
        loop {
            let due = self.until(self.replica.renewal_due(self.clock.now()));
            match timeout(due.max(PAUSE), &mut request).await {
                Ok(answer) => return answer,
                Err(_) => {
                    if let Err(error) = self.renew() {
                        error.report(&self.resolver);
                        return request.await;
                    }
                }
            }
        }
    }

    fn renew(&mut self) -> Result<(), LookError> {
        if let Some(leaf) = self.replica.renew(self.clock.now())? {
            let not_after = leaf.validity().not_after;
            info!(serial = leaf.pair.serial(), %not_after, ca = leaf.issuer.serial(), "certificate");
        }
        let leaf = self.replica.leaf();
        let ca = leaf.map(|leaf| leaf.issuer.validity());
        self.resolver.set(leaf.map(|leaf| &leaf.pair), ca, self.replica.readiness());
        Ok(())
    }

    fn log_configured(&mut self, configured: bool) {
        if self.configured.replace(configured) != Some(configured) {
            match configured {
                true => debug!("the webhook configuration is there"),
                false => info!(
                    "there is no MutatingWebhookConfiguration (--webhook-configuration): pods are not injected"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use certs::{Authorities, Authority, Data, Validity};
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier;
    use rustls::crypto::ring::default_provider;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, UnixTime};
    use time::OffsetDateTime;
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;
    use crate::certificates::resolver::Unready;

    const START: OffsetDateTime =
        OffsetDateTime::UNIX_EPOCH.saturating_add(time::Duration::days(20_000));

    /// Two objects in memory. Every request takes a while, in which others are served.
    #[derive(Clone, Default)]
    struct Fake(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        version: u64,
        secret: Option<SecretData>,
        configuration: Option<Configuration>,
        watchers: Vec<Arc<Notify>>,
        /// It answers no more.
        down: bool,
        /// The Secret can't be read.
        forbidden: bool,
        /// What someone else writes to the Secret just before it is created.
        faster: Option<Data>,
        requests: usize,
        writes: usize,
        publications: usize,
        conflicts: usize,
        /// What API servers go by: they hear of a configuration half a second late.
        told: Vec<(Instant, Option<Configuration>)>,
    }

    impl State {
        fn set_secret(&mut self, data: Option<Data>) {
            self.version += 1;
            let version = self.version.to_string();
            self.secret = data.map(|data| SecretData { version, data });
            self.wake();
        }

        fn set_configuration(&mut self, bundles: Option<Vec<Vec<u8>>>) {
            self.version += 1;
            let version = self.version.to_string();
            self.configuration =
                bundles.map(|bundles| Configuration { kind: Kind::Mutating, version, bundles });
            self.told.push((Instant::now(), self.configuration.clone()));
            self.wake();
        }

        fn wake(&self) {
            self.watchers.iter().for_each(|watcher| watcher.notify_one());
        }
    }

    impl Fake {
        /// A cluster with a configuration of two webhooks.
        fn new() -> Self {
            let fake = Self::default();
            fake.state(|state| state.set_configuration(Some(vec![Vec::new(); 2])));
            fake
        }

        fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
            change(&mut self.0.lock().unwrap())
        }

        async fn request<T>(
            &self,
            answer: impl FnOnce(&mut State) -> Result<T, ClusterError>,
        ) -> Result<T, ClusterError> {
            let way = || sleep(Duration::from_millis(fastrand::u64(1..20)));
            way().await;
            self.state(|state| state.requests += 1);
            if self.state(|state| state.down) {
                sleep(Duration::from_secs(10)).await;
                let problem = "no answer".to_owned();
                return Err(ClusterError::Failed { operation: operation(), problem });
            }
            let answer = self.state(answer);
            way().await;
            answer
        }

        /// Starts a replica.
        fn start(&self, clock: &Clock, watching: bool) -> Started {
            let names = vec![Name::try_from("sfunnel-webhook.sfunnel-system.svc").unwrap()];
            self.start_for(names, clock, watching)
        }

        fn start_for(&self, names: Vec<Name>, clock: &Clock, watching: bool) -> Started {
            let resolver = Arc::new(CertResolver::new(clock.clone()));
            let manager =
                Manager::new(self.clone(), policy(), names, clock.clone(), Arc::clone(&resolver));
            let changed = Arc::new(Notify::new());
            if watching {
                self.state(|state| state.watchers.push(Arc::clone(&changed)));
            }
            let mut task = JoinSet::new();
            task.spawn(async { match manager.run(changed).await {} });
            Started { resolver, _task: task }
        }

        /// What callers trust now; `None` when nobody calls.
        fn trusted(&self) -> Option<Vec<Vec<u8>>> {
            let heard = Instant::now() - Duration::from_millis(500);
            self.state(|state| {
                let known = state.told.iter().rev().find(|(since, _)| *since <= heard);
                let known = known.and_then(|(_, configuration)| configuration.as_ref());
                known.map(|configuration| configuration.bundles.clone())
            })
        }
    }

    impl Cluster for Fake {
        async fn configurations(&self) -> Result<Vec<Configuration>, ClusterError> {
            self.request(|state| Ok(state.configuration.iter().cloned().collect())).await
        }

        async fn publish(
            &self,
            configuration: &Configuration,
            bundle: &Bundle,
        ) -> Result<(), ClusterError> {
            self.request(|state| {
                if state.configuration.as_ref() != Some(configuration) {
                    state.conflicts += 1;
                    return Err(ClusterError::Conflict(operation()));
                }
                state.publications += 1;
                let bundles = configuration.bundles.iter().map(|_| bundle.pem().into_bytes());
                state.set_configuration(Some(bundles.collect()));
                Ok(())
            })
            .await
        }

        async fn secret(&self) -> Result<Option<SecretData>, ClusterError> {
            self.request(|state| match state.forbidden {
                true => {
                    Err(ClusterError::Failed { operation: operation(), problem: "no".to_owned() })
                }
                false => Ok(state.secret.clone()),
            })
            .await
        }

        async fn create_secret(&self) -> Result<SecretData, ClusterError> {
            self.request(|state| {
                if let Some(data) = state.faster.take() {
                    state.set_secret(Some(data));
                }
                if state.secret.is_none() {
                    state.set_secret(Some(Data::new()));
                }
                Ok(state.secret.clone().unwrap())
            })
            .await
        }

        async fn write_secret(&self, found: &SecretData, data: &Data) -> Result<(), ClusterError> {
            self.request(|state| {
                if state.secret.as_ref() != Some(found) {
                    state.conflicts += 1;
                    return Err(ClusterError::Conflict(operation()));
                }
                state.writes += 1;
                state.set_secret(Some(data.clone()));
                Ok(())
            })
            .await
        }
    }

    fn operation() -> Operation {
        Operation { what: "asking", object: "the fake".to_owned() }
    }

    /// A replica that ends with the test.
    struct Started {
        resolver: Arc<CertResolver>,
        _task: JoinSet<()>,
    }

    impl Started {
        /// What callers say to what it shows.
        fn call(&self, fake: &Fake, now: OffsetDateTime) -> Result<(), String> {
            let certified = self.resolver.certified().ok_or("no certificate")?;
            for bundle in fake.trusted().into_iter().flatten() {
                let mut roots = RootCertStore::empty();
                for der in CertificateDer::pem_slice_iter(&bundle) {
                    roots.add(der.unwrap()).unwrap();
                }
                let seconds = now.unix_timestamp().try_into().unwrap();
                let provider = Arc::new(default_provider());
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| error.to_string())?
                    .verify_server_cert(
                        &certified.cert[0],
                        &certified.cert[1..],
                        &Name::try_from("sfunnel-webhook.sfunnel-system.svc").unwrap(),
                        &[],
                        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
                    )
                    .map_err(|error| error.to_string())?;
            }
            Ok(())
        }
    }

    /// The shortest lives that flags allow.
    fn policy() -> Policy {
        let [ca, certificate, overlap] = [60, 15, 5].map(time::Duration::seconds);
        Policy::new(ca, certificate, overlap).unwrap()
    }

    /// A clock that goes with tokio's.
    fn clock() -> Clock {
        let start = Instant::now();
        Clock::new(move || START + start.elapsed())
    }

    async fn all_ready(replicas: &[Started]) -> Duration {
        let start = Instant::now();
        while replicas.iter().any(|replica| replica.resolver.ready().is_err()) {
            sleep(Duration::from_millis(10)).await;
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_agree_and_rotate_without_a_failed_call() {
        let (fake, clock) = (Fake::new(), clock());
        let replicas = [(); 3].map(|()| fake.start(&clock, true));
        assert_eq!(replicas[0].resolver.ready(), Err(Unready::NoCertificate));
        let start = all_ready(&replicas).await;
        assert!(start < Duration::from_secs(2), "{start:?}");
        sleep(Duration::from_secs(1)).await;

        // Fifteen CAs long.
        let mut bundles = Vec::new();
        for _ in 0..6_000 {
            sleep(Duration::from_millis(100)).await;
            for replica in &replicas {
                assert_eq!(replica.call(&fake, clock.now()), Ok(()));
                assert_eq!(replica.resolver.ready(), Ok(()));
            }
            let trusted = fake.trusted().unwrap();
            if bundles.last() != Some(&trusted) {
                bundles.push(trusted);
            }
        }
        // One more, or one less, each time.
        assert!((24..=32).contains(&bundles.len()), "{}", bundles.len());
        let (writes, publications) = fake.state(|state| (state.writes, state.publications));
        assert!((36..=48).contains(&writes), "{writes}");
        assert!(publications <= 32, "{publications}");
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_that_start_at_once_one_makes_the_ca() {
        // Who is when faster than whom is up to chance.
        let mut conflicts = 0;
        for _ in 0..30 {
            let (fake, clock) = (Fake::new(), clock());
            let replicas = [(); 8].map(|()| fake.start(&clock, true));
            all_ready(&replicas).await;
            sleep(Duration::from_secs(2)).await;
            assert_eq!(fake.state(|state| state.writes), 1);
            assert_eq!(fake.state(|state| state.publications), 1);
            conflicts += fake.state(|state| state.conflicts);
        }
        assert!(conflicts > 0, "nobody ever found nothing and was second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_ca_that_was_written_meanwhile_is_not_overwritten() {
        let (fake, clock) = (Fake::new(), clock());
        let mut data = Data::new();
        Authorities::new(&policy(), None, START).unwrap().write(&mut data);
        fake.state(|state| state.faster = Some(data.clone()));
        let replicas = [fake.start(&clock, true)];
        all_ready(&replicas).await;
        assert_eq!(fake.state(|state| state.secret.clone().unwrap().data), data);
        assert_eq!(fake.state(|state| state.writes), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_break_heals() {
        let (fake, clock) = (Fake::new(), clock());
        let replicas = [(); 2].map(|()| fake.start(&clock, true));
        all_ready(&replicas).await;
        sleep(Duration::from_secs(1)).await;
        let bundle = fake.trusted().unwrap();
        let secret = || fake.state(|state| state.secret.clone().map(|secret| secret.data));
        let data = secret();

        fake.state(|state| state.set_secret(None));
        sleep(Duration::from_millis(500)).await;
        assert_eq!(secret(), data, "deleted, the Secret is not put back");
        let garbage = Data::from([("ca.crt".to_owned(), b"garbage".to_vec())]);
        fake.state(|state| state.set_secret(Some(garbage)));
        sleep(Duration::from_millis(500)).await;
        assert_eq!(secret(), data, "overwritten, the Secret is not put back");

        for broken in [vec![Vec::new(); 2], vec![bundle[0].clone(), Vec::new()]] {
            fake.state(|state| state.set_configuration(Some(broken)));
            sleep(Duration::from_millis(500)).await;
            let configuration = fake.state(|state| state.configuration.clone().unwrap());
            assert_eq!(configuration.bundles, bundle, "wiped, the bundle is not published again");
        }
        fake.state(|state| state.set_configuration(None));
        sleep(Duration::from_secs(1)).await;
        fake.state(|state| state.set_configuration(Some(vec![Vec::new()])));
        sleep(Duration::from_millis(500)).await;
        let configuration = fake.state(|state| state.configuration.clone().unwrap());
        assert_eq!(configuration.bundles, bundle[..1], "nothing in the new configuration");
        // None of it has made a replica unready.
        assert!(replicas.iter().all(|replica| replica.resolver.ready().is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_cant_read_the_secret_publishes_what_callers_need_and_takes_nothing_away() {
        let (fake, clock) = (Fake::new(), clock());
        let replicas = [fake.start(&clock, true)];
        all_ready(&replicas).await;
        sleep(Duration::from_secs(1)).await;
        fake.state(|state| state.forbidden = true);
        let bundles = || fake.state(|state| state.configuration.clone().unwrap().bundles);
        let own = bundles();
        fake.state(|state| state.set_configuration(Some(vec![Vec::new(); 2])));
        sleep(Duration::from_millis(500)).await;
        assert_eq!(bundles(), own);

        let validity = Validity::starting(START, time::Duration::DAY);
        let others = Authority::new("others", validity).unwrap().certificate().pem();
        fake.state(|state| state.set_configuration(Some(vec![others.clone().into_bytes(); 2])));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(bundles(), vec![[own[0].as_slice(), others.as_bytes()].concat(); 2]);

        let more = vec![[own[0].as_slice(), others.as_bytes()].concat(); 2];
        fake.state(|state| state.set_configuration(Some(more.clone())));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(bundles(), more);
        fake.state(|state| state.forbidden = false);
        sleep(Duration::from_secs(31)).await;
        assert_eq!(bundles(), own);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ca_that_has_ended_is_not_published_again() {
        let (fake, clock) = (Fake::new(), clock());
        let replicas = [fake.start(&clock, true)];
        all_ready(&replicas).await;
        fake.state(|state| state.forbidden = true);
        sleep(Duration::from_secs(62)).await;
        fake.state(|state| state.set_configuration(Some(vec![Vec::new(); 2])));
        sleep(Duration::from_secs(62)).await;
        let configuration = fake.state(|state| state.configuration.clone().unwrap());
        assert!(configuration.bundles.iter().all(Vec::is_empty));
    }

    #[tokio::test(start_paused = true)]
    async fn certificates_that_cant_be_made_are_tried_less_and_less_often() {
        let (fake, clock) = (Fake::new(), clock());
        // For no name there is none.
        let _replica = fake.start_for(Vec::new(), &clock, true);
        sleep(Duration::from_secs(60)).await;
        let requests = fake.state(|state| state.requests);
        assert!((10..60).contains(&requests), "{requests}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deaf_watch_delays_and_no_more() {
        let (fake, clock) = (Fake::new(), clock());
        let replicas = [fake.start(&clock, false)];
        all_ready(&replicas).await;
        fake.state(|state| state.set_configuration(Some(vec![Vec::new()])));
        sleep(Duration::from_secs(31)).await;
        let configuration = fake.state(|state| state.configuration.clone().unwrap());
        assert!(!configuration.bundles[0].is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_cluster_certificates_are_renewed_until_the_ca_ends() {
        let (fake, clock) = (Fake::new(), clock());
        let replicas = [fake.start(&clock, true)];
        all_ready(&replicas).await;
        fake.state(|state| state.down = true);
        // The CA was made within the first second.
        while clock.now() < START + Duration::from_secs(58) {
            assert_eq!(replicas[0].resolver.ready(), Ok(()));
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_secs(5)).await;
        assert!(matches!(replicas[0].resolver.ready(), Err(Unready::Expired(_))));

        fake.state(|state| state.down = false);
        let back = all_ready(&replicas).await;
        // A request that was lost, and the longest delay.
        assert!(back <= Duration::from_secs(10 + 31), "{back:?}");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(replicas[0].call(&fake, clock.now()), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_configuration_that_is_absent_holds_up_nobody() {
        let (fake, clock) = (Fake::default(), clock());
        let replicas = [(); 2].map(|()| fake.start(&clock, true));
        let start = all_ready(&replicas).await;
        assert!(start < Duration::from_secs(2), "{start:?}");
        fake.state(|state| state.set_configuration(Some(vec![Vec::new()])));
        sleep(Duration::from_secs(2)).await;
        for replica in &replicas {
            assert_eq!(replica.call(&fake, clock.now()), Ok(()));
        }
    }
}
