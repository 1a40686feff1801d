//! `sfunnel-example`: see `--help`.

mod answer;
mod ask;
mod http;
mod serve;

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::answer::Port;
use crate::ask::{Questions, Tally, Verdict};
use crate::serve::Server;

/// Neither of the exit statuses that say what `ask` saw.
const FAILED: u8 = 3;

/// The program of sfunnel's examples: shows which pod serves which port of a client.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answers on every port with the name of the pod and the client's address, also to HTTP.
    #[command(arg_required_else_help = true)]
    Serve {
        /// TCP ports, separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "PORTS", required_unless_present = "udp")]
        tcp: Vec<u16>,

        /// UDP ports, separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "PORTS")]
        udp: Vec<u16>,

        /// The name to answer with. By default the variable POD_NAME or HOSTNAME, or the host's name.
        #[arg(long, value_parser = word)]
        name: Option<String>,
    },
    /// Asks all ports, and says whether one pod answered.
    ///
    /// Exit status: 0 when one pod answered on all ports, 1 when several did, 2 when a port did not
    /// answer, 3 when nothing could be asked. With several clients or rounds the worst counts.
    #[command(arg_required_else_help = true)]
    Ask {
        /// Addresses to ask from, each a client of its own, separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "ADDRESSES")]
        from: Vec<IpAddr>,

        /// How long to wait for one answer.
        #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
        timeout: Duration,

        /// How often to ask everything. 0: until stopped.
        #[arg(long, default_value_t = 1, value_name = "TIMES")]
        repeat: u64,

        /// The time between the rounds.
        #[arg(long, default_value = "1", value_parser = seconds, value_name = "SECONDS")]
        interval: Duration,

        /// The server: an address or a name.
        host: String,

        /// Ports, such as tcp:80 and udp:2055.
        #[arg(required = true)]
        ports: Vec<Port>,
    },
}

/// A duration in seconds, such as `2` or `0.5`.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// A name that can stand in an answer.
fn word(text: &str) -> Result<String, &'static str> {
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        [word] if word == text => Ok(text.to_owned()),
        _ => Err("one word, without blanks"),
    }
}

fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| {
        let status = if error.use_stderr() { FAILED } else { 0 };
        let _ = error.print();
        std::process::exit(status.into())
    });
    match run(args.command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: Command) -> anyhow::Result<u8> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        // The first process of a container has no default for these: without a handler it would go on,
        // and be killed when the grace period is over.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            status = obey(command) => status,
            _ = terminate.recv() => Ok(0),
            _ = interrupt.recv() => Ok(0),
        }
    });
    // A name that is being resolved need not be waited for.
    runtime.shutdown_background();
    status
}

async fn obey(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Serve { tcp, udp, name } => {
            match serve(name.map_or_else(own_name, Ok)?, &tcp, &udp).await? {}
        }
        Command::Ask { from, timeout, repeat, interval, host, ports } => {
            let questions = Questions { host, ports, patience: timeout };
            Ok(ask(&questions, &from, repeat, interval).await?.exit_status())
        }
    }
}

async fn serve(name: String, tcp: &[u16], udp: &[u16]) -> anyhow::Result<Infallible> {
    let server = Server::bind(name.clone(), tcp, udp)?;
    let ports: Vec<String> = server.ports()?.iter().map(Port::to_string).collect();
    writeln!(io::stdout(), "{name} serves {}", ports.join(" "))?;
    server.run().await
}

/// The name of the pod, or else of the host.
fn own_name() -> anyhow::Result<String> {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let name = set("POD_NAME").or_else(|| set("HOSTNAME")).map_or_else(
        || {
            let name = fs::read_to_string("/proc/sys/kernel/hostname");
            name.map(|name| name.trim().to_owned()).context("what is the host's name? Set --name")
        },
        Ok,
    )?;
    word(&name).map_err(|error| anyhow::anyhow!("{name:?} can't be a name: {error}. Set --name"))
}

/// The worst verdict of all rounds.
async fn ask(
    questions: &Questions,
    from: &[IpAddr],
    repeat: u64,
    interval: Duration,
) -> anyhow::Result<Verdict> {
    let clients: Vec<Option<IpAddr>> =
        if from.is_empty() { vec![None] } else { from.iter().copied().map(Some).collect() };
    let mut worst = Verdict::Same;
    let mut round = 0;
    loop {
        let mut tally = Tally::default();
        for &client in &clients {
            let seen = questions.ask(client).await;
            for line in seen.lines {
                writeln!(io::stdout(), "{line}")?;
            }
            tally.add(seen.verdict);
        }
        writeln!(io::stdout(), "{tally}")?;
        worst = worst.max(tally.worst());
        round += 1;
        if round == repeat {
            return Ok(worst);
        }
        sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_name_is_one_word() {
        assert_eq!(word("web-0").as_deref(), Ok("web-0"));
        for text in ["", " ", "web 0", "web-0\n"] {
            assert!(word(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn seconds_are_neither_negative_nor_endless() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["-1", "inf", "NaN", "1s", ""] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }
}
