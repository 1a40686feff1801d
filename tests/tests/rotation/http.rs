//! As much of HTTP as these clients need.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Sends a request, or the rest of one, and reads the answer: its status and its body.
pub async fn exchange<S>(stream: &mut S, request: &[u8]) -> Result<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(stream, request).await?;
    let mut answer = Vec::new();
    let body = loop {
        if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, &mut answer).await?;
    };
    let header = String::from_utf8_lossy(&answer[..body]).to_ascii_lowercase();
    let status = header.get(9..12).and_then(|status| status.parse().ok());
    let length =
        header.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let (Some(status), Some(length)) = (status, length) else {
        return Err(Error::new(ErrorKind::InvalidData, header));
    };
    while answer.len() < body + length {
        more(stream, &mut answer).await?;
    }
    // Whatever comes beyond is no answer to this request.
    let text = String::from_utf8(answer.split_off(body)).map_err(Error::other)?;
    if text.len() > length {
        return Err(Error::new(ErrorKind::InvalidData, "more than one answer"));
    }
    Ok((status, text))
}

/// Sends something.
pub async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

async fn more(stream: &mut (impl AsyncRead + Unpin), answer: &mut Vec<u8>) -> Result<()> {
    match stream.read_buf(answer).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}
