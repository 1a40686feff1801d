//! What bad clients send, byte by byte, and how they end.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};

/// The behaviour of one client.
#[derive(Clone)]
pub struct Script {
    pub name: &'static str,
    pub door: Door,
    pub sends: Vec<u8>,
    /// How many of the last bytes come one by one, with a pause before each.
    pub slow: usize,
    pub then: Then,
    /// Whether the webhook has to end the connection, within [`LONGEST`].
    pub must_end: bool,
    /// How many clients of this kind there are for one of the others.
    pub weight: usize,
}

/// Where a script begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// On the TLS port, with the first byte of the connection.
    Tcp,
    /// After the TLS handshake.
    Tls,
    /// After the TLS handshake, but in place of TLS records.
    UnderTls,
    /// On the plain port.
    Plain,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "before TLS",
            Self::Tls => "TLS",
            Self::UnderTls => "under TLS",
            Self::Plain => "plain",
        })
    }
}

/// What a client does when it has sent everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It reads whatever comes, and sends nothing any more.
    Wait,
    /// The same, after the end of its own direction.
    HalfClose,
    /// It is gone, with RST.
    Reset,
    /// It is gone, with FIN.
    Close,
    /// It reads nothing, and sends the same again and again while that is taken.
    Flood,
}

/// How long clients wait to be thrown out: three times the longest of the limits at their defaults, which
/// is 10 s for a handshake and for a header.
pub const LONGEST: Duration = Duration::from_secs(30);

impl Script {
    fn new(door: Door, name: &'static str, sends: impl Into<Vec<u8>>) -> Self {
        let (sends, then) = (sends.into(), Then::Wait);
        Self { name, door, sends, slow: 0, then, must_end: true, weight: 1 }
    }

    fn then(self, then: Then) -> Self {
        Self {
            then,
            must_end: self.must_end && matches!(then, Then::Wait | Then::HalfClose),
            ..self
        }
    }

    /// All bytes one by one.
    fn slowly(self) -> Self {
        Self { slow: self.sends.len(), ..self }
    }

    /// The rest of a message follows, byte by byte.
    fn and_slowly(mut self, rest: &[u8]) -> Self {
        self.sends.extend_from_slice(rest);
        Self { slow: rest.len(), ..self }
    }

    /// The webhook may leave the connection open.
    fn may_stay(self) -> Self {
        Self { must_end: false, ..self }
    }

    fn times(self, weight: usize) -> Self {
        Self { weight, ..self }
    }
}

/// Everything that is tried. `hello` is a ClientHello, `http2` that of a client that speaks HTTP/2 alone,
/// and `review` the body of a good request.
pub fn all(hello: &[u8], http2: &[u8], review: &str) -> Vec<Script> {
    let mut random = StdRng::seed_from_u64(5);
    let mut noise = |len| {
        let mut bytes = vec![0; len];
        random.fill_bytes(&mut bytes);
        bytes
    };
    let mut scripts = before_tls(hello, &noise(4096));
    scripts.push(Script::new(Door::Tcp, "a ClientHello for HTTP/2", http2));
    scripts.extend(beneath_tls(&noise(64)));
    scripts.extend(stages(review));
    scripts.extend(bad_http(&noise(4096)));
    scripts.extend(bad_lengths(review));
    scripts.extend(good_but_odd(review));
    scripts.extend(plain(&noise(4096)));
    scripts
}

/// One script for each stage in which a client may vanish.
pub fn stages_to_vanish_in(hello: &[u8], review: &str) -> Vec<Script> {
    let whole = post(review.len(), review);
    let end_of_header = whole.len() - review.len();
    vec![
        Script::new(Door::Tcp, "connected", b""),
        Script::new(Door::Tcp, "in the ClientHello", &hello[..hello.len() / 2]),
        Script::new(Door::Tls, "after the handshake", b""),
        Script::new(Door::Tls, "in the header", &whole[..end_of_header / 2]),
        Script::new(Door::Tls, "in the body", &whole[..end_of_header + review.len() / 2]),
        Script::new(Door::Tls, "after the request", &whole[..]),
        Script::new(Door::Plain, "connected", b""),
        Script::new(Door::Plain, "in the header", b"GET /readyz HTTP/1.1\r\nHo"),
    ]
}

