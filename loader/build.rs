//! Builds the BPF object that the loader carries.
//!
//! In this order:
//! 1. `SFUNNEL_BPF_OBJECT` names a ready object.
//! 2. A stable compiler that has `core` for the BPF target: `SFUNNEL_BPF_RUSTC`, or Debian's
//!    `/usr/bin/rustc` with the package libstd-rust-web-dev-bpf.
//! 3. A nightly toolchain of rustup with rust-src, through `aya-build`.
//!
//! The last two need `bpf-linker`, where `make setup` puts it or on PATH.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

const TARGET: &str = "bpfel-unknown-none";
const CRATE: &str = "injector-bpf";
const BINARY: &str = "sfunnel";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        // In one line, whatever RUST_BACKTRACE says.
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    for name in ["SFUNNEL_BPF_OBJECT", "SFUNNEL_BPF_RUSTC", "SFUNNEL_CACHE"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    // Not of the time when this was compiled: the folder may have been moved, with its target.
    let folder = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let workspace = Path::new(&folder).parent().context("no workspace")?;
    for path in [CRATE, "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let object = out.join(BINARY);

    if let Some(ready) = env::var_os("SFUNNEL_BPF_OBJECT") {
        println!("cargo::rerun-if-changed={}", Path::new(&ready).display());
        fs::copy(&ready, &object).with_context(|| {
            format!("SFUNNEL_BPF_OBJECT: can't read {}", Path::new(&ready).display())
        })?;
        return say(&out, &format!("ready object {}", Path::new(&ready).display()));
    }
    let Some(linker) = bpf_linker() else {
        bail!(
            "bpf-linker is missing: run `make setup`, or `cargo install bpf-linker` with an LLVM as \
             new as the compiler's"
        );
    };
    if let Some(rustc) = stable_with_bpf_core() {
        build_with(&rustc, &linker, workspace, &out)?;
        return say(&out, &format!("{}, which has core for {TARGET}", rustc.display()));
    }
    if nightly_has_rust_src() {
        // aya-build takes the linker from PATH.
        let mut path = vec![linker.parent().unwrap_or(Path::new("/")).to_owned()];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        // SAFETY: no other thread runs yet.
        unsafe { env::set_var("PATH", env::join_paths(path)?) };
        let root = workspace.join(CRATE);
        let root_dir = root.to_str().context("the path of the project is not UTF-8")?;
        let package = aya_build::Package { name: CRATE, root_dir, ..Default::default() };
        aya_build::build_ebpf([package], aya_build::Toolchain::Nightly)?;
        return say(&out, "rustup's nightly, through aya-build");
    }
    bail!(
        "nothing here compiles for {TARGET}: install Debian's rustc-web, cargo-web and \
         libstd-rust-web-dev-bpf (`make setup` does), or `rustup toolchain install nightly \
         --component rust-src`"
    );
}

/// Leaves a word on the way that was taken beside the object: `sfunnel-loader --version` shows it.
fn say(out: &Path, how: &str) -> Result<()> {
    println!("cargo::rustc-env=SFUNNEL_BPF_BUILD={how}");
    fs::write(out.join("bpf-build.txt"), how).context("can't write to OUT_DIR")
}

fn nightly_has_rust_src() -> bool {
    let sysroot =
        Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        output.status.success() && sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
    })
}

/// In the cache that `make setup` fills, with the LLVM that goes with the compiler, or on PATH.
fn bpf_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|dir| dir.join("bpf-linker"));
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = env::var_os("SFUNNEL_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let caches = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        caches.unwrap_or_else(|| home.join(".cache")).join("sfunnel")
    });
    let cached = fs::read_dir(cache).into_iter().flatten().flatten();
    let mut cached: Vec<PathBuf> =
        cached.map(|entry| entry.path().join("bin").join("bpf-linker")).collect();
    // What was not finished has another ending.
    cached.retain(|path| !path.to_string_lossy().contains(".new"));
    // The newest version last in order, first in line.
    cached.sort_by(|a, b| b.cmp(a));
    cached.into_iter().chain(on_path).find(|path| path.is_file())
}

fn stable_with_bpf_core() -> Option<PathBuf> {
    let candidates = [
        env::var_os("SFUNNEL_BPF_RUSTC").map(PathBuf::from),
        Some(PathBuf::from("/usr/bin/rustc")),
    ];
    candidates.into_iter().flatten().find(|rustc| {
        let Ok(output) = Command::new(rustc)
            .args(["--print", "target-libdir", "--target", TARGET])
            .env_remove("RUSTUP_TOOLCHAIN")
            .output()
        else {
            return false;
        };
        let libdir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        fs::read_dir(libdir).is_ok_and(|files| {
            files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
        })
    })
}

/// Builds with the cargo beside `rustc`.
fn build_with(rustc: &Path, linker: &Path, workspace: &Path, out: &Path) -> Result<()> {
    let cargo = rustc.with_file_name("cargo");
    let target_dir = out.join("bpf-target");
    let mut command = Command::new(&cargo);
    command
        .current_dir(workspace)
        .args(["build", "--release", "--locked", "--package", CRATE, "--target", TARGET])
        .arg("--target-dir")
        .arg(&target_dir);
    // What this build was told is not meant for the other compiler.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let ours =
            name.starts_with("CARGO_") && name != "CARGO_HOME" && !name.starts_with("CARGO_NET_");
        if ours
            || matches!(
                &*name,
                "RUSTFLAGS"
                    | "RUSTC"
                    | "RUSTDOC"
                    | "RUSTUP_TOOLCHAIN"
                    | "RUSTC_WRAPPER"
                    | "RUSTC_WORKSPACE_WRAPPER"
            )
        {
            command.env_remove(&*name);
        }
    }
    let status = command
        .env("RUSTC", rustc)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        // aya-ebpf asks for `asm_experimental_arch` on the BPF target.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .status()
        .with_context(|| format!("can't run {}", cargo.display()))?;
    if !status.success() {
        bail!("{} could not build {CRATE}: {status}", cargo.display());
    }
    fs::copy(target_dir.join(TARGET).join("release").join(BINARY), out.join(BINARY))
        .context("the BPF object is not where cargo should have put it")?;
    Ok(())
}
