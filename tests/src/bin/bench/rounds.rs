//! Several things measured in turn, several times.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

/// Set on Ctrl-C. Looked at before each measurement, so that guards get to clean up.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Lets [`in_turn`] fail on Ctrl-C.
pub fn stop_on_interrupt() -> Result<()> {
    Ok(ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?)
}

/// Measures each once a round, back to back, and returns a series for each.
///
/// Every second round goes the other way round, so that what the machine drifts meanwhile cancels
/// out.
pub fn in_turn<T, const N: usize>(
    rounds: usize,
    measurements: [impl Fn() -> Result<T>; N],
) -> Result<[Vec<T>; N]> {
    let mut series = [const { Vec::new() }; N];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..N).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for number in order {
            ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted; everything is cleaned up");
            series[number].push(measurements[number]()?);
        }
    }
    Ok(series)
}
