//! Whether connections get to this proxy: by nonces that it dials itself, of both directions and families, again and again
//! for as long as it serves. Says what it found; who is told is `interception.rs`.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::datapath::{Family, Lost, Ownership, Proof, Unseen};
use crate::intercept;
use crate::model::{ClientAddr, Direction};

/// Far more than a shard takes to accept a connection, also where others take the CPU.
const LIMIT: Duration = Duration::from_secs(3);
/// One nonce may be lost by chance, to a program that listens on the same port or to a full queue.
const ATTEMPTS: usize = 2;
/// Nonces that are recognised after their time, should they arrive late: nobody may dial them.
const REMEMBERED: usize = 32;

/// The nonces under way: the prover adds them, and shards recognise them. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Nonces(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Asked for each connection: while no nonce is under way that is all that a shard has to do with them.
    any: AtomicBool,
    nonces: Mutex<Vec<Nonce>>,
}

struct Nonce {
    direction: Direction,
    to: SocketAddr,
    /// Whoever waits for it.
    arrived: SyncSender<()>,
}

/// What was found of one direction and family.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) direction: Direction,
    pub(super) family: Family,
    pub(super) is_proven: bool,
}

impl Nonces {
    /// Whether an accepted connection is a nonce, which is nobody's: it is to be dropped, and is no flow.
    pub(super) fn is_one(&self, direction: Direction, stream: impl AsFd, client: ClientAddr) -> bool {
        if !self.0.any.load(Ordering::Acquire) {
            return false;
        }
        let Some(dst) = intercept::original_dst(stream, client) else {
            return false;
        };
        let nonces = self.lock();
        let found = nonces
            .iter()
            .find(|nonce| nonce.direction == direction && nonce.to == dst.0);
        if let Some(nonce) = found {
            // Full or closed: it was told before, or came too late.
            let _ = nonce.arrived.try_send(());
        }
        found.is_some()
    }

    fn add(&self, direction: Direction, to: SocketAddr) -> Receiver<()> {
        let (arrived, wait) = sync_channel(1);
        let mut nonces = self.lock();
        if nonces.len() == REMEMBERED {
            nonces.remove(0);
        }
        nonces.push(Nonce {
            direction,
            to,
            arrived,
        });
        self.0.any.store(true, Ordering::Release);
        wait
    }

    /// All have arrived that were dialled.
    fn forget(&self) {
        self.lock().clear();
        self.0.any.store(false, Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Nonce>> {
        self.0.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Proves each direction of each family that this host has. An error: the programs do not see this process, or nothing
/// could be tried. `None`: another proxy is taking the pod over, or has. What it serves says nothing about this one, and it
/// would take a nonce of this one for a connection. Blocks for less than a millisecond, or for some seconds where something
/// is wrong.
pub(super) fn look(proof: &Proof, nonces: &Nonces) -> Result<Option<Vec<Found>>, Unseen> {
    let mut found = Vec::new();
    for family in Family::ALL {
        if !proof.has(family) {
            continue;
        }
        for direction in [Direction::Outbound, Direction::Inbound] {
            let is_proven = is_proven(proof, nonces, family, direction)?;
            if proof.ownership() != Ownership::Ours {
                return Ok(None);
            }
            found.push(Found {
                direction,
                family,
                is_proven,
            });
        }
    }
    if found.iter().all(|found| found.is_proven) {
        nonces.forget();
    }
    Ok(Some(found))
}

fn is_proven(proof: &Proof, nonces: &Nonces, family: Family, direction: Direction) -> Result<bool, Unseen> {
    for _ in 0..ATTEMPTS {
        let nonce = family.nonce();
        let arrived = nonces.add(direction, nonce);
        match proof.dial(nonce, direction) {
            Ok(_dialled) if arrived.recv_timeout(LIMIT).is_ok() => return Ok(true),
            Ok(_) => {}
            Err(Lost::Untried(source)) => return Err(Unseen::Io { source }),
            Err(Lost::Failed(error)) => {
                tracing::debug!(%error, family = family.name(), ?direction, "a nonce did not get through");
            }
        }
    }
    Ok(false)
}
