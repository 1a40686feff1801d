//! What clients may take of a server, and what becomes of the others meanwhile.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::review::review;
use crate::server::TestServer;

fn question() -> String {
    review(&json!({ "spec": { "containers": [] } }), &json!({})).to_string()
}

fn header(length: usize) -> String {
    format!(
        "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// A client at another address that has announced `announced` bytes, sent `sent` of them, and waits.
async fn stalled(server: &TestServer, announced: usize, sent: usize) -> TlsStream<TcpStream> {
    let stream = server.connect_from_elsewhere(server.addresses.admission).await;
    let mut stream = server.handshake(stream, &[b"http/1.1"]).await.unwrap();
    stream.write_all(header(announced).as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; sent]).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

/// The connection's end, however it comes.
async fn end(mut stream: impl AsyncReadExt + Unpin) {
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.expect("an end");
}

#[tokio::test]
async fn one_address_has_half_of_the_connections() {
    let server = TestServer::start(&["--max-connections", "4"]).await;
    let elsewhere = async || server.connect_from_elsewhere(server.addresses.admission).await;
    let mut crowd = Vec::new();
    for _ in 0..10 {
        crowd.push(elsewhere().await);
    }
    // Two are waited for, eight are closed.
    for stream in crowd.drain(2..) {
        end(stream).await;
    }
    let room = "sfunnel_webhook_connections_closed_total{reason=\"room\"}";
    assert_eq!(server.metric(room).await, Some(8.0));
    assert_eq!(server.post(question()).await.status, StatusCode::OK);
    drop(crowd);
    // The server has to see that they are gone.
    while server.handshake(elsewhere().await, &[b"http/1.1"]).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn each_stage_has_its_limit() {
    let server = TestServer::start(&["--handshake-timeout=1s", "--header-timeout=1s"]).await;
    let no_handshake = TcpStream::connect(server.addresses.admission).await.unwrap();
    let silent = server.connect().await;
    let mut half = server.connect().await;
    half.write_all(b"POST /mut").await.unwrap();
    let plain = TcpStream::connect(server.addresses.health).await.unwrap();
    for stream in [silent, half] {
        end(stream).await;
    }
    end(no_handshake).await;
    end(plain).await;
    for (metric, expect) in [
        ("connections_closed_total{reason=\"handshake\"}", 1.0),
        ("tls_handshake_failures_total{reason=\"timeout\"}", 1.0),
        ("connections_closed_total{reason=\"header\"}", 3.0),
        ("connections_closed_total{reason=\"room\"}", 0.0),
    ] {
        let value = server.metric(&format!("sfunnel_webhook_{metric}")).await;
        assert_eq!(value, Some(expect), "{metric}");
    }
}

/// A client that stalls takes no more than half of what there is for large bodies.
#[tokio::test]
async fn clients_that_stall_in_a_body_hold_up_nobody() {
    let flags = ["--max-body-bytes=1048576", "--max-concurrent-reviews=2", "--body-timeout=300s"];
    let server = TestServer::start(&flags).await;
    let body = 1 << 20;
    let first = stalled(&server, body, body / 2).await;
    let mut more = [stalled(&server, body, 0).await, stalled(&server, body, body / 2).await];
    let mut large = question();
    large.push_str(&" ".repeat(body - large.len()));
    assert_eq!(server.post(large).await.status, StatusCode::OK);
    assert_eq!(server.post(question()).await.status, StatusCode::OK);
    for stream in &mut more {
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 503");
    }
    drop(first);
}

/// A pod of some hundred KiB.
fn large(variables: usize) -> Value {
    let env: Vec<_> = (0..variables)
        .map(|n| json!({ "name": format!("VARIABLE_{n}"), "value": "a value of some length" }))
        .collect();
    let pod = json!({ "spec": { "containers": [{ "name": "app", "env": env }] } });
    review(&pod, &json!({}))
}

/// More than can be done is refused, soon and with what helps, and everything else goes on.
#[tokio::test]
async fn what_is_too_much_is_shed() {
    let flags = ["--max-concurrent-reviews=1", "--max-body-bytes=4194304"];
    let server = std::sync::Arc::new(TestServer::start(&flags).await);
    let body = large(40_000).to_string();
    assert!(body.len() > 2 << 20 && body.len() < 4 << 20, "{}", body.len());
    let mut answers = JoinSet::new();
    for _ in 0..24 {
        let (server, body) = (std::sync::Arc::clone(&server), body.clone());
        answers.spawn(async move { server.post(body).await });
    }
    // Small ones take no turn.
    for _ in 0..5 {
        assert_eq!(server.post(question()).await.status, StatusCode::OK);
    }
    let (mut served, mut shed) = (0, 0);
    while let Some(answer) = answers.join_next().await {
        let answer = answer.unwrap();
        match answer.status {
            StatusCode::OK => served += 1,
            StatusCode::SERVICE_UNAVAILABLE => {
                shed += 1;
                assert!(answer.text().starts_with("busy with "), "{}", answer.text());
            }
            other => panic!("{other}: {}", answer.text()),
        }
    }
    assert!(served > 0, "{shed} shed");
    let counted = server.metric("sfunnel_webhook_refusals_total{status=\"503\"}").await;
    assert_eq!(counted, Some(f64::from(shed)));
}

/// Sockets that nobody closes properly, and probes of the kubelet beside them.
#[tokio::test]
async fn a_crowd_on_the_plain_port_holds_up_no_probe() {
    let server = TestServer::start(&[]).await;
    let mut crowd = Vec::new();
    for _ in 0..200 {
        crowd.push(server.connect_from_elsewhere(server.addresses.health).await);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.health(path).await.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_limited_as_well() {
    let server = TestServer::start(&["--max-body-bytes=65536"]).await;
    for (len, status) in [(1_000, "200"), (70_000, "413")] {
        let mut stream = server.connect().await;
        let mut body = question();
        body.push_str(&" ".repeat(len));
        let request = format!(
            "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer[9..], status.as_bytes());
    }
}
