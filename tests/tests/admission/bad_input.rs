//! Requests that get no decision: each has its status and text, and harms nobody else.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::review::{Verdict, review};
use crate::server::{Answer, TestServer, post, request};

fn good() -> Value {
    let pod =
        json!({ "metadata": { "name": "web" }, "spec": { "containers": [{ "name": "app" }] } });
    review(&pod, &json!({}))
}

/// The good review with one part replaced.
fn with(pointer: &str, value: Value) -> Vec<u8> {
    let mut review = good();
    *review.pointer_mut(pointer).unwrap() = value;
    review.to_string().into()
}

/// The good review without one key of its request.
fn without(key: &str) -> Vec<u8> {
    let mut review = good();
    review["request"].as_object_mut().unwrap().remove(key).unwrap();
    review.to_string().into()
}

async fn still_serves(server: &TestServer) {
    let verdict = server.review(&good()).await;
    assert_eq!(verdict, Verdict::Skipped { warnings: Vec::new() });
}

#[track_caller]
fn expect(answer: &Answer, status: u16, text: &str) {
    let got = (answer.status.as_u16(), answer.text());
    assert_eq!(got, (status, format!("{text}\n").as_str()));
    assert_eq!(answer.content_type.as_deref(), Some("text/plain; charset=utf-8"));
}

