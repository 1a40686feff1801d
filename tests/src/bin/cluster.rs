//! A Kubernetes node for trying things out: `make cluster`, `make cluster-down`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use tests::cluster::{Cluster, Folder, Options, ProxyMode, programs, run_node, run_supervisor};

/// A Kubernetes node in namespaces of its own.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster, and print how to reach it.
    Up {
        #[command(flatten)]
        common: Common,
        #[arg(long, default_value = "iptables")]
        proxy_mode: ProxyMode,
    },
    /// End a cluster, and remove every trace of it.
    Down {
        #[arg(long, default_value = "dev")]
        name: String,
    },
    /// What `up` starts: makes the cluster and stays until it is to end.
    #[command(hide = true)]
    Supervise {
        #[command(flatten)]
        common: Common,
        #[arg(long)]
        proxy_mode: ProxyMode,
        #[arg(long)]
        until_stdin_closes: bool,
    },
    /// What the supervisor starts in new namespaces.
    #[command(hide = true)]
    Node {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args)]
struct Common {
    /// Tells the cluster from others on this machine.
    #[arg(long, default_value = "dev")]
    name: String,
    /// Folder with the programs of a node. [default: those that tests/cluster/programs.sh builds]
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Image to import, a docker-archive or an OCI layout in a tar file. Repeat it for more.
    #[arg(long = "image", value_name = "FILE")]
    images: Vec<PathBuf>,
}

impl Common {
    fn options(self, proxy_mode: ProxyMode) -> Result<Options> {
        let programs = self.programs.map_or_else(programs, Ok)?;
        Ok(Options { name: self.name, proxy_mode, programs, images: self.images })
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { common, proxy_mode } => {
            let options = common.options(proxy_mode)?;
            if Cluster::is_up(&options.name) {
                eprintln!(
                    "cluster: {} is up already, with the images that it was given",
                    options.name
                );
            } else {
                Cluster::start_detached(&options, &std::env::current_exe()?)?;
            }
            println!("export KUBECONFIG='{}'", Folder::named(&options.name).kubeconfig().display());
            println!("export PATH='{}':$PATH", options.programs.display());
            Ok(())
        }
        Command::Down { name } => {
            if !Cluster::stop(&name)? {
                eprintln!("cluster: there is none of the name {name}");
            }
            Ok(())
        }
        Command::Supervise { common, proxy_mode, until_stdin_closes } => {
            run_supervisor(&common.options(proxy_mode)?, until_stdin_closes)
        }
        Command::Node { common } => {
            let name = common.name.clone();
            // The supervisor hands everything on; how kube-proxy works stands in its file.
            let options = common.options(ProxyMode::Iptables)?;
            run_node(&name, &options.programs, &options.images)
        }
    }
}
