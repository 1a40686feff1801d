//! What has come of a run, and what is wrong with it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::attacks::Tally;
use crate::sample::{Sample, between, failures, of, p50, p99};
use crate::steady::{HEALTHZ, KEPT, LARGE, NEW, PROBE_TIMEOUT, READYZ, SELDOM};
use crate::vanish::Vanished;
use crate::webhook::{CONNECTIONS, Vitals};

/// What has come of a run.
pub struct Run {
    pub start: Instant,
    pub quiet_until: Instant,
    pub chaos_until: Instant,
    pub steady: Vec<Sample>,
    pub reopened: u64,
    pub attacks: Vec<(String, Tally)>,
    pub attackers_busy: Duration,
    pub vanished: Vanished,
    /// Once a second.
    pub vitals: Vec<(Instant, Vitals)>,
    /// What the webhook says of itself, at the end of the attacks.
    pub metrics: String,
}

/// What p99 is taken for if it is less: timers and schedulers of a shared machine have hiccups of this size.
const FLOOR: Duration = Duration::from_millis(1);

/// How many times slower reviews may become under attack. The attackers take their share of the same
/// processors, which alone makes reviews three times slower on a machine of two. Where they hold up the
/// webhook itself, reviews wait for timeouts, which are seconds.
const SLOWER: u32 = 10;

/// What else may be open: the plain port's connections, files of the runtime, the log.
const OTHER_FILES: u64 = 128;

