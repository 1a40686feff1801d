//! The way through client, router and server, funnelled and direct.
//!
//! Each way has three namespaces of its own, side by side with the others', so that nothing has to
//! be set up between two measurements; all are idle but the one measured.
//!
//! A packet sent on a veth link is carried on by the CPU that sent it, through the router and up to
//! the receiver's socket. UDP is sent on one CPU and received on another, which has nothing else to
//! do: the rate is what the first one gets through the way. TCP has one CPU for both ends: the rate
//! is then what sender, way and receiver cost together. On two, it is who wakes whom that decides,
//! and two rounds of the same thing differ by half.

pub mod bulk;
mod connection;
pub mod cpu;
pub mod datagrams;
mod labs;
mod meter;
pub mod round_trip;

use std::thread::ScopedJoinHandle;

use anyhow::Result;

/// What a thread made of its task. Its panic goes on in this one.
fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
