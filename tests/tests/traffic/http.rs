//! HTTP/1.1 and HTTP/2 over funnelled connections.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tests::lab::{FAMILIES, Lab};
use tests::transfer::Connection;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::funnel::Funnelled;
use crate::rules::Mode;

/// Requests on a connection.
const REQUESTS: u64 = 4;
/// Bytes in the body of each, and in its answer's.
const BODY: usize = 1 << 20;

#[test]
fn http1() -> Result<()> {
    through_the_funnel(|connection| async move {
        let server = TokioIo::new(tokio(connection.server)?);
        let server = hyper::server::conn::http1::Builder::new()
            .serve_connection(server, service_fn(reverse));
        let server = tokio::spawn(server);
        let client = TokioIo::new(tokio(connection.client)?);
        let (mut client, driver) = hyper::client::conn::http1::handshake(client).await?;
        let driver = tokio::spawn(driver);
        for number in 0..REQUESTS {
            let body = body(number);
            let answer = client.send_request(post(body.clone())).await?;
            check(&body, answer).await?;
        }
        drop(client);
        driver.await??;
        Ok(server.await??)
    })
}

#[test]
fn http2() -> Result<()> {
    through_the_funnel(|connection| async move {
        let server = TokioIo::new(tokio(connection.server)?);
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(server, service_fn(reverse));
        let server = tokio::spawn(server);
        let client = TokioIo::new(tokio(connection.client)?);
        let (client, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), client).await?;
        let driver = tokio::spawn(driver);
        // All at once, on streams of their own.
        let mut requests = JoinSet::new();
        for number in 0..REQUESTS {
            let mut client = client.clone();
            requests.spawn(async move {
                let body = body(number);
                let answer = client.send_request(post(body.clone())).await?;
                check(&body, answer).await
            });
        }
        while let Some(result) = requests.join_next().await {
            result??;
        }
        drop(client);
        driver.await??;
        Ok(server.await??)
    })
}

/// Has `exchange` use a connection of every kind.
fn through_the_funnel<F>(exchange: impl Fn(Connection) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    const PATIENCE: Duration = Duration::from_secs(60);
    let runtime = Runtime::new()?;
    for mode in [Mode::TCP_IN_PLACE, Mode::TCP_IN_TCP, Mode::TCP_IN_UDP] {
        for family in FAMILIES {
            let case = format!("{mode} {family:?}");
            let net = Funnelled::new(Lab::new()?, mode, family)?;
            let connection = net.connect(&net.listen()?)?;
            runtime
                .block_on(async { tokio::time::timeout(PATIENCE, exchange(connection)).await })
                .with_context(|| format!("{case}: not done within {PATIENCE:?}"))?
                .with_context(|| case.clone())?;
            net.check(2 * REQUESTS * BODY as u64, &[]).context(case)?;
        }
    }
    Ok(())
}

fn tokio(stream: TcpStream) -> Result<tokio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    Ok(tokio::net::TcpStream::from_std(stream)?)
}

fn body(seed: u64) -> Bytes {
    let mut body = vec![0; BODY];
    StdRng::seed_from_u64(seed).fill_bytes(&mut body);
    body.into()
}

fn post(body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = hyper::Method::POST;
    let host = hyper::header::HeaderValue::from_static("server");
    request.headers_mut().insert(hyper::header::HOST, host);
    request
}

/// Answers with the body from its last byte to its first.
async fn reverse(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::new(reversed(&body))))
}

async fn check(body: &Bytes, answer: Response<Incoming>) -> Result<()> {
    ensure!(answer.status().is_success(), "{answer:?}");
    let got = answer.into_body().collect().await?.to_bytes();
    ensure!(got == reversed(body), "the answer of {} bytes is another", got.len());
    Ok(())
}

fn reversed(body: &[u8]) -> Bytes {
    body.iter().rev().copied().collect()
}
