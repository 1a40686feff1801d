//! The open connections of a port: so many at the most, and nobody is waited for too long.
//!
//! A connection is always in one [`Phase`]. What the server waits for is limited in time, and when there is
//! no room for another connection, the one goes that the server has waited for longest. So a client that
//! stalls holds up nobody but itself, however many of them there are.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{interval, timeout};

use crate::metrics::Metrics;

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The client is to do its part of the TLS handshake.
    Handshake,
    /// The client is to send the header of a request, which has begun or is the first one.
    Header,
    /// The client is to send the body of a request.
    Body,
    /// The client has begun to send a large body, and there is no room for it yet.
    Room,
    /// The server is to answer.
    Work,
    /// The client may send another request.
    Idle,
}

/// Why a connection was ended by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The handshake took too long.
    Handshake,
    /// The header took too long.
    Header,
    /// No further request came.
    Idle,
    /// Room was needed, and this one had been waited for longest.
    Room,
}

impl Cut {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Handshake, Self::Header, Self::Idle, Self::Room];

    /// A stable word for logs and metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Header => "header",
            Self::Idle => "idle",
            Self::Room => "room",
        }
    }
}

/// For how long clients are waited for. Bodies have a limit of their own, which is answered.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a handshake.
    pub handshake: Duration,
    /// For a header, from its first byte; for the first header, from the connection's start.
    pub header: Duration,
    /// For the next request.
    pub idle: Duration,
}

/// The open connections of a port.
#[derive(Debug)]
pub struct Connections {
    patience: Patience,
    slots: Arc<Semaphore>,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    /// Another one was opened.
    opened: Notify,
    metrics: Arc<Metrics>,
}

