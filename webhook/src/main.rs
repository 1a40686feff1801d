//! Command line of the webhook: arguments, certificate, ports, run.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use webhook::args::{Args, Config};
use webhook::clock::Clock;
use webhook::serve::Server;
use webhook::{log, tls};

fn main() -> ExitCode {
    let args = Args::read();
    log::init(args.log_format, args.log_level);
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Threads for connections, at the most: each has memory of its own, also on a node of a hundred cores,
/// and one decides thousands of reviews a second.
const MAX_THREADS: usize = 4;

fn start(args: Args) -> anyhow::Result<()> {
    let (format, level) = (args.log_format, args.log_level);
    let config = args.config()?;
    log::starting(&config, format, level);
    allow_open_files(config.options.open_files())?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(cores.min(MAX_THREADS))
        // Large reviews, and now and then a file.
        .max_blocking_threads(config.admission.max_reviews + 1)
        .build()
        .context("starting threads")?
        .block_on(run(config))
}

/// Containers often begin with 1,024 open files, and may have many more.
fn allow_open_files(needed: usize) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = needed as u64;
    // Nothing is unlimited.
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    anyhow::ensure!(
        maximum.is_none_or(|maximum| maximum >= needed),
        "--max-connections needs {needed} open files, and this process may have {}; lower it, or raise \
         the hard limit (ulimit -Hn, RLIMIT_NOFILE)",
        maximum.unwrap_or_default()
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .with_context(|| format!("raising the limit of open files to {needed}"))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let mut kept = config.tls.keep(Clock::system())?;
    let tls = tls::server_config(kept.served())?;
    let server = Server::bind(config.options).await?;
    let mut lost = false;
    server
        .run(tls, kept.served(), config.admission, async {
            tokio::select! {
                () = stop => {}
                () = kept.lost() => lost = true,
            }
        })
        .await;
    anyhow::ensure!(!lost, "the task that keeps the certificate has ended");
    Ok(())
}

/// SIGTERM comes from the kubelet, SIGINT from a keyboard.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
