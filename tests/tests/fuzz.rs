//! The fuzz targets without a fuzzer: their bodies on stable Rust, on their seeds and on what a seeded
//! generator makes of them. `make fuzz` looks further.
//!
//! A crash that it found is kept as a seed: copy it to `tests/fuzz/seeds/TARGET/`.

use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore as _};
use ruleset::MAX_TEXT;

// What the bodies need, as the fuzz targets' crate has it.
use loader::settings as loader_settings;
use tests::{choices, injection, naive, pods, random, verbatim};

#[path = "../src/fuzz/mod.rs"]
mod fuzz;

/// A target with its seeds.
struct Target {
    name: &'static str,
    check: fn(&[u8]),
    seeds: Vec<Vec<u8>>,
    rng: StdRng,
    /// Bytes that change the meaning of a text.
    bytes: &'static [u8],
}

/// Where an input is kept that does not hold.
struct Kept<'a>(&'static str, &'a [u8]);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}", self.0));
            std::fs::write(&path, self.1).expect("the input can be kept");
            eprintln!("the input is in {}", path.display());
        }
    }
}

impl Target {
    /// Reads the seeds, and checks each of them.
    fn new(name: &'static str, check: fn(&[u8]), bytes: &'static [u8]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let mut seeds: Vec<_> = files.map(|path| std::fs::read(path).unwrap()).collect();
        // Folders are listed in any order.
        seeds.sort();
        assert!(seeds.len() > 10, "{} seeds", seeds.len());
        let target = Self { name, check, seeds, rng: random::rng(6), bytes };
        target.seeds.iter().for_each(|seed| target.check(seed));
        target
    }

    fn check(&self, input: &[u8]) {
        let _kept = Kept(self.name, input);
        (self.check)(input);
    }

    /// Checks so many texts that are seeds with changes.
    fn check_changed(&mut self, count: usize) {
        for _ in 0..count {
            let mut text = self.seeds.choose(&mut self.rng).unwrap().clone();
            for _ in 0..self.rng.random_range(1..=4) {
                self.change(&mut text);
            }
            self.check(&text);
        }
    }

    /// Removes, repeats, replaces or brings in something.
    fn change(&mut self, text: &mut Vec<u8>) {
        let rng = &mut self.rng;
        let at = rng.random_range(0..=text.len());
        let end = (at + rng.random_range(0..12)).min(text.len());
        match rng.random_range(0..4) {
            0 => drop(text.drain(at..end)),
            1 => {
                let piece = text[at..end].to_vec();
                text.splice(at..at, piece);
            }
            2 => {
                let byte = *self.bytes.choose(rng).unwrap();
                text.splice(at..end.min(at + 1), [byte]);
            }
            _ => {
                let other = self.seeds.choose(rng).unwrap();
                let from = rng.random_range(0..=other.len());
                let to = (from + rng.random_range(0..40)).min(other.len());
                text.splice(at..at, other[from..to].iter().copied());
            }
        }
    }

    /// Checks so many times any bytes: for targets that take them as choices.
    fn check_any(&mut self, count: usize, most: usize) {
        for _ in 0..count {
            let mut bytes = vec![0; self.rng.random_range(0..most)];
            self.rng.fill_bytes(&mut bytes);
            self.check(&bytes);
        }
    }
}

#[test]
fn rulesets() {
    let words = b" \t\r\n;#!={},-./0169:adpst\0\x1b\xc3\xa9";
    let mut target = Target::new("ruleset", fuzz::ruleset::check, words);
    target.check_changed(5000);
    // Around the limit, whatever stands there.
    for end in [";", "#", "a", " ", "\n", "\u{e9}", "\u{1f34e}"] {
        for len in MAX_TEXT - 5..=MAX_TEXT + 1 {
            let text = format!("tcp actions drop;{}{}", " ".repeat(len - 17), end.repeat(9));
            target.check(text.as_bytes());
        }
    }
}

/// Bytes that mean something in JSON.
const JSON: &[u8] = b"{}[]\",:\\/ \n0159-+.etfnu\0\x1b\xc3\xa9";

#[test]
fn annotations() {
    let mut target = Target::new("annotations", fuzz::annotations::check, JSON);
    target.check_changed(2000);
    target.check_any(2000, 200);
}

#[test]
fn reviews() {
    let mut target = Target::new("review", fuzz::review::check, JSON);
    target.check_changed(1000);
    target.check_any(3000, 1000);
}

#[test]
fn certificates() {
    let words = b"-=\n\r AZ+/\0\xff";
    let mut target = Target::new("certificates", fuzz::certificates::check, words);
    target.check_changed(1000);
    target.check_any(2000, 100);
}
