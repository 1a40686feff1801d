//! Start, drain and end.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::header::CONNECTION;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::review::{Verdict, review};
use crate::server::{TestServer, exchange, post, refuses_connections};

fn question() -> String {
    review(&json!({ "spec": { "containers": [] } }), &json!({})).to_string()
}

#[tokio::test]
async fn health_is_answered_in_plain() {
    let server = TestServer::start(&[]).await;
    for path in ["/healthz", "/readyz"] {
        let answer = server.health(path).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "ok\n"));
    }
    assert_eq!(server.health("/mutate").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_server_that_drains_is_not_ready_but_serves() {
    // Far longer than the test: it ends by being dropped.
    let mut server = TestServer::start(&["--drain-delay", "300s"]).await;
    server.signal_stop();
    while server.health("/readyz").await.status == StatusCode::OK {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.health("/readyz").await.text(), "draining\n");
    assert_eq!(server.health("/healthz").await.status, StatusCode::OK);
    assert_eq!(server.post(question()).await.status, StatusCode::OK);
}

/// The API server's next request may be on its way when a connection is closed, and is not sent again.
#[tokio::test]
async fn a_server_that_drains_ends_connections_with_an_answer() {
    let mut server = TestServer::start(&["--drain-delay", "300s"]).await;
    let stream = TokioIo::new(server.connect().await);
    let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let question = || post("application/json", question());

    let response = client.send_request(question()).await.unwrap();
    assert_eq!(response.headers().get(CONNECTION), None);
    response.into_body().collect().await.unwrap();

    server.signal_stop();
    while server.health("/readyz").await.status == StatusCode::OK {
        tokio::task::yield_now().await;
    }
    let response = client.send_request(question()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers().get(CONNECTION).unwrap(), "close");
    response.into_body().collect().await.unwrap();
    connection.await.unwrap().unwrap();
}

/// API servers keep idle connections for 90 s, and don't send a request again that meets the end of one.
#[tokio::test]
async fn an_idle_connection_stays_open_for_the_next_request() {
    let server = TestServer::start(&["--header-timeout=1s"]).await;
    let stream = TokioIo::new(server.connect().await);
    let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for idle in [0, 2500, 2500, 100].map(Duration::from_millis) {
        tokio::time::sleep(idle).await;
        let response = client.send_request(post("application/json", question())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "after {idle:?}");
        response.into_body().collect().await.unwrap();
    }
}

/// API servers connect when they have a question, and don't ask it again.
#[tokio::test]
async fn who_has_connected_before_the_end_is_answered() {
    let mut server = TestServer::start(&["--drain-delay", "0s"]).await;
    let address = server.addresses.admission;
    let encrypted = server.connect().await;
    let plain = TcpStream::connect(address).await.unwrap();
    server.signal_stop();
    while !refuses_connections(address).await {
        tokio::task::yield_now().await;
    }
    let handshaken = server.handshake(plain, &[b"http/1.1"]).await.unwrap();
    for stream in [encrypted, handshaken] {
        let answer = exchange(stream, post("application/json", question())).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    server.ended().await;
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    let mut server = TestServer::start(&["--drain-delay", "0s"]).await;
    let body = question();
    let mut stream = server.connect().await;
    let header = format!(
        "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(header.as_bytes()).await.unwrap();
    // The server asks for the body: the request is in its hands.
    let mut interim = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut interim).await.unwrap();
    assert!(interim.starts_with(b"HTTP/1.1 100 "));

    let address = server.addresses.admission;
    server.signal_stop();
    while !refuses_connections(address).await {
        tokio::task::yield_now().await;
    }
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(r#""allowed":true"#), "{answer}");
    server.ended().await;
}

#[tokio::test]
async fn a_request_that_never_ends_holds_up_the_end_for_a_time_only() {
    let flags = ["--drain-delay=0s", "--shutdown-timeout=1s", "--body-timeout=300s"];
    let mut server = TestServer::start(&flags).await;
    let mut stream = server.connect().await;
    let header = "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                  Content-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(header.as_bytes()).await.unwrap();
    let mut interim = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut interim).await.unwrap();
    server.signal_stop();
    let ended = tokio::time::timeout(Duration::from_secs(60), server.ended()).await;
    ended.expect("it waits no longer than --shutdown-timeout");
}

#[tokio::test]
async fn many_questions_at_once_are_all_answered() {
    let server = Arc::new(TestServer::start(&[]).await);
    let pod = json!({
        "metadata": { "annotations": { "sfunnel.io/ruleset": "ip tcp actions accept" } },
        "spec": { "containers": [{ "name": "app" }] },
    });
    let mut answers = JoinSet::new();
    for n in 0..50 {
        let server = Arc::clone(&server);
        let review = review(&pod, &json!({ "uid": format!("uid-{n}") }));
        // Verdict::read compares the uid.
        answers.spawn(async move { server.review(&review).await });
    }
    for verdict in answers.join_all().await {
        assert!(matches!(verdict, Verdict::Patched { .. }), "{verdict:?}");
    }
}

/// A connection that rests has nothing of HTTP; what was already there of the next request is not lost.
#[tokio::test]
async fn a_request_that_begins_before_a_rest_is_answered() {
    let server = TestServer::start(&[]).await;
    let mut stream = server.connect().await;
    let body = question();
    let request = format!(
        "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (begin, end) = request.split_at(20);
    stream.write_all(format!("{request}{begin}").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    stream.write_all(end.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let answered =
        |answers: &[u8]| answers.windows(12).filter(|part| *part == b"HTTP/1.1 200").count();
    while answered(&answers) < 2 {
        assert_ne!(stream.read_buf(&mut answers).await.unwrap(), 0, "the connection has ended");
    }
}