/// Connections that never become TLS.
fn before_tls(hello: &[u8], noise: &[u8]) -> Vec<Script> {
    let tcp = |name, sends: &[u8]| Script::new(Door::Tcp, name, sends);
    let half = &hello[..hello.len() / 2];
    let spoilt = [&hello[..hello.len() - 1], &[hello[hello.len() - 1] ^ 1]].concat();
    // As if one handshake message filled many records.
    let endless: Vec<_> = (0..16).flat_map(|_| record(22, &[0xFF; 16 << 10])).collect();
    let start = record(22, &[1, 0xFF, 0xFF, 0xFF]);
    vec![
        // A third of all: in the time for a handshake, twice as many come as one address may have.
        tcp("nothing", b"").times(120),
        tcp("nothing, close", b"").then(Then::Close).times(20),
        tcp("nothing, reset", b"").then(Then::Reset).times(20),
        tcp("nothing, half-close", b"").then(Then::HalfClose),
        tcp("half a ClientHello", half).times(2),
        tcp("half a ClientHello, half-close", half).then(Then::HalfClose),
        tcp("half a ClientHello, reset", half).then(Then::Reset),
        tcp("a ClientHello by the byte", hello).slowly(),
        tcp("a ClientHello", hello),
        tcp("a ClientHello, reset", hello).then(Then::Reset),
        tcp("a ClientHello, close", hello).then(Then::Close).times(4),
        tcp("a ClientHello, half-close", hello).then(Then::HalfClose),
        tcp("a ClientHello with a wrong end", &spoilt),
        tcp("a ClientHello twice", &[hello, hello].concat()),
        tcp("a ClientHello of 16 MiB", &[start, endless].concat()),
        tcp("a record of 64 KiB", &[22, 3, 1, 0xFF, 0xFF]),
        tcp("a record of nothing", &record(22, b"")),
        tcp("an alert", &record(21, &[2, 40])),
        tcp("data before the handshake", &record(23, noise)),
        tcp("ChangeCipherSpec a hundred times", &record(20, &[1]).repeat(100)),
        // SSL 2.0, and a ClientHello of SSL 3.0 without any cipher suite.
        tcp("SSL 2.0", &[0x80, 0x2E, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10]),
        tcp("SSL 3.0", &record(22, &[&[1, 0, 0, 38, 3, 0][..], &[0; 32], &[0, 0, 0, 0]].concat())),
        tcp("plain HTTP", b"GET /healthz HTTP/1.1\r\nHost: webhook\r\n\r\n"),
        tcp("noise", noise),
    ]
}

/// Connections that were TLS.
fn beneath_tls(noise: &[u8]) -> Vec<Script> {
    let beneath = |name, sends: &[u8]| Script::new(Door::UnderTls, name, sends);
    vec![
        beneath("half a record", &[&[23, 3, 3, 0x10, 0][..], noise].concat()),
        beneath("half a record, reset", &[&[23, 3, 3, 0x10, 0][..], noise].concat())
            .then(Then::Reset),
        beneath("a record under no key", &record(23, noise)),
        beneath("an alert under no key", &record(21, &[1, 90]).repeat(20)),
        beneath("a record of 64 KiB", &[23, 3, 3, 0xFF, 0xFF]),
        beneath("noise", noise),
        beneath("the end of TCP alone", b"").then(Then::HalfClose),
    ]
}

/// Good requests that don't go on, stage by stage.
fn stages(review: &str) -> Vec<Script> {
    let tls = |name, sends: &[u8]| Script::new(Door::Tls, name, sends);
    let whole = post(review.len(), review);
    let header = post(review.len(), "");
    let half_header = &header[..header.len() / 2];
    let half_body = post(review.len(), &review[..review.len() / 2]);
    vec![
        tls("nothing", b"").times(4),
        tls("nothing, reset", b"").then(Then::Reset).times(2),
        tls("nothing, close", b"").then(Then::Close).times(4),
        tls("half a header", half_header).times(2),
        tls("half a header, reset", half_header).then(Then::Reset),
        tls("half a header, half-close", half_header).then(Then::HalfClose),
        tls("a header by the byte", &header).slowly().times(2),
        tls("a header and no body", &header),
        tls("half a body", &half_body).times(2),
        tls("half a body, reset", &half_body).then(Then::Reset),
        tls("half a body, half-close", &half_body).then(Then::HalfClose),
        tls("a body by the byte", &header).and_slowly(review.as_bytes()),
        tls("a request, reset", &whole).then(Then::Reset).times(2),
        tls("a request, close", &whole).then(Then::Close),
        tls("a request, half-close", &whole).then(Then::HalfClose),
        // What API servers do all the time.
        tls("a request, and idle", &whole).may_stay().times(10),
        tls("requests whose answers are not read", &whole).then(Then::Flood),
    ]
}

