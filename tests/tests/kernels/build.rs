//! The test executables and the loader for an architecture.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tests::binary::{cargo, without_cargos_variables};
use tests::netns::Checked as _;

use super::jobs::JOBS;

/// Files that are copied into a guest.
pub struct Programs {
    /// Names and places of test executables.
    pub tests: Vec<(String, PathBuf)>,
    /// The loader as its image has it.
    pub loader: Vec<u8>,
}

impl Programs {
    /// Builds the executables, which mostly are there, and takes the loader from its image.
    pub fn build(arch: &str) -> Result<Self> {
        let native = arch == host();
        let mut names: Vec<_> = JOBS.iter().map(|job| job.executable).collect();
        names.sort_unstable();
        names.dedup();
        let mut cargo = if native {
            cargo()
        } else {
            let mut cross = Command::new(workspace("tests/cross.sh"));
            // Nobody debugs in a guest.
            cross.args([arch, env!("CARGO")]).env("CARGO_PROFILE_DEV_DEBUG", "0");
            without_cargos_variables(cross)
        };
        cargo.current_dir(workspace("")).args(["test", "--no-run", "--locked", "--quiet"]);
        cargo.arg("--message-format=json");
        if !native {
            // The others of the workspace are not needed.
            cargo.args(["--package", "tests"]);
        }
        for name in &names {
            cargo.args(["--test", name]);
        }
        let messages = cargo.checked()?;
        let tests = names
            .into_iter()
            .map(|name| {
                let place = executable(&messages, name);
                Ok((name.to_owned(), place.with_context(|| format!("cargo has built no {name}"))?))
            })
            .collect::<Result<_>>()?;
        Ok(Self { tests, loader: loader(arch, native)? })
    }
}

/// This machine's architecture, as Debian calls it.
fn host() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn workspace(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The executable of this name in what cargo says: a line of JSON for each thing that it has built.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut built = messages.filter(|message| message["target"]["name"] == name);
    built.find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// The one file of the loader's image: a docker-archive, in which layers are archives themselves.
fn loader(arch: &str, native: bool) -> Result<Vec<u8>> {
    if native && let Some(path) = std::env::var_os("SFUNNEL_LOADER") {
        return fs::read(&path).with_context(|| format!("reading {}", Path::new(&path).display()));
    }
    let suffix = if native { String::new() } else { format!("-{arch}") };
    let path = workspace(&format!("target/images/loader{suffix}.tar"));
    let image = fs::File::open(&path)
        .with_context(|| format!("{}; `make images` builds it", path.display()))?;
    let mut image = tar::Archive::new(image);
    for layer in image.entries()? {
        let layer = layer?;
        if layer.path()?.extension() != Some("tar".as_ref()) {
            continue;
        }
        for file in tar::Archive::new(layer).entries()? {
            let mut file = file?;
            if file.path()?.file_name() == Some("sfunnel-loader".as_ref()) {
                let mut program = Vec::new();
                file.read_to_end(&mut program)?;
                return Ok(program);
            }
        }
    }
    Err(io::Error::other("no layer has sfunnel-loader")).with_context(|| path.display().to_string())
}

/// Writes an executable of this architecture without its debug information, which is nine tenths of it.
pub fn strip(from: &Path, to: &Path, arch: &str) -> Result<()> {
    let objcopy = match arch {
        "arm64" => "aarch64-linux-gnu-objcopy",
        _ => "x86_64-linux-gnu-objcopy",
    };
    let mut command = Command::new(objcopy);
    command.arg("--strip-debug").args([from, to]).checked().map(drop)
}
