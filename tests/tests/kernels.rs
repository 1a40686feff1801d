//! Loader, program and traffic on every kernel that the documents name: real ones, each booted under
//! qemu, where the tests of this folder run as they run here.
//!
//! ```text
//! kernels/list.txt   which kernels
//! kernels/fetch.sh   their files, and a root file system for each architecture
//! kernels/init       PID 1 of a guest
//! kernels/jobs.rs    what is tested there: the columns of the table
//! kernels/guest.rs   one guest: its image, qemu, what it says
//! kernels/build.rs   the test executables and the loader for an architecture
//! ```
//!
//! They need root, `make images`, and what `tests/setup.sh kernels` installs. `KERNEL=6.1` is for one
//! line, `KERNEL=newest` for the newest kernel that Debian has.

#[path = "kernels/build.rs"]
mod build;
#[path = "kernels/guest.rs"]
mod guest;
#[path = "kernels/jobs.rs"]
mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use tests::netns::Checked as _;

use self::build::Programs;
use self::guest::Report;
use self::jobs::JOBS;

/// Guests at a time: each is a busy processor.
const AT_A_TIME: usize = 2;

/// A kernel of the list.
pub struct Kernel {
    version: String,
    /// `amd64` or `arm64`.
    arch: String,
    /// Has `vmlinuz` and `modules.cpio`.
    folder: PathBuf,
    /// A root file system, as a cpio archive.
    root: PathBuf,
}

/// What `fetch.sh` prints: line, version, architecture, folder, root file system.
fn kernels() -> Result<Vec<Kernel>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/kernels/fetch.sh");
    let printed = Command::new(script).checked()?;
    let kernel = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, version, arch, folder, root] = words[..] else { return None };
        Some(Kernel {
            version: version.into(),
            arch: arch.into(),
            folder: folder.into(),
            root: root.into(),
        })
    };
    printed.lines().map(|line| kernel(line).with_context(|| line.to_owned())).collect()
}

#[test]
fn everything_works_on_each() -> Result<()> {
    let kernels = kernels()?;
    let architectures: BTreeSet<_> = kernels.iter().map(|kernel| kernel.arch.as_str()).collect();
    let programs: BTreeMap<_, _> = architectures
        .into_iter()
        .map(|arch| Ok((arch, Programs::build(arch)?)))
        .collect::<Result<_>>()?;

    let waiting = Mutex::new(kernels.iter().enumerate().rev().collect::<Vec<_>>());
    let reports = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some((number, kernel)) = next(&waiting) {
                    say(&format!("Linux {}, {}: booting", kernel.version, kernel.arch));
                    let report = guest::run(kernel, &programs[kernel.arch.as_str()]);
                    let end = match &report {
                        Ok(report) => report.summary(),
                        Err(error) => format!("{error:#}"),
                    };
                    say(&format!("Linux {}, {}: {end}", kernel.version, kernel.arch));
                    reports.lock().expect("nobody panics").insert(number, report);
                }
            });
        }
    });
    let reports = reports.into_inner()?.into_values().collect::<Result<Vec<_>>>()?;

    say(&table(&kernels, &reports));
    for (kernel, report) in kernels.iter().zip(&reports) {
        ensure!(
            report.is_good(),
            "Linux {}, {}:\n{}",
            kernel.version,
            kernel.arch,
            report.failures()
        );
    }
    Ok(())
}

fn next<T>(waiting: &Mutex<Vec<T>>) -> Option<T> {
    waiting.lock().expect("nobody panics").pop()
}

/// A line for each kernel, a column for each job, and the verifier's figures.
fn table(kernels: &[Kernel], reports: &[Report]) -> String {
    let mut text = format!("{:<10} {:<6}", "Linux", "");
    for job in &JOBS {
        text += &format!(" {:>12}", job.title);
    }
    for (kernel, report) in kernels.iter().zip(reports) {
        text += &format!("\n{:<10} {:<6}", kernel.version, kernel.arch);
        for job in &JOBS {
            text += &format!(" {:>12}", report.cell(job.title));
        }
    }
    for (kernel, report) in kernels.iter().zip(reports) {
        for line in report.figures() {
            text += &format!("\nLinux {}, {}: {line}", kernel.version, kernel.arch);
        }
    }
    text
}

/// Prints something, also where the test passes.
fn say(text: &str) {
    // Unlike println!, this is not captured.
    writeln!(stdout(), "{text}").expect("standard output");
}
