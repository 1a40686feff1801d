//! How fast a counter rises.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// For connections to reach their speed.
pub const WARM_UP: Duration = Duration::from_millis(100);
/// How long is measured then.
pub const MEASURE: Duration = Duration::from_millis(600);

/// What `counter` gains in a second.
///
/// # Errors
///
/// It gains nothing.
pub fn per_second(counter: &AtomicU64) -> Result<f64> {
    thread::sleep(WARM_UP);
    let (before, started) = (counter.load(Ordering::Relaxed), Instant::now());
    thread::sleep(MEASURE);
    let gained = counter.load(Ordering::Relaxed) - before;
    let elapsed = started.elapsed();
    ensure!(gained > 0, "nothing arrived within {elapsed:.1?}");
    Ok(gained as f64 / elapsed.as_secs_f64())
}
