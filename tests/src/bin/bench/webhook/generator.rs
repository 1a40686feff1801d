//! The load.
//!
//! vegeta is a client in Go, as API servers are, and sends at even distances whatever became of the
//! requests before. h2load isn't fit: its clients look at the clock a hundred times a second, all at
//! the same time, so 2,000 requests a second are 100 times 20 at once. wrk has no rate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::netns::Checked as _;

use super::certificate::Certificate;
use super::server::{Cores, Server};
use super::{on, review};
use crate::path::cpu::Cpu;

/// How often questions are asked.
#[derive(Clone, Copy)]
pub enum Pace {
    /// So many connections, each of which asks again as soon as it has the answer.
    Full(usize),
    /// So many questions a second, on more connections while answers are late.
    PerSecond(f64),
}

/// Asks one question again and again.
pub struct Generator {
    folder: TempDir,
    vegeta: PathBuf,
    ca: PathBuf,
    cores: Cores,
}

/// What became of the questions.
pub struct Answers {
    /// All of them.
    pub count: usize,
    /// Seconds of a core that the server used for them.
    pub used: f64,
    /// Seconds in which the server could have used a core that other processes had.
    pub delayed: f64,
    /// Answers in a second, after the warm-up.
    pub per_second: f64,
    /// How long they took, in seconds, in ascending order, without those of the warm-up.
    durations: Vec<f64>,
}

/// For handshakes and caches. It is part of the time that a load lasts.
pub const WARM_UP: Duration = Duration::from_millis(300);

/// Where a machine has too much else to do, answers are late, and more and more connections would make
/// them later.
const MOST_CONNECTIONS: usize = 64;

impl Generator {
    /// One for a review of `bytes` bytes.
    pub fn new(
        bytes: usize,
        certificate: &Certificate,
        programs: &Path,
        cores: Cores,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("review.json"), review::review(bytes))?;
        Ok(Self { folder, vegeta: programs.join("vegeta"), ca: certificate.ca(), cores })
    }

    /// Asks `server` for so long. Fails when a single question isn't answered.
    pub fn ask(&self, server: &Server, pace: Pace, lasts: Duration) -> Result<Answers> {
        let file = |name| self.folder.path().join(name);
        let (review, targets) = (file("review.json"), file("targets"));
        let (results, csv) = (file("results"), file("results.csv"));
        server.review(&fs::read_to_string(&review)?)?;
        let header = "Content-Type: application/json";
        fs::write(&targets, format!("POST {}\n{header}\n@{}\n", server.url, review.display()))?;

        let mut attack = Command::new(&self.vegeta);
        attack.args(["attack", "-http2=false", "-max-body=0", "-timeout=10s"]);
        // Answers must not wait for it to collect its garbage, which is not much in so short a time.
        attack.env("GOGC", "off").env("GOMEMLIMIT", "2GiB");
        let (rate, at_first, at_most) = match pace {
            Pace::Full(connections) => ("0".to_owned(), connections, connections),
            Pace::PerSecond(rate) => (format!("{rate:.0}/1s"), 16, MOST_CONNECTIONS),
        };
        attack.arg(format!("-rate={rate}")).arg(format!("-workers={at_first}"));
        attack.arg(format!("-max-workers={at_most}")).arg(format!("-connections={at_most}"));
        attack.arg(format!("-duration={}ms", lasts.as_millis()));
        attack.arg("-root-certs").arg(&self.ca).arg("-targets").arg(targets);
        attack.arg("-output").arg(&results);
        let (used, delayed) = (server.used()?, server.delayed()?);
        match self.cores {
            Cores::One => on(Cpu::First, || attack.checked()),
            Cores::All => attack.checked(),
        }?;
        let (used, delayed) = (server.used()? - used, server.delayed()? - delayed);
        let mut encode = Command::new(&self.vegeta);
        encode.args(["encode", "-to=csv", "-output"]).arg(&csv).arg(&results).checked()?;
        let mut answers = Answers::read(&fs::read_to_string(&csv)?, lasts)?;
        (answers.used, answers.delayed) = (used, delayed);
        Ok(answers)
    }
}

impl Answers {
    /// Each line begins with the time of the question, the status, and how long it took.
    fn read(csv: &str, lasts: Duration) -> Result<Self> {
        let line = |line: &str| {
            let mut fields = line.split(',');
            let mut next = || fields.next().and_then(|field| field.parse::<u64>().ok());
            let (at, status, took) = (next()?, next()?, next()?);
            Some((at, status, took))
        };
        let mut answers = Vec::new();
        for text in csv.lines() {
            let (at, status, took) = line(text).with_context(|| format!("vegeta says: {text}"))?;
            ensure!(status == 200, "a review was not answered: {text}");
            answers.push((Duration::from_nanos(at), Duration::from_nanos(took)));
        }
        let first = answers.iter().map(|(at, _)| *at).min().context("vegeta asked nothing")?;
        let (warm, end) = (first + WARM_UP, first + lasts);
        let measured = answers.iter().filter(|(at, took)| (warm..end).contains(&(*at + *took)));
        let per_second = measured.count() as f64 / (lasts - WARM_UP).as_secs_f64();
        let measured = answers.iter().filter(|(at, _)| *at >= warm);
        let mut durations: Vec<_> = measured.map(|(_, took)| took.as_secs_f64()).collect();
        durations.sort_by(f64::total_cmp);
        ensure!(!durations.is_empty(), "nothing was answered after {WARM_UP:?}");
        Ok(Self { count: answers.len(), used: 0.0, delayed: 0.0, per_second, durations })
    }

    /// Seconds of a core that the server used for one.
    pub fn cpu(&self) -> f64 {
        self.used / self.count as f64
    }

    /// What so many of a hundred took at the most, in seconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        self.durations[self.durations.len() * percent / 100]
    }
}