impl Run {
    /// Everything that must not have happened.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let phases = self.phases();
        let [quiet, chaos, drain] = &phases;
        for (phase, samples) in [("quiet", quiet), ("chaos", chaos), ("drain", drain)] {
            let reviews = reviews(samples);
            wrong.extend(
                failures(&reviews, self.start).map(|text| format!("{phase}: reviews: {text}")),
            );
            let probes = self.probes_wrong(samples, phase == "drain");
            wrong.extend(probes.into_iter().map(|text| format!("{phase}: {text}")));
        }
        if self.reopened > 0 {
            wrong.push(format!("{} connections in use were cut", self.reopened));
        }
        let ratio = |what: &str, of: &dyn Fn(&[Sample]) -> Duration| {
            let (quiet, chaos) = (of(quiet), of(chaos));
            (chaos > SLOWER * quiet.max(FLOOR))
                .then(|| format!("{what}: p99 is {chaos:.2?}, and was {quiet:.2?} before"))
        };
        wrong.extend(ratio("all reviews", &|samples| p99(&reviews(samples))));
        wrong.extend(ratio("kept connections", &|samples| p99(of(samples, KEPT))));
        wrong.extend(self.attacks_wrong());
        wrong.extend(self.vitals_wrong());
        wrong.extend(self.metrics_wrong());
        wrong
    }

    /// The samples of the quiet phase, of the attacks, and of the end.
    fn phases(&self) -> [Vec<Sample>; 3] {
        let Self { start, quiet_until, chaos_until, steady, .. } = self;
        let end = Instant::now();
        [(*start, *quiet_until), (*quiet_until, *chaos_until), (*chaos_until, end)]
            .map(|(from, until)| between(steady, from, until))
    }

    /// Probes that a kubelet would count as failed.
    fn probes_wrong(&self, samples: &[Sample], draining: bool) -> Vec<String> {
        let mut probes: Vec<_> =
            [HEALTHZ, READYZ].iter().flat_map(|path| of(samples, path)).cloned().collect();
        for probe in &mut probes {
            if probe.took > PROBE_TIMEOUT {
                probe.outcome = Err("no answer within the time of a probe".to_owned());
            }
            if draining && probe.series == READYZ && probe.outcome == Ok(503) {
                probe.outcome = Ok(200);
            }
        }
        let failed = failures(&probes, self.start).map(|text| format!("probes: {text}"));
        let last = of(samples, READYZ).last().map(|probe| &probe.outcome);
        let ready = (draining && last != Some(&Ok(503)))
            .then(|| format!("it ends, and /readyz says {last:?}"));
        failed.into_iter().chain(ready).collect()
    }

    /// Bad clients that should have been thrown out, and those that have never come so far.
    fn attacks_wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, tally) in &self.attacks {
            if tally.done() < self.least() {
                wrong.push(format!("{name}: only {} came as far as they wanted", tally.done()));
            }
            if tally.must_end && tally.stayed > 0 {
                wrong.push(format!("{name}: {} were not thrown out", tally.stayed));
            }
            wrong.extend(tally.wrong.first().map(|what| format!("{name}: {what}")));
        }
        let Vanished { clients, half_open } = self.vanished;
        if half_open == 0 {
            wrong.push(format!("{clients} clients have vanished, and the webhook has noticed"));
        }
        wrong
    }

    /// So many of each kind have to have come as far as they wanted, a fifth of those that set out: what has
    /// hardly happened shows nothing.
    fn least(&self) -> usize {
        (self.chaos_until - self.quiet_until).as_secs() as usize / 6
    }

    fn vitals_wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let quiet = self.last_vitals(self.quiet_until);
        let end = self.last_vitals(self.chaos_until);
        let middle = self.last_vitals(self.quiet_until + (self.chaos_until - self.quiet_until) / 2);
        let files = self.vitals.iter().map(|(_, vitals)| vitals.files).max().unwrap();
        if files < CONNECTIONS / 2 {
            wrong.push(format!("with {files} open files at the most, there was no lack of room"));
        }
        if files > CONNECTIONS + OTHER_FILES {
            wrong.push(format!("{files} files were open at once"));
        }
        if end.peak > quiet.resident + MEMORY {
            wrong.push(format!("{} KiB before, {} KiB at the most", quiet.resident, end.peak));
        }
        if end.resident > middle.peak + GROWTH {
            wrong.push(format!("{} KiB half-way, {} KiB at the end", middle.peak, end.resident));
        }
        wrong
    }

    /// What has happened has to be in the metrics, and what hasn't must not.
    fn metrics_wrong(&self) -> Vec<String> {
        let value = |name: &str| {
            let name = format!("sfunnel_webhook_{name} ");
            let value = self.metrics.lines().find_map(|line| line.strip_prefix(&name));
            value.and_then(|value| value.parse::<u64>().ok())
        };
        let some = [
            "connections_closed_total{reason=\"handshake\"}",
            "connections_closed_total{reason=\"header\"}",
            "connections_closed_total{reason=\"room\"}",
            "tls_handshake_failures_total{reason=\"timeout\"}",
            "tls_handshake_failures_total{reason=\"failed\"}",
            "refusals_total{status=\"400\"}",
            "refusals_total{status=\"404\"}",
            "refusals_total{status=\"408\"}",
            "refusals_total{status=\"413\"}",
        ];
        let none = ["panics_total", "refusals_total{status=\"500\"}"];
        let missing = some.iter().filter(|name| value(name).is_none_or(|value| value == 0));
        let unwanted = none.iter().filter(|name| value(name) != Some(0));
        let wrong = missing.chain(unwanted);
        wrong.map(|name| format!("the metric {name} is {:?}", value(name))).collect()
    }

    fn last_vitals(&self, before: Instant) -> Vitals {
        let until = self.vitals.iter().rfind(|(at, _)| *at < before);
        until.unwrap_or(&self.vitals[0]).1
    }

    /// The figures, for people.
    pub fn print(&self) {
        for (name, tally) in &self.attacks {
            println!("{name:50} {tally}");
        }
        println!("{:?}", self.vanished);
        let phases = self.phases();
        for (name, samples) in ["quiet", "chaos", "drain"].iter().zip(&phases) {
            print!("{name}:");
            for series in [KEPT, SELDOM, NEW, LARGE, HEALTHZ, READYZ] {
                let count = of(samples, series).count();
                if count > 0 {
                    let (p50, p99) = (p50(of(samples, series)), p99(of(samples, series)));
                    let most = of(samples, series).map(|sample| sample.took).max().unwrap();
                    print!(
                        "\n  {series:9} {count:6}: p50 {p50:8.2?}, p99 {p99:8.2?}, all {most:8.2?}"
                    );
                }
            }
            println!();
        }
        for (name, from, until) in
            [("quiet", self.start, self.quiet_until), ("chaos", self.quiet_until, self.chaos_until)]
        {
            let (before, after) = (self.last_vitals(from), self.last_vitals(until));
            let busy = (after.busy - before.busy).as_secs_f64() / (until - from).as_secs_f64();
            println!("{name}: {after:?}, {:.0} % of a processor", 100.0 * busy);
        }
        let resident = self.vitals.iter().step_by(10).map(|(_, vitals)| vitals.resident / 1024);
        println!("MiB, every 10 s: {:?}", resident.collect::<Vec<_>>());
        self.print_slowest(&phases);
        let seconds = (self.chaos_until - self.quiet_until).as_secs_f64();
        let busy = self.attackers_busy.as_secs_f64() / seconds;
        println!("bad clients: {:.0} % of a processor", 100.0 * busy);
    }

    /// When it was slow.
    fn print_slowest(&self, [quiet, chaos, _]: &[Vec<Sample>; 3]) {
        let limit = SLOWER * p99(&reviews(quiet)).max(FLOOR);
        let mut slow = BTreeMap::<u64, usize>::new();
        for sample in reviews(chaos).iter().filter(|sample| sample.took > limit) {
            *slow.entry((sample.at - self.quiet_until).as_secs()).or_default() += 1;
        }
        println!("reviews slower than {limit:.1?}, by second of the attacks: {slow:?}");
    }
}

/// Reviews, of every kind.
fn reviews(samples: &[Sample]) -> Vec<Sample> {
    [KEPT, SELDOM, NEW, LARGE].iter().flat_map(|series| of(samples, series)).cloned().collect()
}

/// Memory in KiB that bad clients may cost at the most: 48 KiB for each connection that there is room for.
const MEMORY: u64 = 48 * CONNECTIONS;
/// Memory in KiB that may come in the second half of the attacks, which are the same as those of the first.
const GROWTH: u64 = 4 << 10;
