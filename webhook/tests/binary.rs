//! The program as an operator starts it: flags, log lines, signals, exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sfunnel-webhook"));
    command.env_clear().stderr(Stdio::piped());
    command
}

/// Flags of a server on free ports.
const FREE_PORTS: [&str; 3] =
    ["--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0", "--drain-delay=0"];

/// A running program, ended with the test.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
    admission: SocketAddr,
    health: SocketAddr,
}

impl Running {
    /// Starts it with JSON log lines, and reads until it listens.
    fn start(command: &mut Command) -> Self {
        let mut child = command.args(FREE_PORTS).args(["--log-format", "json"]).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let line = next_line(&mut log, "listening");
        let address = |field: &str| line[field].as_str().unwrap().parse().unwrap();
        Self { admission: address("admission"), health: address("health"), child, log }
    }

    fn ask(&self, ca: &CertificateDer<'static>, body: &Value) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(self.admission).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        let body = body.to_string();
        write!(
            stream,
            "POST /mutate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Sends SIGTERM and insists on a good end.
    fn terminate(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        next_line(&mut self.log, "draining");
        next_line(&mut self.log, "stopped");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next log line with this message.
#[track_caller]
fn next_line(log: &mut impl BufRead, message: &str) -> Value {
    let mut all = String::new();
    for line in log.lines() {
        let line = line.unwrap();
        match serde_json::from_str::<Value>(&line) {
            Ok(value) if value["message"] == message => return value,
            _ => all.push_str(&line),
        }
    }
    panic!("the log ends without {message:?}: {all}");
}

fn question() -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {},
            "object": {
                "metadata": {
                    "generateName": "web-",
                    "annotations": { "sfunnel.io/ruleset": "ip tcp dport 80 actions dorp" },
                },
                "spec": { "containers": [{ "name": "app" }] },
            },
        },
    })
}

/// A folder with a certificate of its own for localhost, and its key.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: TempDir::new().unwrap() };
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        std::fs::write(files.path("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(files.path("tls.key"), key.serialize_pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[test]
fn a_self_signed_server_answers_logs_and_ends() {
    let folder = TempDir::new().unwrap();
    let ca = folder.path().join("ca.pem");
    let mut command = program();
    command.args(["--self-signed", "--loader-image", "loader:1", "--ca-file"]).arg(&ca);
    let mut running = Running::start(&mut command);

    let answer = running.ask(&certificate(&ca), &question());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains(r#""allowed":false"#), "{answer}");

    let line = next_line(&mut running.log, "reviewed");
    assert_eq!(line["level"], "INFO");
    for (field, value) in [
        ("decision", "denied"),
        ("reason", "bad-ruleset"),
        ("namespace", "shop"),
        ("pod", "web-*"),
        ("uid", "705ab4f5"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert!(line["duration_us"].as_u64().unwrap() > 0, "{line}");
    assert!(line["detail"].as_str().unwrap().contains("unknown action `dorp`"), "{line}");

    let mut health = TcpStream::connect(running.health).unwrap();
    health
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    health.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    running.terminate();
}

#[test]
fn a_certificate_from_files_is_served() {
    let files = Files::new();
    let mut command = program();
    // Every flag has its variable.
    command
        .env("SFUNNEL_TLS_CERT", files.path("tls.crt"))
        .env("SFUNNEL_TLS_KEY", files.path("tls.key"))
        .env("SFUNNEL_LOADER_IMAGE", "loader:1");
    let running = Running::start(&mut command);
    let answer = running.ask(&certificate(&files.path("tls.crt")), &question());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    running.terminate();
}

#[test]
fn the_text_log_says_where_it_listens() {
    let mut command = program();
    let mut child = command
        .args(FREE_PORTS)
        .args(["--self-signed", "--loader-image", "loader:1"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line =
        lines.find_map(|line| line.ok().filter(|line| line.contains(" listening "))).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    for field in ["admission=127.0.0.1:", "health=127.0.0.1:"] {
        let (_, rest) = line.split_once(field).unwrap();
        let port = rest.split(' ').next().unwrap();
        assert_ne!(port.parse::<u16>().unwrap(), 0, "{line}");
    }
}

/// Runs it with flags that it has to refuse; returns its last words.
#[track_caller]
fn refusal(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.args(FREE_PORTS).output().unwrap();
    assert!(!status.success());
    let log = String::from_utf8(stderr).unwrap();
    assert!(!log.contains("listening"), "{log}");
    let (_, last) = log.rsplit_once("Error: ").unwrap_or_else(|| panic!("{log}"));
    last.trim_end().to_owned()
}

#[test]
fn what_makes_no_sense_is_refused_at_start() {
    let with = |flags: &[&str]| {
        let mut command = program();
        command.args(["--loader-image", "loader:1"]).args(flags);
        refusal(&mut command)
    };
    assert_eq!(with(&[]), "no certificate: give --tls-cert and --tls-key, or --self-signed");
    assert_eq!(
        with(&["--self-signed", "--loader-memory-request", "1Gi"]),
        "--loader-memory-request 1Gi is more than --loader-memory-limit 64Mi"
    );
    let text = with(&["--self-signed", "--ca-file", "/nonexistent/ca.pem"]);
    let expect = "--ca-file /nonexistent/ca.pem: No such file or directory (os error 2)";
    assert!(text.starts_with(expect), "{text}");
}

#[test]
fn unusable_certificates_are_refused_at_start() {
    let files = Files::new();
    let with = |certificate: &Path, key: &Path| {
        let mut command = program();
        command.args(["--loader-image", "loader:1", "--tls-cert"]).arg(certificate);
        command.arg("--tls-key").arg(key);
        refusal(&mut command).replace(files.folder.path().to_str().unwrap(), "DIR")
    };
    let (certificate, key) = (files.path("tls.crt"), files.path("tls.key"));
    let missing = files.path("missing");
    assert_eq!(
        with(&missing, &key),
        "--tls-cert DIR/missing: No such file or directory (os error 2)"
    );
    assert_eq!(
        with(&certificate, &missing),
        "--tls-key DIR/missing: No such file or directory (os error 2)"
    );
    assert_eq!(
        with(&certificate, &certificate),
        "--tls-key DIR/tls.crt: holds no PEM private key (-----BEGIN PRIVATE KEY-----)"
    );
    std::fs::write(&missing, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert_eq!(
        with(&certificate, &missing),
        "--tls-key DIR/missing: the key is not the one that the first certificate was issued for"
    );
}

#[test]
fn an_address_in_use_is_refused_by_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = program()
        .args(["--self-signed", "--loader-image", "loader:1", "--health-listen", "127.0.0.1:0"])
        .args(["--listen", &address.to_string()])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let log = String::from_utf8(output.stderr).unwrap();
    let expect = format!("Error: --listen {address}: Address already in use (os error 98)");
    assert!(log.trim_end().ends_with(&expect), "{log}");
}
