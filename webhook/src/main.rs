//! Command line of the webhook: arguments, certificate, ports, run.

use std::process::ExitCode;

use anyhow::Context;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use webhook::args::Args;
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

    let pair = config.tls.pair(OffsetDateTime::now_utc())?;
    tracing::info!(not_after = %pair.validity().not_after, "certificate");
    let tls = tls::server_config(&pair)?;
    let stop = stop_signal()?;
    let server = Server::bind(config.options).await?;
    server.run(tls, config.admission, stop).await;
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
