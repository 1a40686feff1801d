//! Command line of the webhook: arguments, certificate, ports, run.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use webhook::args::{Args, Config};
use webhook::certificates::clock::Clock;
use webhook::log;
use webhook::server::Server;

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

/// Threads for connections, at the most: each needs memory, also on a node of a hundred cores, and one
/// decides thousands of reviews a second.
const MAX_THREADS: usize = 4;

fn start(args: Args) -> anyhow::Result<()> {
    let (format, level) = (args.log_format, args.log_level);
    let config = args.config()?;
    config.log(format, level);
    allow_open_files(config.options.open_files())?;
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(cores.min(MAX_THREADS))
        // Large reviews, and now and then a file.
        .max_blocking_threads(config.options.limits.max_reviews + 1)
        .build()
        .context("starting threads")?
        .block_on(run(config))
}

/// Containers often begin with 1,024 open files, and may have many more.
fn allow_open_files(needed: usize) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = needed as u64;
    // None is unlimited.
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    ensure!(
        maximum.is_none_or(|maximum| maximum >= needed),
        "--max-connections needs {needed} open files, and this process may have {}; lower it, or raise \
         the hard limit (ulimit -Hn, RLIMIT_NOFILE)",
        maximum.unwrap_or_default()
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })
        .with_context(|| format!("raising the limit of open files to {needed}"))
}

async fn run(config: Config) -> anyhow::Result<()> {
    let (mut signals, mut again) = (Signals::new()?, Signals::new()?);
    let mut renewal = config.tls.start(Clock::system())?;
    let server = Server::bind(config.options).await?;
    let (resolver, mut failed) = (renewal.resolver(), false);
    let stop = async {
        tokio::select! {
            () = signals.next() => {}
            () = renewal.failed() => failed = true,
        }
    };
    let second_signal = async {
        again.next().await;
        again.next().await;
    };
    tokio::select! {
        result = server.run(resolver, config.settings, stop) => result.context("setting up TLS")?,
        () = second_signal => bail!("ended by a second signal, before the last request was answered"),
    }
    ensure!(!failed, "the task that renews the certificate has ended");
    Ok(())
}

/// SIGTERM comes from the kubelet, SIGINT from a keyboard.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
