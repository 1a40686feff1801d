//! What came out, beside what should have.

use std::fmt;
use std::time::Duration;

/// One line: two series that were measured in turn, the first compared to the second.
pub struct Row<'a> {
    /// What, and what it is compared to.
    pub what: &'a str,
    /// The first series, in `unit`.
    pub ours: &'a [f64],
    /// The second series, in `unit`.
    pub theirs: &'a [f64],
    /// What both were measured in.
    pub unit: Unit,
    /// What should have come out.
    pub target: Target,
}

/// What a series is measured in.
#[derive(Clone, Copy)]
pub enum Unit {
    Seconds,
    BitsPerSecond,
    PacketsPerSecond,
    PerSecond,
    Bytes,
    Mebibytes,
}

/// What should come out.
#[derive(Clone, Copy)]
pub enum Target {
    /// Printed for comparison.
    None,
    /// The ratio.
    AtLeast(f64),
    /// The ratio.
    AtMost(f64),
    /// The first series itself, in seconds.
    Within(Duration),
}

/// Prints the columns' names.
pub fn head(rounds: usize) {
    println!(
        "Medians of {rounds} rounds; spread is from the least ratio of a round to the greatest."
    );
    line("what : compared to what", "ratio", "spread", "target", "", "absolute");
}

/// Prints the name of what follows.
pub fn section(title: &str) {
    println!("\n{title}");
}

/// Prints a line without a ratio.
pub fn note(what: &str, absolute: &str) {
    line(what, "", "", "", "", absolute);
}

fn line(what: &str, ratio: &str, spread: &str, target: &str, verdict: &str, absolute: &str) {
    println!("{what:<46} {ratio:>6} {spread:>12} {target:>8} {verdict:<6} {absolute}");
}

impl Row<'_> {
    /// Prints the row.
    pub fn print(&self) {
        let ratios: Vec<f64> = self.ours.iter().zip(self.theirs).map(|(a, b)| a / b).collect();
        let (ratio, ours, theirs) = (median(&ratios), median(self.ours), median(self.theirs));
        let met = match self.target {
            Target::None => None,
            Target::AtLeast(least) => Some(ratio >= least),
            Target::AtMost(most) => Some(ratio <= most),
            Target::Within(most) => Some(ours <= most.as_secs_f64()),
        };
        let verdict = match met {
            None => "",
            Some(true) => "ok",
            Some(false) => "MISSED",
        };
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let greatest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        line(
            self.what,
            &format!("{ratio:.3}"),
            &format!("{least:.2}-{greatest:.2}"),
            &self.target.to_string(),
            verdict,
            &self.unit.of_two(ours, theirs),
        );
    }
}

/// The middle of a series, the upper one of two.
pub fn median(series: &[f64]) -> f64 {
    let mut sorted = series.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

impl Unit {
    fn of_two(self, ours: f64, theirs: f64) -> String {
        match self {
            Self::Seconds => {
                let [ours, theirs] = [ours, theirs].map(Duration::from_secs_f64);
                format!("{ours:.1?} / {theirs:.1?}")
            }
            Self::BitsPerSecond => format!("{:.2} / {:.2} Gbit/s", ours / 1e9, theirs / 1e9),
            Self::PacketsPerSecond => format!("{:.0} / {:.0} kpps", ours / 1e3, theirs / 1e3),
            Self::PerSecond => format!("{ours:.0} / {theirs:.0} a second"),
            Self::Bytes => format!("{:.1} / {:.1} MB", ours / 1e6, theirs / 1e6),
            Self::Mebibytes => {
                let [ours, theirs] = [ours, theirs].map(|bytes| bytes / (1 << 20) as f64);
                format!("{ours:.1} / {theirs:.1} MiB")
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::AtLeast(least) => write!(f, ">= {least:.2}"),
            Self::AtMost(most) => write!(f, "<= {most:.2}"),
            Self::Within(most) => write!(f, "<= {most:?}"),
        }
    }
}
