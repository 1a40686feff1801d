//! As much HTTP/1.1 as curl and a browser need to see an answer.

/// The longest head of a request, or line, that is read, in bytes.
pub const LONGEST: usize = 8192;

/// What a client has said on a connection so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Neither a line nor the head of a request is complete.
    Incomplete,
    /// A line that is not HTTP, or too long for anything.
    Line,
    /// A request, with its head complete.
    Request(Method),
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// The answer.
    Get,
    /// The head of the response alone.
    Head,
    /// Something that there isn't.
    Other,
}

/// Reads what has arrived.
pub fn said(bytes: &[u8]) -> Said {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() < LONGEST { Said::Incomplete } else { Said::Line };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(_target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Said::Line;
    };
    if !version.starts_with(b"HTTP/1.") {
        return Said::Line;
    }
    let ends = |blank: &[u8]| bytes.windows(blank.len()).any(|window| window == blank);
    if !ends(b"\r\n\r\n") && !ends(b"\n\n") && bytes.len() < LONGEST {
        return Said::Incomplete;
    }
    Said::Request(match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        _ => Method::Other,
    })
}

/// The response that carries `line`; the connection is to be closed after it.
pub fn response(method: Method, line: &str) -> String {
    let (status, body) = match method {
        Method::Get | Method::Head => ("200 OK", format!("{line}\n")),
        Method::Other => ("405 Method Not Allowed\r\nAllow: GET, HEAD", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len(),
    );
    if method == Method::Head { head } else { head + &body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_when_its_head_is_complete() {
        let request = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
        assert_eq!(said(request), Said::Request(Method::Get));
        for end in 0..request.len() {
            assert_eq!(said(&request[..end]), Said::Incomplete, "{end} bytes");
        }
        assert_eq!(said(b"HEAD /x HTTP/1.0\n\n"), Said::Request(Method::Head));
        assert_eq!(said(b"POST / HTTP/1.1\r\n\r\nGET"), Said::Request(Method::Other));
    }

    #[test]
    fn anything_else_is_a_line() {
        for text in ["?\n", "\r\n", "GET /\r\n", "one two three\n", "GET / HTTP/2.0\r\n"] {
            assert_eq!(said(text.as_bytes()), Said::Line, "{text}");
        }
        assert_eq!(said(&[0; LONGEST]), Said::Line);
    }

    #[test]
    fn an_endless_head_ends() {
        let mut request = b"GET / HTTP/1.1\r\n".to_vec();
        request.resize(LONGEST - 1, b'x');
        assert_eq!(said(&request), Said::Incomplete);
        request.push(b'x');
        assert_eq!(said(&request), Said::Request(Method::Get));
    }

    #[test]
    fn a_response_has_the_length_of_its_body() {
        let get = response(Method::Get, "web-0");
        assert!(get.starts_with("HTTP/1.1 200 OK\r\n"), "{get}");
        assert!(get.contains("\r\nContent-Length: 6\r\n"), "{get}");
        assert!(get.ends_with("\r\n\r\nweb-0\n"), "{get}");
        assert_eq!(format!("{}web-0\n", response(Method::Head, "web-0")), get);
        let other = response(Method::Other, "web-0");
        assert!(other.starts_with("HTTP/1.1 405 "), "{other}");
        assert!(other.contains("\r\nContent-Length: 0\r\n"), "{other}");
    }
}
