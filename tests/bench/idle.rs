//! Idle connections, to weigh what each holds.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::json;

use crate::connect::exchange_once;
use crate::slice;

pub(crate) fn run(to: SocketAddr, count: usize) -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let connections = (1..=count)
        .map(|n| exchange_once(to).with_context(|| format!("connection {n} of {count}")))
        .collect::<Result<Vec<_>>>()?;
    slice::print(&json!({"open": connections.len()}))?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}
