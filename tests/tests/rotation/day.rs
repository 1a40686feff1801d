//! The time of a test: a day, and what happens in none.

use std::sync::mpsc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::task::spawn_blocking;
use tokio::time::Instant;
use webhook::certificates::clock::Clock;

/// A day. Its clock is tokio's.
#[derive(Clone, Debug)]
pub struct Day {
    begin: Instant,
}

/// Where clocks are when the test begins.
const START: OffsetDateTime =
    OffsetDateTime::UNIX_EPOCH.saturating_add(time::Duration::days(20_000));

const LENGTH: Duration = Duration::from_secs(86_400);

impl Day {
    pub fn begin() -> Self {
        Self { begin: Instant::now() }
    }

    /// The time of day, for those under test.
    pub fn clock(&self) -> Clock {
        let day = self.clone();
        Clock::new(move || day.now())
    }

    pub fn now(&self) -> OffsetDateTime {
        START + self.begin.elapsed()
    }

    pub fn is_over(&self) -> bool {
        self.begin.elapsed() >= LENGTH
    }
}

/// Does what takes real time, such as a way through sockets, in none of the test's.
///
/// tokio's paused clock jumps to the next timer when no task can go on, and knows nothing of bytes that are
/// still on their way. While a blocking task runs, it stands still
/// (<https://docs.rs/tokio/latest/tokio/time/fn.pause.html#preventing-auto-advance>).
pub async fn in_no_time<T>(work: impl Future<Output = T>) -> T {
    let (done, wait) = mpsc::channel::<()>();
    let standing = spawn_blocking(move || wait.recv_timeout(PATIENCE));
    let begin = Instant::now();
    let result = work.await;
    assert_eq!(begin.elapsed(), Duration::ZERO, "it took more than {PATIENCE:?} of real time");
    drop(done);
    // It was told by the drop.
    let _ = standing.await;
    result
}

/// Longest wait for what must come, in real time: then the test's time goes on, and limits end whatever
/// it is.
const PATIENCE: Duration = Duration::from_secs(60);
