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
    // Nor is the cluster of whoever runs the tests any of its business.
    command.env_clear().env("KUBECONFIG", "/nonexistent").stderr(Stdio::piped());
    command
}

/// Flags of a server on free ports.
const FREE_PORTS: [&str; 3] =
    ["--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0", "--drain-delay=0s"];

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
        ("kind", "Pod"),
        ("webhook", "mutate"),
        ("name", "web-*"),
        ("uid", "705ab4f5"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
    assert!(line["duration_us"].as_u64().unwrap() > 0, "{line}");
    assert!(line["span"]["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert_eq!(
        line["detail"],
        "annotation sfunnel.io/ruleset: line 1, column 25: unknown action `dorp`; did you mean `drop`?"
    );

    let mut health = TcpStream::connect(running.health).unwrap();
    health
        .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    health.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    running.terminate();
}

/// A person at a keyboard does not wait for --drain-delay and --shutdown-timeout.
#[test]
fn a_second_signal_ends_it_at_once() {
    let mut command = program();
    command.args(["--self-signed", "--loader-image", "loader:1", "--log-format", "json"]);
    command.args(&FREE_PORTS[..2]).arg("--drain-delay=300s");
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    next_line(&mut log, "listening");
    let interrupt = || {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    };
    interrupt();
    next_line(&mut log, "draining");
    interrupt();
    next_line(&mut log, "ended by a second signal, before the last request was answered");
    assert_eq!(child.wait().unwrap().code(), Some(1));
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

/// Runs it with flags that it has to refuse; returns its last words. Every line is JSON.
#[track_caller]
fn refusal(command: &mut Command) -> String {
    // A backtrace says nothing to an operator.
    let command = command.args(["--log-format", "json"]).env("RUST_BACKTRACE", "1");
    let Output { status, stderr, .. } = command.args(FREE_PORTS).output().unwrap();
    assert_eq!(status.code(), Some(1));
    let log = String::from_utf8(stderr).unwrap();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(lines.iter().all(|line| line["message"] != "listening"), "{log}");
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR", "{log}");
    last["message"].as_str().unwrap().to_owned()
}

#[test]
fn what_makes_no_sense_is_refused_at_start() {
    let with = |flags: &[&str]| {
        let mut command = program();
        command.args(["--loader-image", "loader:1"]).args(flags);
        refusal(&mut command)
    };
    let text = with(&[]);
    assert!(text.starts_with("managed certificates need the Kubernetes API: "), "{text}");
    assert!(text.ends_with("or give --tls-cert and --tls-key, or --self-signed"), "{text}");
    assert_eq!(
        with(&["--self-signed", "--loader-memory-request", "1Gi"]),
        "--loader-memory-request 1Gi is more than --loader-memory-limit 128Mi"
    );
    let text = with(&["--self-signed", "--ca-file", "/nonexistent/ca.pem"]);
    let expect = "--ca-file /nonexistent/ca.pem: No such file or directory (os error 2)";
    assert!(text.starts_with(expect), "{text}");
}

#[test]
fn the_log_says_all_that_is_configured_in_the_operators_words() {
    let mut command = program();
    command.args(["--self-signed", "--loader-image", "loader:1", "--deny-runtime-class", "a,b"]);
    command.args(FREE_PORTS).args(["--log-format", "json"]);
    let mut child = command.spawn().unwrap();
    let mut line = next_line(&mut BufReader::new(child.stderr.take().unwrap()), "starting");
    child.kill().unwrap();
    child.wait().unwrap();
    line.as_object_mut().unwrap().remove("timestamp");
    let expect = json!({
        "level": "INFO",
        "target": "webhook::args",
        "message": "starting",
        "version": env!("CARGO_PKG_VERSION"),
        "loader_image": "loader:1",
        "loader_pull_policy": "IfNotPresent",
        "loader_cpu_request": "10m",
        "loader_cpu_limit": "none",
        "loader_memory_request": "32Mi",
        "loader_memory_limit": "128Mi",
        "loader_privileged": false,
        "deny_runtime_class": "a,b",
        "tls": "self-signed for sfunnel-webhook.sfunnel-system.svc,localhost,127.0.0.1",
        "listen": "127.0.0.1:0",
        "health_listen": "127.0.0.1:0",
        "max_body_bytes": 4 << 20,
        "max_concurrent_reviews": 16,
        "max_connections": 4096,
        "handshake_timeout": "10s",
        "header_timeout": "10s",
        "body_timeout": "4s",
        "drain_delay": "0s",
        "shutdown_timeout": "20s",
        "log_format": "json",
        "log_level": "info",
    });
    assert_eq!(line, expect);
}

/// Every flag is told of with its variable and its default, in lines that fit a terminal.
#[test]
fn help_is_for_people() {
    let output = program().arg("--help").stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = help.lines().collect();
    let mut flags = 0;
    for pair in lines.windows(2) {
        let Some(flag) = pair[0].strip_prefix("      --") else { continue };
        let name = flag.split(' ').next().unwrap();
        assert!(pair[1].trim().len() > 10, "--{name} is not explained: {help}");
        let variable = format!("[env: SFUNNEL_{}=", name.replace('-', "_").to_uppercase());
        assert!(help.contains(&variable), "{variable} is missing: {help}");
        flags += 1;
    }
    assert!(flags >= 30, "{flags} flags: {help}");
    assert!(help.contains("[default: 4194304]") && help.contains("[default: 365d]"), "{help}");
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "{help}");
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let mut command = program();
    command.args(["--self-signed", "--loader-image", "loader:1"]);
    for variable in [
        "SFUNNEL_LOADER_PULL_SECRET",
        "SFUNNEL_DENY_RUNTIME_CLASS",
        "SFUNNEL_TLS_CERT",
        "SFUNNEL_SELF_SIGNED",
        "SFUNNEL_MAX_BODY_BYTES",
    ] {
        command.env(variable, "");
    }
    Running::start(&mut command).terminate();

    // A value that is missing is missed, and one that is wrong is refused.
    for (image, text) in [("", "--loader-image <IMAGE>"), ("two words", "two words")] {
        let output =
            program().arg("--self-signed").env("SFUNNEL_LOADER_IMAGE", image).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains(text), "{log}");
    }
}

