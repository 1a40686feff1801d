//! QUIC, with what it does to UDP: segmentation offload, and a search for the path's MTU.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use abi::Family;
use anyhow::{Context as _, Result, ensure};
use certs::{Authority, Validity};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig,
    TokioRuntime, TransportConfig,
};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::sign::SingleCertAndKey;
use tests::lab::{FAMILIES, Lab, address};
use time::OffsetDateTime;
use tokio::runtime::Runtime;

use crate::funnel::{Counted, Funnelled};
use crate::rules::{Mode, PORT};

/// Bytes each way.
const LEN: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn in_place() -> Result<()> {
    for family in FAMILIES {
        let net = exchange(Mode::UDP_IN_PLACE, family)?;
        // Packets of several datagrams have passed the rule as they were.
        let counted = Counted::of(&net.lab.client)?;
        let [_, (packets, bytes)] = counted.rules[..] else { panic!("{counted:?}") };
        ensure!(bytes / packets > 1500, "no segmentation offload: {counted:?}");
    }
    Ok(())
}

#[test]
fn udp_in_tcp() -> Result<()> {
    encapsulated(Mode::UDP_IN_TCP)
}

#[test]
fn udp_in_udp() -> Result<()> {
    encapsulated(Mode::UDP_IN_UDP)
}

fn encapsulated(mode: Mode) -> Result<()> {
    for family in FAMILIES {
        let net = exchange(mode, family)?;
        // The longest that QUIC has tried does not fit with a header.
        let counted = Counted::of(&net.lab.client)?;
        ensure!(counted.not_done.contains_key("too-big"), "{family:?}: {counted:?}");
    }
    Ok(())
}

/// Sends data to a server that answers with the same from its last byte to its first.
fn exchange(mode: Mode, family: Family) -> Result<Funnelled> {
    let case = format!("{mode} {family:?}");
    let net = Funnelled::new(Lab::new()?, mode, family)?;
    let (client, server) = (address::client(family), address::server(family));
    let headers = match family {
        Family::Ip => 20 + 8,
        Family::Ip6 => 40 + 8,
    };
    let ends = Ends {
        client: net.lab.client.enter(|| UdpSocket::bind((client, 0)))?,
        server: net.lab.server.enter(|| UdpSocket::bind((server, PORT)))?,
        mode,
        longest: 1500 - headers,
    };
    Runtime::new()?
        .block_on(async { tokio::time::timeout(PATIENCE, ends.exchange()).await })
        .with_context(|| format!("{case}: not done within {PATIENCE:?}"))?
        .with_context(|| case.clone())?;
    net.check(2 * LEN as u64, &["too-big"]).context(case)?;
    Ok(net)
}

struct Ends {
    client: UdpSocket,
    server: UdpSocket,
    mode: Mode,
    /// Bytes in a datagram that fits without a header, at the most.
    longest: u16,
}

impl Ends {
    async fn exchange(self) -> Result<()> {
        let to = self.server.local_addr()?;
        let (client, server) = configs(transport(self.mode, self.longest))?;
        let server = endpoint(self.server, Some(server))?;
        let serving = tokio::spawn(async move {
            let connection = server.accept().await.context("no connection")?.await?;
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let data = receive.read_to_end(LEN).await?;
                send.write_all(&reversed(&data)).await?;
                send.finish()?;
            }
            anyhow::Ok(())
        });
        let endpoint = endpoint(self.client, None)?;
        let connection = endpoint.connect_with(client, to, "server")?.await?;
        reverse(&connection, LEN).await?;
        // Goes on until the search has come near to what fits, and beyond it.
        let fits = self.longest - self.mode.header_len() as u16;
        loop {
            let path = connection.stats().path;
            ensure!(path.current_mtu <= fits, "MTU {}, but {fits} fit", path.current_mtu);
            let beyond = self.mode.in_place || path.lost_plpmtud_probes > 0;
            if path.current_mtu + 8 >= fits && beyond {
                break;
            }
            reverse(&connection, 1 << 16).await?;
        }
        connection.close(0_u32.into(), b"done");
        serving.await?
    }
}

/// Sends so many bytes on a stream of their own, and checks the answer.
async fn reverse(connection: &Connection, len: usize) -> Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let mut data = vec![0; len];
    StdRng::seed_from_u64(4).fill_bytes(&mut data);
    send.write_all(&data).await?;
    send.finish()?;
    let answer = receive.read_to_end(len).await?;
    ensure!(answer == reversed(&data), "the answer of {} bytes is another", answer.len());
    Ok(())
}

fn reversed(data: &[u8]) -> Vec<u8> {
    data.iter().rev().copied().collect()
}

fn endpoint(socket: UdpSocket, config: Option<ServerConfig>) -> Result<Endpoint> {
    Ok(Endpoint::new(EndpointConfig::default(), config, socket, Arc::new(TokioRuntime))?)
}

fn configs(transport: TransportConfig) -> Result<(ClientConfig, ServerConfig)> {
    let validity = Validity::starting(OffsetDateTime::now_utc(), time::Duration::HOUR);
    let authority = Authority::new("tests", validity)?;
    let pair = authority.issue(&["server".try_into()?], validity)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate().der().clone())?;

    let server = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified_key())));
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();

    let transport = Arc::new(transport);
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
    server.transport_config(Arc::clone(&transport));
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(transport);
    Ok((client, server))
}

fn transport(mode: Mode, longest: u16) -> TransportConfig {
    let mut search = MtuDiscoveryConfig::default();
    search.upper_bound(longest).minimum_change(4);
    let mut transport = TransportConfig::default();
    transport
        .mtu_discovery_config(Some(search))
        // A packet of several datagrams can't get a header.
        .enable_segmentation_offload(mode.in_place);
    transport
}
