//! `outrigger-load`: the load generator of `cargo xtask bench`, and the server that it loads.
//!
//! Every mode runs on one thread, so that it can be pinned. It knows nothing of sidecars, pods or contenders: it
//! connects to an address. It compares and judges nothing; it prints facts, one JSON object a line.
//!
//! * [`server`]: what answers and what discards
//! * [`rr`], [`connect`], [`crowd`], [`bulk`], [`idle`]: the loads
//! * [`mod@slice`]: how a load is told when to run; [`samples`]: percentiles

mod bulk;
mod connect;
mod crowd;
mod idle;
mod rr;
mod samples;
mod server;
mod slice;

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;

/// Bytes each way in an exchange.
const MESSAGE: usize = 128;

/// Loads a server over TCP and prints what it took, a JSON object for each line `WARM COUNTED` (milliseconds) on its
/// standard input.
#[derive(Parser)]
#[command(name = "outrigger-load")]
enum Mode {
    /// Echo on some ports, discard on another.
    Serve {
        #[arg(long, required = true)]
        echo: Vec<u16>,
        #[arg(long)]
        sink: u16,
    },
    /// Exchange 128 bytes each way, in a closed loop on each connection.
    Rr {
        to: SocketAddr,
        #[arg(long, default_value_t = 1)]
        connections: usize,
    },
    /// Connect, exchange 128 bytes, close; in sequence.
    Connect { to: SocketAddr },
    /// The same with many at once.
    Crowd {
        to: SocketAddr,
        #[arg(long, default_value_t = 64)]
        connections: usize,
        /// Nobody listens there: each must be refused by connect itself.
        #[arg(long)]
        refused: bool,
    },
    /// Write 256 KB blocks to a port that discards; counts what has arrived there.
    Bulk { to: SocketAddr },
    /// Open connections, exchange once on each, and hold them until the standard input ends.
    Idle {
        to: SocketAddr,
        #[arg(long)]
        connections: usize,
    },
}

fn main() -> Result<()> {
    match Mode::parse() {
        Mode::Serve { echo, sink } => server::run(&echo, sink),
        Mode::Rr { to, connections } => slice::run_each(&mut rr::Rr::connect(to, connections)?),
        Mode::Connect { to } => slice::run_each(&mut connect::Connect::new(to)),
        Mode::Crowd {
            to,
            connections,
            refused,
        } => slice::run_each(&mut crowd::Crowd::new(to, connections, refused)?),
        Mode::Bulk { to } => slice::run_each(&mut bulk::Bulk::connect(to)?),
        Mode::Idle { to, connections } => idle::run(to, connections),
    }
}
