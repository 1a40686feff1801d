//! What clients may take of a server, and what becomes of the others meanwhile.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
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

/// A client that has announced `announced` bytes, sent `sent` of them, and waits.
async fn stalled(server: &TestServer, announced: usize, sent: usize) -> TlsStream<TcpStream> {
    let mut stream = server.connect().await;
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
async fn for_one_connection_more_the_one_goes_that_was_waited_for_longest() {
    let server = TestServer::start(&["--max-connections", "3"]).await;
    // One that has asked, and may ask again.
    let mut useful = server.connect().await;
    let body = question();
    useful.write_all(format!("{}{body}", header(body.len())).as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    useful.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let silent = server.connect().await;
    let no_handshake = TcpStream::connect(server.addresses.admission).await.unwrap();
    sleep(Duration::from_millis(700)).await;

    assert_eq!(server.post(question()).await.status, StatusCode::OK);
    end(silent).await;
    let cut = "sfunnel_webhook_connections_cut_total{reason=\"room\"}";
    assert_eq!(server.metric(cut).await, Some(1.0));
    let another = server.connect().await;
    let one_more = server.connect().await;
    end(no_handshake).await;
    drop((another, one_more));
    // The one of use is still there.
    useful.write_all(format!("{}{body}", header(body.len())).as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    while !rest.windows(12).any(|part| part == b"HTTP/1.1 200") {
        assert_ne!(useful.read_buf(&mut rest).await.unwrap(), 0, "the connection has ended");
    }
}

#[tokio::test]
async fn each_stage_has_its_limit() {
    let server = TestServer::start(&["--handshake-timeout=1", "--header-timeout=1"]).await;
    let no_handshake = TcpStream::connect(server.addresses.admission).await.unwrap();
    let silent = server.connect().await;
    let mut half = server.connect().await;
    half.write_all(b"POST /mut").await.unwrap();
    let mut later = server.connect().await;
    let body = question();
    later.write_all(format!("{}{body}", header(body.len())).as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    later.read_exact(&mut answer).await.unwrap();
    later.write_all(b"POST /mutate HT").await.unwrap();
    // Half of a header that came together with the request before it.
    let mut together = server.connect().await;
    let both = format!("{}{body}POST /mutate HT", header(body.len()));
    together.write_all(both.as_bytes()).await.unwrap();
    let plain = TcpStream::connect(server.addresses.health).await.unwrap();
    for stream in [silent, half, later, together] {
        end(stream).await;
    }
    end(no_handshake).await;
    end(plain).await;
    for (metric, expect) in [
        ("connections_cut_total{reason=\"handshake\"}", 1.0),
        ("tls_handshake_failures_total{reason=\"timeout\"}", 1.0),
        ("connections_cut_total{reason=\"header\"}", 5.0),
        ("connections_cut_total{reason=\"room\"}", 0.0),
    ] {
        let value = server.metric(&format!("sfunnel_webhook_{metric}")).await;
        assert_eq!(value, Some(expect), "{metric}");
    }
}

/// All the memory there is for bodies is taken by clients that stall; who goes on is served.
#[tokio::test]
async fn clients_that_stall_in_a_body_hold_up_nobody() {
    let flags = ["--max-body-bytes=1048576", "--max-concurrent-reviews=1", "--body-timeout=300"];
    let server = TestServer::start(&flags).await;
    let body = 1 << 20;
    let stalled_clients = [
        stalled(&server, body, body / 2 + 1).await,
        stalled(&server, body, body / 2 + 1).await,
        stalled(&server, body, body / 2 + 1).await,
    ];
    sleep(Duration::from_millis(700)).await;
    let mut large = question();
    large.push_str(&" ".repeat(body - large.len()));
    assert_eq!(server.post(large).await.status, StatusCode::OK);
    assert_eq!(server.post(question()).await.status, StatusCode::OK);
    for stream in stalled_clients {
        end(stream).await;
    }
    // They didn't hang up themselves.
    let hung_up = "sfunnel_webhook_refusals_total{status=\"499\"}";
    assert_eq!(server.metric(hung_up).await, Some(0.0));
    let cut = "sfunnel_webhook_connections_cut_total{reason=\"room\"}";
    assert!(server.metric(cut).await > Some(0.0));
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
        crowd.push(TcpStream::connect(server.addresses.health).await.unwrap());
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.health(path).await.status, StatusCode::OK, "{path}");
    }
}

/// Who announces a body and sends none holds nothing that others need, however many they are.
#[tokio::test]
async fn announced_bodies_hold_nothing() {
    let flags = ["--max-connections=20", "--max-concurrent-reviews=1", "--body-timeout=300"];
    let server = TestServer::start(&flags).await;
    let mut crowd = Vec::new();
    for sent in [0, 20 << 10].repeat(10) {
        crowd.push(stalled(&server, 4 << 20, sent).await);
    }
    sleep(Duration::from_millis(700)).await;
    let mut large = question();
    large.push_str(&" ".repeat((1 << 20) - large.len()));
    assert_eq!(server.post(question()).await.status, StatusCode::OK);
    assert_eq!(server.post(large).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_refused() {
    let server = TestServer::start(&[]).await;
    let mut stream = server.connect().await;
    let header = "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                  Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    stream.write_all(header.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
    assert!(answer.ends_with("the request has no Content-Length\n"), "{answer}");
}
