//! What a server says of itself, as one line: `web-0 answers tcp:80 to 192.0.2.7:41220`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;

/// The transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// One connection, one answer.
    Tcp,
    /// One datagram, one answer.
    Udp,
}

/// A port with its protocol, as in `tcp:80`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub number: u16,
}

/// What is not a port.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a port is written `tcp:80` or `udp:2055`")]
pub struct NotAPort;

impl FromStr for Port {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Self, NotAPort> {
        let (protocol, number) = text.split_once(':').ok_or(NotAPort)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(NotAPort),
        };
        Ok(Self { protocol, number: number.parse().map_err(|_| NotAPort)? })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{protocol}:{}", self.number)
    }
}

/// Who answers, on which port, and whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name of the pod, without blanks.
    pub name: String,
    /// The port that the server listens on. Behind a Service it may be another one than was asked.
    pub port: Port,
    /// The client, as the server sees it.
    pub peer: SocketAddr,
}

/// What is not an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("what came is not this program's answer")]
pub struct NotAnAnswer;

impl FromStr for Answer {
    type Err = NotAnAnswer;

    fn from_str(line: &str) -> Result<Self, NotAnAnswer> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, "answers", port, "to", peer] = words[..] else { return Err(NotAnAnswer) };
        Ok(Self {
            name: name.to_owned(),
            port: port.parse().map_err(|_| NotAnAnswer)?,
            peer: peer.parse().map_err(|_| NotAnAnswer)?,
        })
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answers {} to {}", self.name, self.port, self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_as_it_is_written() {
        for text in ["tcp:80", "udp:2055", "tcp:65535"] {
            assert_eq!(text.parse::<Port>().map(|port| port.to_string()), Ok(text.to_owned()));
        }
        for text in ["80", "sctp:80", "tcp:", "tcp:65536", "tcp:-1", "TCP:80", ""] {
            assert_eq!(text.parse::<Port>(), Err(NotAPort), "{text}");
        }
    }

    #[test]
    fn an_answer_is_read_as_it_is_written() {
        for peer in ["192.0.2.7:41220", "[2001:db8::7]:41220"] {
            let answer = Answer {
                name: "web-0".to_owned(),
                port: Port { protocol: Protocol::Udp, number: 2055 },
                peer: peer.parse().unwrap(),
            };
            assert_eq!(answer.to_string(), format!("web-0 answers udp:2055 to {peer}"));
            assert_eq!(format!("{answer}\n").parse(), Ok(answer));
        }
    }

    #[test]
    fn anything_else_is_no_answer() {
        for line in [
            "",
            "HTTP/1.1 400 Bad Request",
            "web-0 answers tcp:80 to nobody",
            "web-0 answers 80 to 192.0.2.7:41220",
            "web-0 answers tcp:80 to 192.0.2.7:41220 again",
        ] {
            assert_eq!(line.parse::<Answer>(), Err(NotAnAnswer), "{line}");
        }
    }
}
