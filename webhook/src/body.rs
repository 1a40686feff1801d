//! Bodies of requests: how large one may be, how long it may take, and how many bytes of all of them are
//! there at once.
//!
//! Room for a large body is reserved in whole: bodies that wait for each other's last bytes would wait for
//! ever. It is reserved when the body has begun to come, so that it takes more than a header to have some.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::connections::{Connection, Connections};
use crate::deadline::Deadline;

/// Reads bodies, within limits.
#[derive(Debug)]
pub struct Bodies {
    limits: Limits,
    /// A permit for each byte.
    room: Arc<Semaphore>,
}

/// What bodies are limited by.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one, at the most.
    pub bytes: usize,
    /// From a request's header to the end of its body.
    pub time: Duration,
    /// Bytes of one that needs no room of its own, at the most: as many connections as there are may have
    /// one.
    pub small: usize,
    /// Bytes of all others that are read or worked on, at the most; not fewer than `bytes`.
    pub bytes_of_all: usize,
}

/// A body that is there in whole. Its bytes count until it is dropped.
#[derive(Debug)]
pub struct Whole {
    /// The body.
    pub bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

/// Why a body is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It doesn't say how large it is.
    #[error("the request has no Content-Length")]
    NoLength,
    /// It is larger than it may be.
    #[error("the body has more than {0} bytes (--max-body-bytes)")]
    TooLarge(usize),
    /// It takes longer than it may.
    #[error(
        "the body did not arrive within {0:.1?} (--body-timeout, or the timeoutSeconds of the webhook)"
    )]
    Slow(Duration),
    /// The client didn't send all of it.
    #[error("the body broke off")]
    Broken,
    /// Others fill what memory there is for bodies.
    #[error(
        "busy with bodies of {0} bytes in all (--max-body-bytes times --max-concurrent-reviews); ask again"
    )]
    NoRoom(usize),
}

/// How long a body waits until others are done.
const ROOM_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long the rest of a body is read that is refused.
const LINGER: Duration = Duration::from_millis(500);
/// From one attempt at making room to the next.
const RETRY: Duration = Duration::from_millis(50);

impl Bodies {
    /// Bodies within these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, room: Arc::new(Semaphore::new(limits.bytes_of_all)) }
    }

    /// All the room there is.
    #[cfg(test)]
    pub(crate) fn fill(&self) -> OwnedSemaphorePermit {
        let all = u32::try_from(self.limits.bytes_of_all).unwrap();
        Arc::clone(&self.room).try_acquire_many_owned(all).unwrap()
    }

    /// Reads the body of a request on a connection, if any, before it is too late for an answer. When others
    /// leave no room for it, those of all connections make room that are slow.
    ///
    /// # Errors
    ///
    /// The limit that is exceeded.
    pub async fn read(
        &self,
        mut body: Body,
        connections: (Option<&Connection>, &Connections),
        deadline: Deadline,
    ) -> Result<Whole, Unread> {
        let time = deadline.within(self.limits.time);
        let whole = timeout(time, self.collect(&mut body, connections, deadline)).await;
        let whole = whole.unwrap_or(Err(Unread::Slow(time)));
        if let Err(Unread::TooLarge(_) | Unread::NoRoom(_)) = whole {
            // An answer amid the body may get lost on its way.
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = timeout(deadline.holding_back(LINGER), rest).await;
        }
        whole
    }

    async fn collect(
        &self,
        body: &mut Body,
        connections: (Option<&Connection>, &Connections),
        deadline: Deadline,
    ) -> Result<Whole, Unread> {
        let size = body.size_hint().exact().ok_or(Unread::NoLength)?;
        // What announces its size is refused before it is sent.
        let too_large = Unread::TooLarge(self.limits.bytes);
        let size = usize::try_from(size).map_err(|_| too_large)?;
        if size > self.limits.bytes {
            return Err(too_large);
        }
        let mut whole = Whole { bytes: Vec::new(), _room: None };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Unread::Broken)?;
            // Trailers mean nothing to us.
            let Ok(data) = frame.into_data() else { continue };
            if whole.bytes.len() + data.len() > self.limits.small && whole._room.is_none() {
                whole._room = Some(self.room(size, connections, deadline).await?);
                whole.bytes.reserve_exact(size - whole.bytes.len());
            }
            whole.bytes.extend_from_slice(&data);
        }
        Ok(whole)
    }

    /// Room for so many bytes.
    async fn room(
        &self,
        bytes: usize,
        (connection, all): (Option<&Connection>, &Connections),
        deadline: Deadline,
    ) -> Result<OwnedSemaphorePermit, Unread> {
        let permits = u32::try_from(bytes).map_err(|_| Unread::TooLarge(self.limits.bytes))?;
        let room = || Arc::clone(&self.room);
        let granted = |permit| {
            connection.into_iter().for_each(Connection::has_room);
            Ok(permit)
        };
        if let Ok(permit) = room().try_acquire_many_owned(permits) {
            return granted(permit);
        }
        // Now the client is it that waits.
        connection.into_iter().for_each(Connection::waits_for_room);
        let end = Instant::now() + deadline.within(ROOM_TIMEOUT);
        let mut acquired = std::pin::pin!(room().acquire_many_owned(permits));
        while Instant::now() < end {
            all.cut_for_a_body();
            let next = (Instant::now() + RETRY).min(end);
            if let Ok(permit) = timeout_at(next, &mut acquired).await {
                return granted(permit.expect("nobody closes the semaphore"));
            }
        }
        Err(Unread::NoRoom(self.limits.bytes_of_all))
    }
}
