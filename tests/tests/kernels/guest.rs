//! One guest: its image, qemu, and what it says.

use std::fs::{self, File};
use std::io::copy;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::netns::Checked as _;

use super::Kernel;
use super::build::{Programs, strip, workspace};
use super::jobs::JOBS;

/// The longest that a guest may take, on a machine with more to do.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// What a guest has said.
pub struct Report {
    lines: Vec<String>,
    elapsed: Duration,
}

/// Boots the kernel, and waits until it has done all jobs. What it says is in target/kernels as well.
pub fn run(kernel: &Kernel, programs: &Programs) -> Result<Report> {
    let start = Instant::now();
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("initramfs");
    make_image(kernel, programs, folder.path(), &image)?;

    let logs = workspace("target/kernels");
    fs::create_dir_all(&logs)?;
    let log = logs.join(format!("{}-{}.log", kernel.version, kernel.arch));
    let mut qemu = qemu(&kernel.arch);
    let mut child = qemu
        .args(["-smp", "1", "-m", "1024", "-nodefaults", "-nographic", "-no-reboot"])
        .args(["-serial", "stdio", "-net", "none"])
        .arg("-kernel")
        .arg(kernel.folder.join("vmlinuz"))
        .arg("-initrd")
        .arg(&image)
        .stdin(Stdio::null())
        .stdout(File::create(&log).with_context(|| log.display().to_string())?)
        .spawn()
        .with_context(|| format!("{qemu:?}; `tests/setup.sh kernels` installs it"))?;
    while child.try_wait()?.is_none() {
        if start.elapsed() > LIMIT {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let said = fs::read(&log)?;
    let lines = String::from_utf8_lossy(&said).lines().map(|line| line.trim().to_owned()).collect();
    Ok(Report { lines, elapsed: start.elapsed() })
}

fn qemu(arch: &str) -> Command {
    let (program, machine, processor, console) = match arch {
        "arm64" => ("qemu-system-aarch64", "virt", "cortex-a72", "ttyAMA0"),
        _ => ("qemu-system-x86_64", "pc", "max", "ttyS0"),
    };
    let mut command = Command::new(program);
    command.args(["-M", machine, "-cpu", processor, "-append"]);
    // A panic ends qemu, as it may not reboot.
    command.arg(format!("console={console} panic=-1 quiet loglevel=4"));
    command
}

/// The kernel unpacks several archives, one behind the other.
fn make_image(kernel: &Kernel, programs: &Programs, folder: &Path, image: &Path) -> Result<()> {
    let own = folder.join("own");
    fs::create_dir_all(own.join("tests"))?;
    for (name, executable) in &programs.tests {
        strip(executable, &own.join("tests").join(name), &kernel.arch)?;
    }
    for (name, content) in
        [("init", &include_bytes!("../../kernels/init")[..]), ("sfunnel-loader", &programs.loader)]
    {
        let file = own.join(name);
        fs::write(&file, content)?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
    }
    let jobs = JOBS.iter().map(|job| format!("{}\t{}\n", job.title, job.command()));
    fs::write(own.join("jobs"), jobs.collect::<String>())?;

    let archive = folder.join("own.cpio");
    Command::new("sh")
        .args(["-c", "find . | cpio --create --format=newc --quiet --owner=0:0 >../own.cpio"])
        .current_dir(&own)
        .checked()?;
    let mut whole = File::create(image)?;
    for part in [&kernel.root, &kernel.folder.join("modules.cpio"), &archive] {
        let mut part = File::open(part).with_context(|| part.display().to_string())?;
        copy(&mut part, &mut whole)?;
    }
    Ok(())
}

impl Report {
    /// What the guest says of a job: its status and seconds.
    fn job(&self, title: &str) -> Option<(&str, &str)> {
        let start = format!("guest: job {title}, status ");
        let (status, seconds) =
            self.lines.iter().find_map(|line| line.strip_prefix(&start))?.split_once(", ")?;
        Some((status, seconds))
    }

    /// The tests of a job that have passed.
    fn passed(&self, title: &str) -> u32 {
        let mut passed = 0;
        for line in &self.lines {
            if let Some(result) = line.strip_prefix("test result: ") {
                let number =
                    result.split_whitespace().nth(1).and_then(|number| number.parse().ok());
                passed = number.unwrap_or(0);
            } else if line.starts_with(&format!("guest: job {title},")) {
                return passed;
            } else if line.starts_with("guest: job ") {
                passed = 0;
            }
        }
        0
    }

    /// Whether a job has run at least one test, and all of them passed.
    fn is_done(&self, title: &str) -> bool {
        self.job(title).is_some_and(|(status, _)| status == "0") && self.passed(title) > 0
    }

    pub fn is_good(&self) -> bool {
        JOBS.iter().all(|job| self.is_done(job.title))
    }

    /// A cell of the table.
    pub fn cell(&self, title: &str) -> String {
        match self.job(title) {
            Some((_, seconds)) if self.is_done(title) => format!("ok, {seconds}"),
            Some(_) => "FAILED".into(),
            None => "-".into(),
        }
    }

    /// What the verifier had to do.
    pub fn figures(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| {
            // With --nocapture the test's name may stand in front.
            line.find("verifier: ").map(|at| &line[at..])
        })
    }

    pub fn summary(&self) -> String {
        let good = JOBS.iter().filter(|job| self.is_done(job.title)).count();
        format!("{good} of {} jobs, {} s", JOBS.len(), self.elapsed.as_secs())
    }

    /// All that was said during jobs that failed, and since the last one.
    pub fn failures(&self) -> String {
        let (mut said, mut kept) = (Vec::new(), Vec::new());
        for line in &self.lines {
            said.push(line.as_str());
            if line.starts_with("guest: job ") {
                let good = JOBS.iter().any(|job| {
                    line.starts_with(&format!("guest: job {},", job.title))
                        && self.is_done(job.title)
                });
                if !good {
                    kept.append(&mut said);
                }
                said.clear();
            }
        }
        kept.append(&mut said);
        kept.join("\n")
    }
}
