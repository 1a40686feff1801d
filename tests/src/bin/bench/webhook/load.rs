//! Reviews per second, how long one takes at half of that, and how long the largest one.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::certificate::Certificate;
use super::generator::{Answers, Generator, Pace};
use super::server::{Cores, Server};
use super::{LARGEST, ORDINARY};
use crate::rounds::in_turn;
use crate::table::{Row, Target, Unit, median, note};

/// How long one load lasts, its warm-up included.
const LASTS: Duration = Duration::from_millis(1500);

/// Enough that the server always has something to do.
const CONNECTIONS: usize = 8;

/// Two servers under the same load.
struct Both<'a> {
    ours: &'a Server,
    theirs: &'a Server,
    rounds: usize,
}

/// Compares how both servers do.
pub fn compare(rounds: usize, certificate: &Certificate, programs: &Path) -> Result<()> {
    let ours = Server::ours(certificate, Cores::One)?;
    let theirs = Server::agnhost(certificate, programs, Cores::One)?;
    let generator = |bytes| Generator::new(bytes, certificate, programs, Cores::One);
    let both = Both { ours: &ours, theirs: &theirs, rounds };
    let ordinary = generator(ORDINARY)?;
    let rates = both.rates(&ordinary)?;
    both.durations(rates, &ordinary)?;
    both.largest(&generator(LARGEST)?, &generator(LARGEST / 10)?)?;
    let memory = [[ours.resident()?], [theirs.resident()?]];
    row("memory after all this : agnhost", [&memory[0], &memory[1]], Unit::Mebibytes, Target::None);
    Ok(())
}

fn row(what: &str, [ours, theirs]: [&[f64]; 2], unit: Unit, target: Target) {
    Row { what, ours, theirs, unit, target }.print();
}

/// Where other processes take more than a few percent, they decide about the 99th percentile.
const WAITED: &str = "  how long it waited for its core";

/// Prints how much of a load's time these seconds are.
fn share(what: &str, seconds: [Vec<f64>; 2]) {
    let [ours, theirs] = seconds.map(|seconds| 100.0 * median(&seconds) / LASTS.as_secs_f64());
    note(what, &format!("{ours:.0} / {theirs:.0} % of the time"));
}

/// One value of each measurement.
fn of<T, const N: usize>(series: &[Vec<T>; N], value: impl Fn(&T) -> f64) -> [Vec<f64>; N] {
    series.each_ref().map(|all| all.iter().map(&value).collect())
}

impl Both<'_> {
    /// Reviews per second of each.
    fn rates(&self, generator: &Generator) -> Result<[f64; 2]> {
        let ask = |server| generator.ask(server, Pace::Full(CONNECTIONS), LASTS);
        let series =
            in_turn(self.rounds, [self.ours, self.theirs].map(|server| move || ask(server)))?;
        let rates = of(&series, |answers| answers.per_second);
        let [ours, theirs] = &rates;
        row("reviews of 10 KB a second : agnhost", [ours, theirs], Unit::PerSecond, Target::None);
        let [ours, theirs] = &of(&series, Answers::cpu);
        row("  CPU time of one : agnhost", [ours, theirs], Unit::Seconds, Target::None);
        // Where a server doesn't use all of its core, the generator is too slow, or the machine has
        // other things to do.
        share("  how much of its core it used", of(&series, |answers| answers.used));
        share(WAITED, of(&series, |answers| answers.delayed));
        Ok(rates.map(|rates| median(&rates)))
    }

    /// How long a review takes at half of each server's own rate.
    fn durations(&self, [ours, theirs]: [f64; 2], generator: &Generator) -> Result<()> {
        let ask = |server, rate| generator.ask(server, Pace::PerSecond(rate / 2.0), LASTS);
        let series = in_turn(
            self.rounds,
            [(self.ours, ours), (self.theirs, theirs)]
                .map(|(server, rate)| move || ask(server, rate)),
        )?;
        for (percent, target) in
            [(50, Target::None), (99, Target::Within(Duration::from_millis(2)))]
        {
            let [ours, theirs] = &of(&series, |answers| answers.percentile(percent));
            let what = format!("p{percent} at half of its rate : agnhost");
            row(&what, [ours, theirs], Unit::Seconds, target);
        }
        share(WAITED, of(&series, |answers| answers.delayed));
        Ok(())
    }

    /// The API server's largest review, and how the time for one grows with its size.
    fn largest(&self, large: &Generator, tenth: &Generator) -> Result<()> {
        let ask = |server, generator: &Generator| generator.ask(server, Pace::Full(1), LASTS);
        let series = in_turn(
            self.rounds,
            [(self.ours, large), (self.ours, tenth), (self.theirs, large)]
                .map(|(server, generator)| move || ask(server, generator)),
        )?;
        let [ours, _, theirs] = &of(&series, |answers| answers.percentile(50));
        let most = Target::Within(Duration::from_millis(30));
        row("a review of 3 MiB : agnhost", [ours, theirs], Unit::Seconds, most);
        let [ours, tenth, theirs] = &of(&series, Answers::cpu);
        row("  CPU time of it : agnhost", [ours, theirs], Unit::Seconds, Target::None);
        // Whatever else the machine does, CPU time grows with the size alone.
        let per_mebibyte = |seconds: &[f64], bytes: usize| -> Vec<f64> {
            seconds.iter().map(|seconds| seconds * (1 << 20) as f64 / bytes as f64).collect()
        };
        let (ours, tenth) = (per_mebibyte(ours, LARGEST), per_mebibyte(tenth, LARGEST / 10));
        let growth = Target::AtMost(1.3);
        row("  CPU time per MiB : at 0.3 MiB", [&ours, &tenth], Unit::Seconds, growth);
        Ok(())
    }
}
