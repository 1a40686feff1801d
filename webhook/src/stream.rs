//! A stream that tells its connection when the client is heard.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::connections::Connection;

/// A stream that tells its connection when the client is heard, and when it doesn't listen.
#[derive(Debug)]
pub struct Heard<S> {
    stream: S,
    connection: Arc<Connection>,
    /// What was read already, to be read again.
    first: Bytes,
}

impl<S> Heard<S> {
    /// What is read from `stream` is heard on `connection`.
    pub fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection, first: Bytes::new() }
    }
}

impl<S: AsyncRead + Unpin> Heard<S> {
    /// Waits until there is something to read. Whether there is: the client may have ended instead.
    ///
    /// # Errors
    ///
    /// Those of the stream.
    pub async fn wait(&mut self) -> io::Result<bool> {
        if self.first.is_empty() {
            let mut byte = [0];
            let count = self.read(&mut byte).await?;
            self.first = Bytes::copy_from_slice(&byte[..count]);
        }
        Ok(!self.first.is_empty())
    }

    /// Has `bytes` read again, which were read and not understood yet.
    pub fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.connection.heard();
            self.first = bytes;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let count = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.heard();
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.connection.listens(outcome.is_ready());
        outcome
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        // TLS takes bytes that the socket has no room for.
        self.connection.listens(outcome.is_ready());
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.connection.listens(outcome.is_ready());
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
