//! Clients whose host is gone from one moment to the next, without a word.
//!
//! Their host is a namespace at the other end of a cable. The cable is pulled, the clients end where nobody
//! hears of it, and the host comes back under another address. The webhook has their connections for as
//! long as it likes to wait.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tests::netns::{End, Netns, connect};
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::Target;
use crate::play::begin;
use crate::scripts::Script;

/// The webhook's address on the cable.
const WEBHOOK: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 1);

/// The two ends of the cable.
pub struct Cable<'a> {
    webhook: &'a Netns,
    away: &'a Netns,
}

/// What has vanished.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vanished {
    /// Clients, in all.
    pub clients: usize,
    /// Connections that the webhook had at one moment to nobody, at the most.
    pub half_open: usize,
}

impl<'a> Cable<'a> {
    pub fn new(webhook: &'a Netns, away: &'a Netns) -> Result<Self> {
        connect(
            End::new(webhook, "s0", &format!("{WEBHOOK}/24"), "02:00:00:00:03:01"),
            End::new(away, "a0", "10.3.0.2/24", "02:00:00:00:03:02"),
        )?;
        Ok(Self { webhook, away })
    }

    /// Has clients that play `scripts` vanish, all of them every few seconds, until `stop`.
    pub fn run(&self, target: &Target, scripts: &[Script], stop: &AtomicBool) -> Result<Vanished> {
        let target = target.at(WEBHOOK);
        self.away.enter(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut vanished = Vanished::default();
                for host in (3..=254).cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    vanished.clients += self.vanish(&target, scripts).await?;
                    vanished.half_open = vanished.half_open.max(self.half_open()?);
                    self.return_as(host)?;
                    sleep(Duration::from_secs(3)).await;
                }
                Ok(vanished)
            })
        })
    }

    async fn vanish(&self, target: &Target, scripts: &[Script]) -> Result<usize> {
        let mut clients = JoinSet::new();
        // One more than one of each: the first ones wait for their neighbour's hardware address.
        for script in scripts {
            for _ in 0..3 {
                let (script, target) = (script.clone(), target.clone());
                let begun = async move { timeout(PATIENCE, begin(&script, &target)).await };
                clients.spawn(begun);
            }
        }
        let streams: Vec<_> = clients.join_all().await.into_iter().flatten().flatten().collect();
        self.away.run("ip link set a0 down")?;
        for stream in &streams {
            // Without this, the kernel would go on to tell the webhook of the end.
            stream.tcp().set_zero_linger()?;
        }
        Ok(streams.len())
    }

    /// Connections to where nobody is any more.
    fn half_open(&self) -> Result<usize> {
        let connections = self.webhook.run("ss -Htn state established dst 10.3.0.0/24")?;
        Ok(connections.lines().count())
    }

    fn return_as(&self, host: u8) -> Result<()> {
        self.away.run("ip addr flush dev a0")?;
        self.away.run(&format!("ip addr add 10.3.0.{host}/24 dev a0"))?;
        self.away.run("ip link set a0 up").map(drop)
    }
}

/// Longest wait for a connection: a busy webhook may have no room.
const PATIENCE: Duration = Duration::from_secs(5);