/// What is no HTTP.
fn bad_http(noise: &[u8]) -> Vec<Script> {
    let tls = |name, sends: &[u8]| Script::new(Door::Tls, name, sends);
    let with = |line: &str| format!("POST /mutate HTTP/1.1\r\nHost: webhook\r\n{line}\r\n\r\n");
    let many: String = (0..2000).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = "x".repeat(1 << 20);
    vec![
        tls("noise", noise),
        tls("zeros", &[0; 4096]),
        tls("empty lines", &b"\r\n".repeat(5000)),
        tls("no version", b"GET /mutate\r\n\r\n"),
        tls("version 9.9", b"POST /mutate HTTP/9.9\r\nHost: webhook\r\n\r\n"),
        tls("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        tls("a method of no characters that methods have", b"P\xF6ST /mutate HTTP/1.1\r\n\r\n"),
        tls("a path of 1 MiB", format!("POST /{long} HTTP/1.1\r\n\r\n").as_bytes()),
        tls("a field of 1 MiB", with(&format!("X: {long}")).as_bytes()),
        tls("2000 fields", with(&many).as_bytes()),
        tls("a field without a colon", with("nonsense").as_bytes()),
        tls("a field with a NUL", with("X: a\0b").as_bytes()),
        tls("a field without a name", with(": y").as_bytes()),
    ]
}

/// Bodies that are not as long as they should be.
fn bad_lengths(review: &str) -> Vec<Script> {
    let tls = |name, sends: &[u8]| Script::new(Door::Tls, name, sends);
    let with = |line: &str, body: &str| {
        format!(
            "POST /mutate HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n{line}\r\n\r\n{body}"
        )
    };
    let length = |length: &str| with(&format!("Content-Length: {length}"), review);
    let chunked = |body: &str| with("Transfer-Encoding: chunked", body);
    let more = format!("{review}{}", "x".repeat(2000));
    let extension = format!("5;{}\r\nabcde\r\n", "x".repeat(1 << 20));
    let two = format!("Content-Length: {}\r\nContent-Length: 5", review.len());
    let both = "Content-Length: 5\r\nTransfer-Encoding: chunked";
    vec![
        // What comes with the request before is no header that has begun, but a connection that is idle.
        tls("a body longer than it says", &post(review.len(), &more)).may_stay(),
        tls("a body shorter than it says", &post(review.len() + 100, review)),
        tls("a length of 5 MiB", &post(5 << 20, review)),
        tls("a negative length", length("-1").as_bytes()),
        tls("a length beyond 64 bits", length("99999999999999999999").as_bytes()),
        tls("a length of letters", length("many").as_bytes()),
        tls("two lengths", with(&two, review).as_bytes()),
        tls("a length and chunks", with(both, "0\r\n\r\n").as_bytes()).may_stay(),
        tls("chunks of no size", chunked("\r\n\r\n").as_bytes()),
        tls("a chunk beyond 64 bits", chunked("fffffffffffffffff\r\n").as_bytes()),
        tls("a chunk that doesn't end", chunked("ffffffff\r\nabc").as_bytes()),
        tls("a chunk longer than it says", chunked("3\r\nabcdef\r\n0\r\n\r\n").as_bytes()),
        tls("an extension of 1 MiB", chunked(&extension).as_bytes()),
        tls(
            "trailers without end",
            chunked(&format!("0\r\n{}", "X: y\r\n".repeat(9999))).as_bytes(),
        ),
        tls("a chunk by the byte", chunked("3e8\r\n").as_bytes()).and_slowly(&[b' '; 1000]),
        tls("another encoding", with("Transfer-Encoding: gzip", "abc").as_bytes()),
        tls(
            "a body that nobody asks for",
            with("Expect: 100-continue\r\nContent-Length: 9", "").as_bytes(),
        ),
    ]
}

/// HTTP that is right, and not what API servers do.
fn good_but_odd(review: &str) -> Vec<Script> {
    let tls = |name, sends: &[u8]| Script::new(Door::Tls, name, sends).may_stay();
    let whole = post(review.len(), review);
    let nested = "[".repeat(100_000);
    vec![
        tls("30 requests in one", &whole.repeat(30)),
        tls("a request and noise", &[&whole[..], &[0xFF; 100]].concat()),
        tls("100 unknown paths in one", &b"GET /a HTTP/1.1\r\nHost: webhook\r\n\r\n".repeat(100)),
        tls("brackets", &post(nested.len(), &nested)),
        tls("no JSON", &post(4, "null")),
        tls("CONNECT", b"CONNECT webhook:443 HTTP/1.1\r\nHost: webhook:443\r\n\r\n"),
        tls(
            "an upgrade",
            b"GET /mutate HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        ),
    ]
}

/// The same on the plain port.
fn plain(noise: &[u8]) -> Vec<Script> {
    let plain = |name, sends: &[u8]| Script::new(Door::Plain, name, sends);
    let get = b"GET /readyz HTTP/1.1\r\nHost: webhook\r\n\r\n";
    let long = format!("GET /readyz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let body = "POST /readyz HTTP/1.1\r\nHost: webhook\r\nContent-Length: 1000\r\n\r\nabc";
    vec![
        plain("nothing", b"").times(15),
        plain("nothing, close", b"").then(Then::Close).times(5),
        plain("nothing, reset", b"").then(Then::Reset).times(5),
        plain("half a header", &get[..20]).times(5),
        plain("half a header, reset", &get[..20]).then(Then::Reset),
        plain("half a header, half-close", &get[..20]).then(Then::HalfClose),
        plain("a header by the byte", get).slowly().times(2),
        plain("a request, reset", get).then(Then::Reset),
        plain("a request, and idle", get).may_stay().times(5),
        plain("a body that doesn't come", body.as_bytes()),
        plain("30 requests in one", &get.repeat(30)).may_stay(),
        plain("requests whose answers are not read", get).then(Then::Flood),
        plain("a field of 1 MiB", long.as_bytes()),
        plain("a ClientHello", &record(22, noise)),
        plain("noise", noise),
    ]
}

/// A request for a decision. What it says about its length may be wrong.
fn post(length: usize, body: &str) -> Vec<u8> {
    format!(
        "POST /mutate HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A TLS record in plain text (RFC 8446, section 5.1).
pub fn record(content_type: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[content_type, 3, 3][..], &length, content].concat()
}
