//! The program as pods run it: real sockets, real signals, exit statuses.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sfunnel-example");
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    child: Child,
    /// As `serve` prints them: `tcp:41234`.
    ports: Vec<String>,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        Self::started(Command::new(PROGRAM).arg("serve").args(arguments))
    }

    /// Waits for the line that says that all ports are open.
    fn started(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let ports = line.split_whitespace().skip(2).map(str::to_owned).collect();
        assert_eq!(line.split_whitespace().nth(1), Some("serves"), "{line}");
        Self { child, ports }
    }

    fn number(&self, index: usize) -> u16 {
        self.ports[index].split_once(':').unwrap().1.parse().unwrap()
    }

    fn tcp(&self, host: IpAddr, index: usize) -> TcpStream {
        let stream = TcpStream::connect((host, self.number(index))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer_of(server: &Server, index: usize, peer: SocketAddr) -> String {
    format!("web-0 answers {} to {peer}\n", server.ports[index])
}

fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn terminate(id: u32) {
    assert!(Command::new("kill").arg(id.to_string()).status().unwrap().success());
}

fn end_of(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "it goes on");
        sleep(Duration::from_millis(5));
    }
}

fn ask(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("ask").args(arguments).output().unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    str::from_utf8(&output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_line_is_answered_with_a_line_on_every_port_and_in_both_families() {
    let server = Server::start(&["--name", "web-0", "--tcp", "0,0"]);
    for host in [V4, V6] {
        for index in [0, 1] {
            let mut stream = server.tcp(host, index);
            let me = stream.local_addr().unwrap();
            stream.write_all(b"?\n").unwrap();
            assert_eq!(rest(stream), answer_of(&server, index, me));
        }
    }
}

#[test]
fn who_says_nothing_gets_the_line_too() {
    let server = Server::start(&["--name", "web-0", "--tcp", "0"]);
    let silent = server.tcp(V4, 0);
    let closing = server.tcp(V4, 0);
    closing.shutdown(Shutdown::Write).unwrap();
    for stream in [closing, silent] {
        let me = stream.local_addr().unwrap();
        assert_eq!(rest(stream), answer_of(&server, 0, me));
    }
}

#[test]
fn http_is_answered_with_http() {
    let server = Server::start(&["--name", "web-0", "--tcp", "0"]);
    let mut stream = server.tcp(V4, 0);
    let me = stream.local_addr().unwrap();
    // In two pieces, with a pause that a bare client would not get.
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n").unwrap();
    sleep(Duration::from_millis(1500));
    stream.write_all(b"Accept: */*\r\n\r\n").unwrap();
    let response = rest(stream);
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(body, answer_of(&server, 0, me));

    let mut stream = server.tcp(V4, 0);
    // A body that nobody reads must not cost the client the response.
    let body = vec![b'x'; 100_000];
    stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n").unwrap();
    stream.write_all(&body).unwrap();
    let response = rest(stream);
    assert!(response.starts_with("HTTP/1.1 405 "), "{response}");
}

#[test]
fn a_datagram_is_answered_with_one() {
    let server = Server::start(&["--name", "web-0", "--udp", "0,0"]);
    for host in [V4, V6] {
        for index in [0, 1] {
            let socket = UdpSocket::bind((host, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect((host, server.number(index))).unwrap();
            // Another server's answer gets none: the two would never stop. An empty datagram gets one.
            socket.send(b"web-1 answers udp:2055 to 192.0.2.7:41220\n").unwrap();
            socket.send(b"").unwrap();
            let mut datagram = [0; 200];
            let length = socket.recv(&mut datagram).unwrap();
            let me = socket.local_addr().unwrap();
            assert_eq!(datagram[..length], *answer_of(&server, index, me).as_bytes());
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            assert!(socket.recv(&mut datagram).is_err(), "two answers");
        }
    }
}

#[test]
fn more_clients_than_it_takes_at_once_wait() {
    let server = Server::start(&["--name", "web-0", "--tcp", "0"]);
    let silent: Vec<TcpStream> = (0..600).map(|_| server.tcp(V4, 0)).collect();
    for stream in silent {
        let me = stream.local_addr().unwrap();
        assert_eq!(rest(stream), answer_of(&server, 0, me));
    }
}

#[test]
fn the_name_comes_from_the_pod() {
    let command = || {
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--udp", "0"]).env_remove("POD_NAME").env_remove("HOSTNAME");
        command
    };
    let name = |command: &mut Command| {
        let server = Server::started(command);
        let output = ask(&["127.0.0.1", &server.ports[0]]);
        lines(&output)[0].split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(name(command().env("POD_NAME", "pod").env("HOSTNAME", "host")), "pod");
    assert_eq!(name(command().env("POD_NAME", "").env("HOSTNAME", "host")), "host");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(name(&mut command()), host.trim());
}

#[test]
fn it_ends_at_once_with_success() {
    for arguments in [
        &["serve", "--tcp", "0"][..],
        &["ask", "--repeat", "0", "--interval", "3600", "127.0.0.1", "tcp:1"],
    ] {
        let mut child =
            Command::new(PROGRAM).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        terminate(child.id());
        let start = Instant::now();
        assert!(end_of(&mut child).success(), "{arguments:?}");
        assert!(start.elapsed() < Duration::from_secs(1), "{arguments:?}: {:?}", start.elapsed());
    }
}

/// Signals without a handler don't reach the first process of a PID namespace. Needs root.
#[test]
fn it_ends_as_the_first_process_of_a_container() {
    let mut server = Server::started(
        Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child"])
            .args([PROGRAM, "serve", "--tcp", "0"]),
    );
    let unshare = server.child.id();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    terminate(children.trim().parse().unwrap());
    assert!(end_of(&mut server.child).success());
}

#[test]
fn one_pod_for_all_ports() {
    let server = Server::start(&["--name", "web-0", "--tcp", "0,0", "--udp", "0"]);
    let ports: Vec<&str> = server.ports.iter().map(String::as_str).collect();
    let from = ["--from", "127.0.0.2,127.0.0.3", "127.0.0.1"];
    let output = ask(&[&from[..], &ports].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = lines(&output);
    assert_eq!(lines.len(), 7, "{lines:?}");
    for (line, (client, port)) in lines.iter().zip(
        ["127.0.0.2", "127.0.0.3"].iter().flat_map(|client| ports.iter().map(move |p| (client, p))),
    ) {
        assert!(line.starts_with(&format!("web-0 answers {port} to {client}:")), "{line}");
    }
    assert_eq!(
        lines[6],
        "2 of 2 clients: all ports on one pod; 0: on different pods; 0: not all ports answered"
    );
}

#[test]
fn another_pod_and_no_answer_have_statuses_of_their_own() {
    let first = Server::start(&["--name", "web-0", "--tcp", "0"]);
    let second = Server::start(&["--name", "web-1", "--udp", "0"]);
    let output = ask(&["127.0.0.1", &first.ports[0], &second.ports[0]]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(lines(&output)[2].contains(" 1: on different pods;"), "{output:?}");

    // Open, but silent.
    let silent = UdpSocket::bind((V4, 0)).unwrap();
    let port = format!("udp:{}", silent.local_addr().unwrap().port());
    let start = Instant::now();
    let output = ask(&["--timeout", "0.2", "127.0.0.1", &port, &first.ports[0]]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(lines(&output)[0], format!("no answer from {port} of 127.0.0.1: timed out"));
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());

    // Closed.
    drop(silent);
    let output = ask(&["--from", "127.0.0.2", "127.0.0.1", &port]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let line = &lines(&output)[0];
    let expected = format!("no answer from {port} of 127.0.0.1 to 127.0.0.2: Connection refused");
    assert!(line.starts_with(&expected), "{line}");
}

#[test]
fn names_are_resolved_in_the_family_of_the_client() {
    let server = Server::start(&["--name", "web-0", "--tcp", "0"]);
    let output = ask(&["--from", "127.0.0.2", "localhost", &server.ports[0]]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = ask(&["--from", "127.0.0.2", "::1", &server.ports[0]]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(lines(&output)[0].ends_with("no address of the same family"), "{output:?}");
}

#[test]
fn rounds_are_repeated_and_the_worst_counts() {
    let server = Server::start(&["--name", "web-0", "--udp", "0"]);
    let repeat = ["--repeat", "3", "--interval", "0.01", "127.0.0.1"];
    let output = ask(&[&repeat[..], &[server.ports[0].as_str()]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(lines(&output).len(), 6, "{output:?}");
    let output = ask(&[&repeat[..], &[server.ports[0].as_str(), "tcp:1"]].concat());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn what_can_not_be_done_has_another_status() {
    let taken = Server::start(&["--tcp", "0"]);
    let port = taken.number(0).to_string();
    for arguments in [
        &["serve", "--tcp", &port][..],
        &["serve", "--name", "two words", "--tcp", "0"],
        &["serve"],
        &["ask", "127.0.0.1"],
        &["ask", "127.0.0.1", "80"],
    ] {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}
