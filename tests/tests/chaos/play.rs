//! One bad client, playing its script.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::client::TlsStream;

use crate::attacks::Fate;
use crate::client::Target;
use crate::scripts::{Door, LONGEST, Script, Then};

/// From one byte of a slow client to the next.
const PACE: Duration = Duration::from_millis(500);

/// A connection of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// What is under it.
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Begins as `script` says, and leaves the end to the caller.
pub async fn begin(script: &Script, target: &Target) -> io::Result<Box<dyn Stream>> {
    let mut stream = open(script, target).await?;
    send(script, &mut stream).await?;
    Ok(stream)
}

/// Does what `script` says, to the end.
pub async fn play(script: &Script, target: &Target) -> Fate {
    let Ok(Ok(mut stream)) = timeout(LONGEST, open(script, target)).await else {
        return Fate::Refused;
    };
    let start = Instant::now();
    let deadline = start + LONGEST;
    let ended = || Fate::Ended(start.elapsed());
    match timeout_at(deadline, send(script, &mut stream)).await {
        // Who talks nonsense is interrupted.
        Ok(Err(_)) => return ended(),
        // It took nothing any more, or the pace was so slow.
        Err(_) if script.then == Then::Flood => return Fate::Left,
        Err(_) => return Fate::Stayed,
        Ok(Ok(())) => {}
    }
    match script.then {
        Then::Close => return Fate::Left,
        Then::Reset => {
            // It may be gone already.
            let _ = stream.tcp().set_zero_linger();
            return Fate::Left;
        }
        Then::HalfClose => {
            let _ = stream.shutdown().await;
        }
        Then::Wait | Then::Flood => {}
    }
    match timeout_at(deadline, drain(&mut stream)).await {
        Ok(()) => ended(),
        Err(_) => Fate::Stayed,
    }
}

async fn open(script: &Script, target: &Target) -> io::Result<Box<dyn Stream>> {
    let address = if script.door == Door::Plain { target.plain } else { target.tls };
    let tcp = match script.then {
        Then::Flood => target.dial_narrow(address).await?,
        _ => target.dial(address).await?,
    };
    Ok(match script.door {
        Door::Tcp | Door::Plain => Box::new(tcp),
        Door::Tls => Box::new(target.handshake(tcp).await?),
        Door::UnderTls => Box::new(target.handshake(tcp).await?.into_inner().0),
    })
}

async fn send(script: &Script, stream: &mut Box<dyn Stream>) -> io::Result<()> {
    let (at_once, slowly) = script.sends.split_at(script.sends.len() - script.slow);
    stream.write_all(at_once).await?;
    stream.flush().await?;
    for byte in slowly {
        // A slow client reads what it is told, and notices the end.
        match timeout(PACE, drain(stream)).await {
            Ok(()) => return Err(io::ErrorKind::ConnectionReset.into()),
            Err(_) => stream.write_all(&[*byte]).await?,
        }
        stream.flush().await?;
    }
    match script.then {
        Then::Flood => flood(&script.sends, stream).await,
        _ => Ok(()),
    }
}

/// Sends the same again and again, until it isn't taken any more.
async fn flood(bytes: &[u8], stream: &mut Box<dyn Stream>) -> io::Result<()> {
    loop {
        // The processor is for others, too.
        sleep(Duration::from_millis(20)).await;
        stream.write_all(bytes).await?;
        stream.flush().await?;
    }
}

/// Reads until the connection ends, one way or the other.
async fn drain(stream: &mut Box<dyn Stream>) {
    let mut buffer = vec![0; 16 << 10];
    while !matches!(stream.read(&mut buffer).await, Ok(0) | Err(_)) {}
}
