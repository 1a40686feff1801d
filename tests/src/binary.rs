//! The programs under test, as files.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::netns::Checked as _;

/// `sfunnel-loader`, or what the variable `SFUNNEL_LOADER` names.
///
/// # Panics
///
/// If it can't be built.
pub fn loader() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("SFUNNEL_LOADER", "sfunnel-loader")).clone()
}

/// `sfunnel-webhook`, or what the variable `SFUNNEL_WEBHOOK` names.
///
/// # Panics
///
/// If it can't be built.
pub fn webhook() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("SFUNNEL_WEBHOOK", "sfunnel-webhook")).clone()
}

/// `sfunnel-example`, or what the variable `SFUNNEL_EXAMPLE` names.
///
/// # Panics
///
/// If it can't be built.
pub fn example() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| built("SFUNNEL_EXAMPLE", "sfunnel-example")).clone()
}

/// Cargo, as from a shell.
pub fn cargo() -> Command {
    without_cargos_variables(Command::new(env!("CARGO")))
}

/// Takes away what cargo tells the programs that it runs: some crates are built anew where it is
/// another than the last time, as it is for each package.
pub fn without_cargos_variables(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// Builds with the profile that this program was built with, into the same directory.
fn built(variable: &str, binary: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--manifest-path"]);
    cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"));
    // All of them: one package alone would get other features of its dependencies, and so be built
    // anew.
    cargo.arg("--bins");
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    cargo.checked().unwrap_or_else(|error| panic!("{error:#}"));
    // target/debug/deps/test-0123, target/debug/demo
    let this = std::env::current_exe().expect("this program is a file");
    this.ancestors()
        .skip(1)
        .map(|directory| directory.join(binary))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{binary} is not in the directories above {}", this.display()))
}
