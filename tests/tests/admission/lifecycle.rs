//! Start, drain and end.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame};
use hyper::header::CONNECTION;
use hyper::{StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::review::{Verdict, review};
use crate::server::{TestServer, post, refuses_connections};

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
async fn both_versions_of_http_are_answered() {
    let server = TestServer::start(&[]).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let answer = server.send(version, post("application/json", question())).await;
        assert_eq!(answer.status, StatusCode::OK, "{version:?}");
    }
}

#[tokio::test]
async fn a_server_that_drains_is_not_ready_but_serves() {
    // Far longer than the test: it ends by being dropped.
    let mut server = TestServer::start(&["--drain-delay", "300"]).await;
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
    let mut server = TestServer::start(&["--drain-delay", "300"]).await;
    let stream = TokioIo::new(server.connect(Version::HTTP_11).await);
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
    let server = TestServer::start(&["--header-timeout=1"]).await;
    let stream = TokioIo::new(server.connect(Version::HTTP_11).await);
    let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for idle in [Duration::ZERO, Duration::from_millis(2500)] {
        tokio::time::sleep(idle).await;
        let response = client.send_request(post("application/json", question())).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "after {idle:?}");
        response.into_body().collect().await.unwrap();
    }
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    let mut server = TestServer::start(&["--drain-delay", "0"]).await;
    let body = question();
    let mut stream = server.connect(Version::HTTP_11).await;
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
    let mut server = TestServer::start(&["--drain-delay=0", "--shutdown-timeout=1"]).await;
    let mut stream = server.connect(Version::HTTP_11).await;
    let header = "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                  Content-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(header.as_bytes()).await.unwrap();
    let mut interim = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut interim).await.unwrap();
    server.signal_stop();
    server.ended().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let server = TestServer::start(&["--max-connections", "1"]).await;
    let first = server.connect(Version::HTTP_2).await;
    let second = server.post(question());
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut second).await;
    assert!(early.is_err(), "served beside the first: {early:?}");
    drop(first);
    assert_eq!(second.await.status, StatusCode::OK);
}

#[tokio::test]
async fn reviews_beyond_the_limit_are_refused_after_a_while() {
    let server = TestServer::start(&["--max-concurrent-reviews", "1"]).await;
    let body = question();
    let mut stream = server.connect(Version::HTTP_11).await;
    let header = format!(
        "POST /mutate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(header.as_bytes()).await.unwrap();
    // It is the turn of this one, and stays so until its body is there.
    let mut interim = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut interim).await.unwrap();

    let refused = server.post(question()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        refused.text(),
        "busy with 1 of 1 concurrent reviews (--max-concurrent-reviews); ask again\n"
    );
    assert_eq!(server.health("/healthz").await.status, StatusCode::OK);
    // What would be refused anyhow needs no turn.
    let answer = server.send(Version::HTTP_2, post("text/plain", question())).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);

    // Another one waits, and has its turn in time.
    let waiting = server.post(question());
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "served beside the first: {early:?}");
    stream.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(waiting.await.status, StatusCode::OK);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

/// The body of a request that is never sent in whole.
struct Unending;

impl Body for Unending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn one_connection_has_no_more_than_its_share() {
    let server = TestServer::start(&["--max-concurrent-reviews", "512"]).await;
    let io = TokioIo::new(server.connect(Version::HTTP_2).await);
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let send = |body: Either<Full<Bytes>, Unending>| {
        let mut request = post("application/json", question()).map(|_| body);
        request.headers_mut().remove(hyper::header::HOST);
        client.clone().send_request(request)
    };
    let good = || send(Either::Left(Full::from(question())));
    // The client knows the limit for sure when it has an answer.
    assert_eq!(good().await.unwrap().status(), StatusCode::OK);

    let mut unending = JoinSet::new();
    (0..31).for_each(|_| drop(unending.spawn(send(Either::Right(Unending)))));
    assert_eq!(good().await.unwrap().status(), StatusCode::OK);
    unending.spawn(send(Either::Right(Unending)));
    tokio::task::yield_now().await;
    let another = tokio::time::timeout(Duration::from_millis(300), good()).await;
    assert!(another.is_err(), "a 33rd request is answered: {another:?}");
    // Other connections have theirs.
    assert_eq!(server.post(question()).await.status, StatusCode::OK);
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
