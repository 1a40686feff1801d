//! Bad clients by the thousand, and what becomes of them.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::repeat_n;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tests::netns::Netns;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::client::Target;
use crate::play::play;
use crate::records::{self, Abuse};
use crate::scripts::Script;

/// New bad clients per second. It is bounded so that the limits of the webhook are what is tested, and not
/// who gets more of the processors: these clients run beside it.
const PER_SECOND: u32 = 250;

/// So long there are more clients than there is room for, and then so long only one of each kind where
/// there were many: they are to be ended for the sake of others, and for their own.
const WAVE: Duration = Duration::from_secs(20);

/// How one client fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It didn't come far enough to do what it is for.
    Refused,
    /// The webhook ended the connection, so long after it was there.
    Ended(Duration),
    /// It went away by itself.
    Left,
    /// It waited for the webhook to end the connection, in vain.
    Stayed,
    /// The webhook did what it must not do.
    Wrong(String),
}

/// How clients of one kind fared.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Whether the webhook has to end their connections.
    pub must_end: bool,
    pub refused: usize,
    pub left: usize,
    pub stayed: usize,
    pub ended: usize,
    /// The longest time until the webhook ended a connection.
    pub longest: Duration,
    pub wrong: Vec<String>,
}

impl Tally {
    /// Those that came as far as they wanted.
    pub fn done(&self) -> usize {
        self.left + self.stayed + self.ended + self.wrong.len()
    }

    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Refused => self.refused += 1,
            Fate::Left => self.left += 1,
            Fate::Stayed => self.stayed += 1,
            Fate::Ended(after) => {
                self.ended += 1;
                self.longest = self.longest.max(after);
            }
            Fate::Wrong(what) => self.wrong.push(what),
        }
    }
}

/// For the report of the test.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refused, left, stayed, ended, longest, .. } = self;
        write!(
            f,
            "refused {refused:4}, left {left:4}, stayed {stayed:4}, ended {ended:4} within {longest:5.1?}"
        )
    }
}

/// Clients that do the same.
enum Kind {
    Script(Script),
    Abuse(Abuse),
}

impl Kind {
    fn weight(&self) -> usize {
        match self {
            Self::Script(script) => script.weight,
            Self::Abuse(_) => 1,
        }
    }

    fn must_end(&self) -> bool {
        match self {
            Self::Script(script) => script.must_end,
            Self::Abuse(_) => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script(script) => write!(f, "{}: {}", script.door, script.name),
            Self::Abuse(abuse) => write!(f, "records: {abuse:?}"),
        }
    }
}

/// Bad clients.
pub struct Attacks {
    target: Target,
    kinds: Vec<Arc<Kind>>,
    tallies: Mutex<BTreeMap<String, Tally>>,
    stop: AtomicBool,
    busy: Mutex<Duration>,
}

impl Attacks {
    pub fn new(target: Target, scripts: Vec<Script>) -> Self {
        let scripts = scripts.into_iter().map(Kind::Script);
        let kinds: Vec<_> = scripts.chain(records::ALL.map(Kind::Abuse)).map(Arc::new).collect();
        let tally = |kind: &Arc<Kind>| {
            (kind.to_string(), Tally { must_end: kind.must_end(), ..Tally::default() })
        };
        let tallies: BTreeMap<_, _> = kinds.iter().map(tally).collect();
        assert_eq!(tallies.len(), kinds.len(), "two kinds have one name");
        let (stop, busy) = (AtomicBool::new(false), Mutex::default());
        Self { target, kinds, tallies: Mutex::new(tallies), stop, busy }
    }

    /// Lets bad clients loose until [`Self::stop`], and returns when the last one has gone.
    pub fn run(&self, netns: &Netns) {
        netns.enter(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(self.attack());
            *self.busy.lock().unwrap() = time_of_this_thread();
        });
    }

    /// No further clients.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How they fared, by kind.
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        self.tallies.lock().unwrap().clone()
    }

    /// The time on a processor that all of them took together, when they have gone.
    pub fn busy(&self) -> Duration {
        *self.busy.lock().unwrap()
    }

    async fn attack(&self) {
        // In an order of chance: each kind once, and as often again as it weighs more.
        let mut queue = Vec::new();
        for kind in &self.kinds {
            queue.push((kind, false));
            queue.extend(repeat_n((kind, true), kind.weight() - 1));
        }
        queue.shuffle(&mut StdRng::seed_from_u64(1));
        let mut ticks = interval(Duration::from_secs(1) / PER_SECOND);
        let start = ticks.tick().await;
        let mut clients = JoinSet::new();
        for (kind, again) in queue.into_iter().cycle() {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let now = ticks.tick().await;
            let crowded = ((now - start).as_secs() / WAVE.as_secs()).is_multiple_of(2);
            if again && !crowded {
                continue;
            }
            let (kind, target) = (Arc::clone(kind), self.target.clone());
            clients.spawn(async move {
                let fate = match &*kind {
                    Kind::Script(script) => play(script, &target).await,
                    Kind::Abuse(abuse) => abuse.run(&target).await,
                };
                (kind, fate)
            });
            while let Some(client) = clients.try_join_next() {
                self.count(client.unwrap());
            }
        }
        while let Some(client) = clients.join_next().await {
            self.count(client.unwrap());
        }
    }

    fn count(&self, (kind, fate): (Arc<Kind>, Fate)) {
        self.tallies.lock().unwrap().entry(kind.to_string()).or_default().count(fate);
    }
}

/// The time that this thread has had on a processor.
fn time_of_this_thread() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let duration = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    duration(usage.user_time()) + duration(usage.system_time())
}
