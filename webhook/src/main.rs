//! Command line of the webhook: arguments, certificate, ports, run.

use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use webhook::args::Args;
use webhook::clock::Clock;
use webhook::serve::Server;
use webhook::{log, tls};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::read();
    log::init(args.log_format, args.log_level);
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let config = args.config()?;
    log::starting(&config);

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