#[test]
fn an_odd_certificate_is_served_with_a_warning() {
    let files = Files::new();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([]).unwrap();
    std::fs::write(files.path("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(files.path("tls.key"), key.serialize_pem()).unwrap();
    let mut command = program();
    command.args(["--loader-image", "loader:1", "--log-format", "json"]).args(FREE_PORTS);
    command.arg("--tls-cert").arg(files.path("tls.crt"));
    command.arg("--tls-key").arg(files.path("tls.key"));
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let line = next_line(
        &mut log,
        &format!(
            "--tls-cert {}: the certificate has no subject alternative name; issue it for the name of the Service",
            files.path("tls.crt").display()
        ),
    );
    assert_eq!(line["level"], "WARN");
    next_line(&mut log, "listening");
    child.kill().unwrap();
    child.wait().unwrap();
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
    let expect =
        format!(" ERROR sfunnel_webhook: --listen {address}: Address already in use (os error 98)");
    assert!(log.trim_end().ends_with(&expect), "{log}");
}

/// Containers often have a soft limit of 1,024 open files, which accepted connections would run into.
#[test]
fn as_many_files_may_be_open_as_there_may_be_connections() {
    let run = |limits: &str, flags: &[&str]| {
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stderr(Stdio::piped());
        command.args(["-c", &format!("{limits} && exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_sfunnel-webhook")).args(["--loader-image", "loader:1"]);
        command.arg("--self-signed").args(flags);
        command
    };
    let running = Running::start(&mut run("ulimit -Sn 100", &["--max-connections", "300"]));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("492"), "{line}");
    running.terminate();

    let output = run("ulimit -n 100", &["--max-connections", "300"]).output().unwrap();
    assert!(!output.status.success());
    let log = String::from_utf8(output.stderr).unwrap();
    let expect = "--max-connections needs 492 open files, and this process may have 100";
    assert!(log.contains(expect), "{log}");
}
