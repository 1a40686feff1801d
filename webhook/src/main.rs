//! Command line of the webhook: arguments, certificate, ports, run.

use anyhow::Context;
use clap::Parser;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use webhook::args::Args;
use webhook::serve::Server;
use webhook::{log, tls};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    log::init(args.log_format, args.log_level);
    let config = args.config()?;
    tracing::info!(config = ?config.admission, options = ?config.options, tls = ?config.tls, "starting");

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