/// One of them.
#[derive(Debug)]
pub struct Connection {
    state: Mutex<State>,
    end: Notify,
    rest: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State {
    phase: Phase,
    since: Instant,
    /// Whether a request was answered.
    served: bool,
    /// Whether the client takes what it is sent.
    listens: bool,
    /// Whether it has room for a large body.
    holds_room: bool,
    /// Why it is to end, and in which phase that was decided.
    cut: Option<(Cut, Phase)>,
}

/// Keeps a connection among the open ones.
#[derive(Debug)]
pub struct Open {
    connections: Arc<Connections>,
    id: u64,
    connection: Arc<Connection>,
    _slot: OwnedSemaphorePermit,
}

/// From one look at all connections to the next; limits are kept as exactly as this.
const SWEEP: Duration = Duration::from_millis(250);
/// An idle connection keeps its buffers for so long: the next request often follows at once.
const REST: Duration = Duration::from_millis(200);
/// A client that takes longer than this for what it should do at once is slow.
const SLOW: Duration = Duration::from_millis(500);
/// A client with room for a large body that takes longer than this to send it is slow, if others wait.
const SLOW_BODY: Duration = Duration::from_millis(250);
/// From one attempt at making room to the next.
const RETRY: Duration = Duration::from_millis(50);

impl Connections {
    /// None yet, and `limit` at the most.
    pub fn new(limit: usize, patience: Patience, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            patience,
            slots: Arc::new(Semaphore::new(limit)),
            open: Mutex::default(),
            next: AtomicU64::default(),
            opened: Notify::new(),
            metrics,
        })
    }

    /// Makes room for a connection that was accepted, and begins with `phase`.
    pub async fn open(self: &Arc<Self>, phase: Phase) -> Open {
        let slot = loop {
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                break slot;
            }
            self.cut_for_a_connection();
            let slot = timeout(RETRY, Arc::clone(&self.slots).acquire_owned()).await;
            if let Ok(slot) = slot {
                break slot.expect("nobody closes the semaphore");
            }
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let state = State {
            phase,
            since: Instant::now(),
            served: false,
            listens: true,
            holds_room: false,
            cut: None,
        };
        let connection = Arc::new(Connection {
            state: Mutex::new(state),
            end: Notify::new(),
            rest: Notify::new(),
        });
        self.all().insert(id, Arc::clone(&connection));
        self.opened.notify_one();
        Open { connections: Arc::clone(self), id, connection, _slot: slot }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all().len()
    }

    /// Returns when no connection was opened for this time.
    pub async fn quiet_for(&self, time: Duration) {
        while timeout(time, self.opened.notified()).await.is_ok() {}
    }

    /// Ends those that were waited for long enough, and lets those rest that are idle, again and again.
    pub async fn sweep(&self) -> Infallible {
        let mut tick = interval(SWEEP);
        loop {
            tick.tick().await;
            let now = Instant::now();
            for connection in self.all().values() {
                let State { phase, since, listens, .. } = *connection.state();
                let waited = now.saturating_duration_since(since);
                if phase == Phase::Idle && listens && waited > REST {
                    connection.rest.notify_one();
                }
                let limit = match phase {
                    Phase::Handshake => Some((self.patience.handshake, Cut::Handshake)),
                    Phase::Header => Some((self.patience.header, Cut::Header)),
                    Phase::Idle => Some((self.patience.idle, Cut::Idle)),
                    Phase::Body | Phase::Room | Phase::Work => None,
                };
                if let Some((limit, cut)) = limit
                    && waited > limit
                {
                    self.cut(connection, cut);
                }
            }
        }
    }

    /// Ends the connection that has had room for a large body for longest without sending it.
    pub fn cut_for_a_body(&self) {
        self.cut_longest(|state, waited| {
            (state.phase == Phase::Body && state.holds_room && waited > SLOW_BODY).then_some(())
        });
    }

    /// First those go that are slow with something, then those that were of no use yet, then those that
    /// may ask again. Who works stays.
    fn cut_for_a_connection(&self) {
        self.cut_longest(|state, waited| match state.phase {
            Phase::Work => None,
            Phase::Idle => Some(2),
            _ if waited > SLOW => Some(0),
            _ if state.served => Some(2),
            Phase::Handshake | Phase::Header | Phase::Body | Phase::Room => Some(1),
        });
    }

    /// Ends the connection with the least rank, among these the one that was waited for longest.
    fn cut_longest<R: Ord>(&self, rank: impl Fn(&State, Duration) -> Option<R>) {
        let now = Instant::now();
        let all = self.all();
        let candidates = all.values().filter_map(|connection| {
            let state = *connection.state();
            let waited = now.saturating_duration_since(state.since);
            let rank = rank(&state, waited).filter(|_| state.cut.is_none())?;
            Some(((rank, state.since), connection))
        });
        if let Some((_, first)) = candidates.min_by(|(a, _), (b, _)| a.cmp(b)) {
            self.cut(first, Cut::Room);
        }
    }

    fn cut(&self, connection: &Connection, cut: Cut) {
        let mut state = connection.state();
        if state.cut.is_none() {
            state.cut = Some((cut, state.phase));
            self.metrics.cut(cut);
            connection.end.notify_one();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        // A map that was changed in whole or not at all.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// What is now to be done.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.state();
        state.served |= phase == Phase::Idle;
        state.holds_room &= phase == Phase::Body;
        (state.phase, state.since) = (phase, Instant::now());
    }

    /// There is no room for the body. The client has had its time since the header.
    pub fn waits_for_room(&self) {
        self.state().phase = Phase::Room;
    }

    /// There is room for the body now.
    pub fn has_room(&self) {
        self.enter(Phase::Body);
        self.state().holds_room = true;
    }

    /// Bytes came from the client: after a pause, they are the next request's.
    pub fn heard(&self) {
        if self.state().phase == Phase::Idle {
            self.enter(Phase::Header);
        }
    }

    /// The client takes what it is sent, or doesn't for now.
    pub fn listens(&self, listens: bool) {
        self.state().listens = listens;
    }

    /// Returns when nothing has happened for a while since the last answer, which was sent in whole.
    pub async fn rests(&self) {
        loop {
            self.rest.notified().await;
            let State { phase, since, listens, .. } = *self.state();
            if phase == Phase::Idle && listens && since.elapsed() > REST {
                return;
            }
        }
    }

    /// Whether a request was answered.
    pub fn is_served(&self) -> bool {
        self.state().served
    }

    /// Whether it is to end as the server wants it.
    pub fn is_cut(&self) -> bool {
        self.state().cut.is_some()
    }

    /// Returns when the connection is to end, with the reason.
    pub async fn ended(&self) -> Cut {
        loop {
            self.end.notified().await;
            let mut state = self.state();
            match state.cut {
                // The client did meanwhile what it was waited for.
                Some((_, phase)) if phase != state.phase && state.phase == Phase::Work => {
                    state.cut = None;
                }
                Some((_, Phase::Idle)) if state.phase != Phase::Idle => state.cut = None,
                Some((cut, _)) => return cut,
                None => {}
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// The connection.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.all().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::served::Served;

    #[tokio::test(start_paused = true)]
    async fn it_is_quiet_when_no_connection_was_opened_for_a_while() {
        let second = Duration::from_secs(1);
        let patience = Patience { handshake: second, header: second, idle: second };
        let metrics = Arc::new(Metrics::new(Arc::new(Served::new(Clock::system()))));
        let connections = Connections::new(8, patience, metrics);
        let start = tokio::time::Instant::now();
        let visitors = async {
            for _ in 0..3 {
                tokio::time::sleep(4 * second).await;
                connections.open(Phase::Handshake).await;
            }
        };
        tokio::join!(visitors, connections.quiet_for(5 * second));
        assert_eq!(start.elapsed().as_secs(), 3 * 4 + 5);
    }
}
