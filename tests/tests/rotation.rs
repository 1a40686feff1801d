//! A day of rotations while reviews go on: three replicas that share a CA, each a real server with TLS on
//! loopback, in front of API servers that trust what is published and nothing else.
//!
//! ```text
//!             ┌───────────┐  caBundle, some time later
//!        ┌───▶│  cluster  │────────────────┐
//!        │    │ in memory │                ▼
//!  ┌─────┴────┴─┐         │        ┌──────────────┐
//!  │  replica   │◀─ ─ ─ ─ ┘        │  API server  │
//!  │ Manager    │    TLS           │ its own clock│
//!  │ Server     │◀─────────────────┤              │
//!  └────────────┘  reviews         └──────────────┘
//! ```
//!
//! The time of day is tokio's, which is paused: it goes on when there is nothing to do but to wait
//! ([`day`]). So what the replicas sleep through and what their clock shows can't disagree, and a day takes
//! as long as its work. CAs live for two hours and certificates for half an hour, so that they follow one
//! another as often as they do in years.

#[path = "rotation/api_server.rs"]
mod api_server;
#[path = "rotation/cluster.rs"]
mod cluster;
#[path = "rotation/day.rs"]
mod day;
#[path = "rotation/http.rs"]
mod http;
#[path = "rotation/replica.rs"]
mod replica;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use certs::Certificate;
use tokio::task::JoinSet;

use crate::api_server::ApiServer;
use crate::cluster::MemoryCluster;
use crate::day::Day;
use crate::replica::Replica;

/// How long CAs and certificates live, and how long a CA is published before it signs.
const LIFETIMES: [&str; 3] =
    ["--ca-lifetime=7200s", "--certificate-lifetime=1800s", "--ca-overlap=600s"];

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn no_request_fails_in_a_day_of_rotations() {
    let day = Day::begin();
    let cluster = MemoryCluster::new();
    let mut replicas = Vec::new();
    // The third one hears of nothing, and has to look by itself.
    for watching in [true, true, false] {
        replicas.push(Arc::new(Replica::start(&cluster, &day, watching, &LIFETIMES).await));
    }
    // One is late, though within the overlap of CAs. Their clocks are wrong, in both directions.
    let wrong = time::Duration::minutes(3);
    let api_servers = [
        ApiServer::new("prompt", &cluster, &day, Duration::from_secs(1), wrong),
        ApiServer::new("late", &cluster, &day, 5 * MINUTE, -wrong),
    ];
    let api_servers = api_servers.map(Arc::new);
    for replica in &replicas {
        replica.is_ready().await;
    }
    for api_server in &api_servers {
        api_server.has_heard().await;
    }

    let mut clients = JoinSet::new();
    for replica in &replicas {
        for api_server in &api_servers {
            let client = || (Arc::clone(api_server), Arc::clone(replica));
            let (caller, called) = client();
            clients.spawn(async move { caller.call_anew(&called).await });
            let (caller, called) = client();
            clients.spawn(async move { caller.call_slowly(&called).await });
            for life in [Some(90 * MINUTE), None] {
                let (caller, called) = client();
                clients.spawn(async move { caller.keep_calling(&called, life).await });
            }
        }
        let (replica, day) = (Arc::clone(replica), day.clone());
        clients.spawn(async move { replica.stays_ready(&day).await });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("a client has no reason to complain");
    }

    let cas: BTreeSet<_> = cluster
        .ca_bundles()
        .iter()
        .flat_map(|bundle| Certificate::all_from_pem(bundle).unwrap())
        .map(|ca| ca.serial().to_owned())
        .collect();
    println!("{} CAs", cas.len());
    // Each one has its successor after two thirds of its life, every 80 minutes. The last one is announced
    // at the end of the day, or isn't.
    assert!((18..=19).contains(&cas.len()), "{} CAs", cas.len());
    for replica in replicas {
        let replica = Arc::into_inner(replica).expect("the clients have ended");
        let shown = replica.end().await;
        println!("{shown}");
        // The last CA doesn't sign any more. In the life of each there are four certificates, one every 20
        // minutes, and perhaps a fifth, when its successor is late.
        assert!((17..=18).contains(&shown.issuers.len()), "{shown}");
        assert!((17 * 4..=18 * 5).contains(&shown.certificates.len()), "{shown}");
        assert!(shown.handshakes > 500 && shown.answers > 2500, "{shown}");
    }
}