#[tokio::test]
async fn bodies_that_are_not_json_are_refused() {
    let server = TestServer::start(&[]).await;
    let whole = good().to_string();
    let truncated = &whole[..whole.len() - 1];
    let truncated_text =
        format!("EOF while parsing an object at line 1 column {}", truncated.len());
    let rows: [(Vec<u8>, &str); 8] = [
        (b"".into(), "EOF while parsing a value at line 1 column 0"),
        (truncated.into(), &truncated_text),
        (
            format!("{whole}{whole}").into(),
            &format!("trailing characters at line 1 column {}", whole.len() + 1),
        ),
        (b"{\"kind\":\"\xff\"}".into(), "invalid unicode code point at line 1 column 10"),
        (vec![0; 16], "expected value at line 1 column 1"),
        (
            b"{\"kind\":\"Admission\0Review\"}".into(),
            "control character (\\u0000-\\u001F) found while parsing a string at line 1 column 19",
        ),
        (b"null".into(), "invalid type: null, expected an object at line 1 column 4"),
        (br#"{"a":"#.repeat(100_000), "EOF while parsing a value at line 1 column 500000"),
    ];
    for (body, text) in rows {
        let answer = server.post(body).await;
        expect(&answer, 400, &format!("the body is not valid JSON: {text}"));
        still_serves(&server).await;
    }
}

#[tokio::test]
async fn json_that_is_no_question_about_pods_is_refused() {
    let server = TestServer::start(&[]).await;
    let not_review = "not an AdmissionReview of admission.k8s.io/v1; \
                      set admissionReviewVersions: [v1] in the webhook configuration";
    let not_pods = "not about core/v1 pods; correct the rules in the webhook configuration";
    let rows: [(Vec<u8>, String); 17] = [
        (b"{}".into(), format!(r#"the body is a "" of "", {not_review}"#)),
        (
            with("/kind", json!("Pod")),
            format!(r#"the body is a "Pod" of "admission.k8s.io/v1", {not_review}"#),
        ),
        (
            with("/apiVersion", json!("admission.k8s.io/v1beta1")),
            format!(r#"the body is a "AdmissionReview" of "admission.k8s.io/v1beta1", {not_review}"#),
        ),
        (
            with("/kind", json!(format!("\n{}", "x".repeat(1000)))),
            format!(r#"the body is a "\\n{}…" of "admission.k8s.io/v1", {not_review}"#, "x".repeat(61)),
        ),
        (with("/request", json!(null)), "the AdmissionReview has no request".into()),
        (
            with("/request", json!([])),
            "the AdmissionReview can't be read: request: invalid length 0, expected an object".into(),
        ),
        (with("/request/uid", json!("")), "request.uid is empty".into()),
        (without("uid"), "the AdmissionReview can't be read: request: missing field `uid`".into()),
        (
            with("/request/operation", json!("PATCH")),
            "the AdmissionReview can't be read: request.operation: unknown variant `PATCH`, expected one of `CREATE`, `UPDATE`, `DELETE`, `CONNECT`".into(),
        ),
        (
            with("/request/resource/resource", json!("deployments")),
            format!("the request is about /v1 deployments, {not_pods}"),
        ),
        (
            with("/request/resource", json!({ "group": "apps", "version": "v1", "resource": "pods" })),
            format!("the request is about apps/v1 pods, {not_pods}"),
        ),
        (
            with("/request/kind/kind", json!("PodTemplate")),
            format!("the request is about /v1 PodTemplate, {not_pods}"),
        ),
        (with("/request/object", json!(null)), "request.object is missing".into()),
        (without("object"), "request.object is missing".into()),
        (
            with("/request/object/spec/containers/0/name", json!(1)),
            "request.object is no core/v1 Pod: spec.containers[0].name: invalid type: integer `1`, expected a string".into(),
        ),
        (
            with("/request/object/metadata", json!({ "annotations": { "sfunnel.io/ruleset": null } })),
            "request.object is no core/v1 Pod: metadata.annotations.sfunnel.io/ruleset: invalid type: null, expected a string".into(),
        ),
        (
            with("/request/object", json!("web")),
            "request.object is no core/v1 Pod: invalid type: string \"web\", expected an object".into(),
        ),
    ];
    for (body, text) in rows {
        expect(&server.post(body).await, 400, &text);
        still_serves(&server).await;
    }
}

#[tokio::test]
async fn requests_that_are_not_posts_of_json_are_refused() {
    let server = TestServer::start(&[]).await;
    let body = good().to_string();
    for content_type in ["text/plain", "application/yaml", "application/json-patch+json", ""] {
        let answer = server.send(post(content_type, body.clone())).await;
        expect(&answer, 415, "Content-Type is not application/json");
    }
    let answer = server.send(request(Method::POST, body.clone())).await;
    expect(&answer, 415, "Content-Type is not application/json");
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        expect(&server.send(request(method, "")).await, 405, "use POST");
    }
    for path in ["/", "/mutate/", "/mutate/unlabelled", "/healthz", "/metrics"] {
        let mut elsewhere = post("application/json", body.clone());
        *elsewhere.uri_mut() = format!("https://localhost{path}").parse().unwrap();
        expect(&server.send(elsewhere).await, 404, "no such path");
    }
    let answer = server.send(post("application/json; charset=utf-8", body)).await;
    assert_eq!(answer.status, StatusCode::OK);
    still_serves(&server).await;
}

#[tokio::test]
async fn large_bodies_are_refused() {
    const LIMIT: usize = 4 << 20;
    let server = TestServer::start(&[]).await;
    let padded = |size: usize| {
        let mut body = good().to_string().into_bytes();
        body.resize(size, b' ');
        Bytes::from(body)
    };
    for size in [LIMIT + 1, 20 << 20] {
        let answer = server.post(padded(size)).await;
        expect(&answer, 413, "the body has more than 4194304 bytes (--max-body-bytes)");
        still_serves(&server).await;
    }
    let answer = server.post(padded(LIMIT)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());

    let server = TestServer::start(&["--max-body-bytes", "65536"]).await;
    let answer = server.post(padded(65_537)).await;
    expect(&answer, 413, "the body has more than 65536 bytes (--max-body-bytes)");
    assert_eq!(server.post(padded(65_536)).await.status, StatusCode::OK);
}

/// A client that announces 20 MiB hears at once that it need not send them.
#[tokio::test]
async fn an_announced_large_body_is_refused_unread() {
    let server = TestServer::start(&[]).await;
    let mut stream = server.connect().await;
    let header = "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                  Content-Length: 20971520\r\n\r\n";
    stream.write_all(header.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nthe body has more than 4194304 bytes (--max-body-bytes)\n"),
        "{answer}"
    );
    still_serves(&server).await;
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let server =
        TestServer::start(&["--body-timeout=1s", "--header-timeout=1s", "--handshake-timeout=1s"])
            .await;
    let header = "POST /mutate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                  Content-Length: 100\r\n\r\n{";
    let mut body = server.connect().await;
    body.write_all(header.as_bytes()).await.unwrap();
    let mut half_header = tokio::net::TcpStream::connect(server.addresses.health).await.unwrap();
    half_header.write_all(&header.as_bytes()[..20]).await.unwrap();
    let mut silent = server.connect().await;
    let mut no_handshake =
        tokio::net::TcpStream::connect(server.addresses.admission).await.unwrap();

    let mut answer = String::new();
    body.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let expect = "the body did not arrive within 1.0s (--body-timeout)\n";
    assert!(answer.ends_with(expect), "{answer}");
    // The others hear nothing but the end of the connection, with or without TLS's own farewell.
    let mut rest = Vec::new();
    let _ = half_header.read_to_end(&mut rest).await;
    let _ = silent.read_to_end(&mut rest).await;
    let _ = no_handshake.read_to_end(&mut rest).await;
    assert!(!rest.windows(5).any(|part| part == b"200 O"), "{rest:?}");
    still_serves(&server).await;
}

#[tokio::test]
async fn plain_http_and_garbage_reach_nobody() {
    let server = TestServer::start(&[]).await;
    for bytes in ["GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "\0\0\0\0\0\0\0\0"] {
        let mut stream = tokio::net::TcpStream::connect(server.addresses.admission).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The end may come as a reset.
        let _ = stream.read_to_end(&mut answer).await;
        // At most an alert: content type 21 (RFC 8446, section 6).
        assert!(answer.first().is_none_or(|byte| *byte == 21), "{answer:?}");
        still_serves(&server).await;
    }
}

/// API servers speak HTTP/1.1 to webhooks; in HTTP/2, one connection could ask for everything.
#[tokio::test]
async fn other_protocols_are_refused_in_the_handshake() {
    let server = TestServer::start(&[]).await;
    assert!(server.connect_with(&[b"h2"]).await.is_err());
    let two: [&[u8]; 2] = [b"h2", b"http/1.1"];
    for protocols in [&[][..], &two] {
        let stream = server.connect_with(protocols).await.unwrap();
        let chosen = (!protocols.is_empty()).then_some(&b"http/1.1"[..]);
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
    }
}

/// What is said about a request isn't said about the next one on the same connection.
#[tokio::test]
async fn a_connection_survives_a_refusal() {
    let server = TestServer::start(&[]).await;
    let io = hyper_util::rt::TokioIo::new(server.connect().await);
    let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    for (body, status) in [
        (vec![0], 400),
        (good().to_string().into(), 200),
        (b"{".into(), 400),
        (good().to_string().into(), 200),
    ] {
        let response = client.send_request(post("application/json", body)).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        response.into_body().collect().await.unwrap();
    }
}
