//! How much of a thing a test does.

use std::sync::OnceLock;

/// The part of `full` that `SFUNNEL_TEST_PERCENT` names, and at least 1; all of it if that is not set.
///
/// On an emulated machine, where everything takes twenty times as long, a part has to do.
///
/// # Panics
///
/// If the variable is no number up to 100.
pub fn part_of(full: u64) -> u64 {
    static PERCENT: OnceLock<f64> = OnceLock::new();
    let percent = *PERCENT.get_or_init(|| {
        let Ok(text) = std::env::var("SFUNNEL_TEST_PERCENT") else { return 100.0 };
        let percent = text.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
        percent.unwrap_or_else(|| panic!("SFUNNEL_TEST_PERCENT={text}: a number up to 100"))
    });
    ((full as f64 * percent / 100.0) as u64).max(1)
}
