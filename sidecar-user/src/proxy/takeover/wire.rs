//! The words that the two say to each other.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lifecycle::messages::Message;

/// Whether a second proxy may take the pod over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    #[default]
    Allow,
    Refuse,
}

/// Names of what is handed over.
pub(in super::super) mod handed {
    pub(in super::super::super) const LEASE: &str = "lease";
    pub(in super::super::super) const STATUS: &str = "status";
    pub(in super::super::super) const ADMIN: &str = "admin";
    pub(in super::super::super) const ADMIN_SOCKET: &str = "adminSocket";
    pub(in super::super::super) const HBONE: &str = "hbone";
}

/// How long each waits for the other's answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// How long the owner waits for the first word of somebody whom it knows nothing of. Others wait meanwhile.
pub(super) const FIRST_WORD: Duration = Duration::from_millis(500);

pub(super) const ASK: &str = "ask";
pub(super) const GRANTED: &str = "granted";
pub(super) const REFUSED: &str = "refused";
pub(super) const LAY_DOWN: &str = "layDown";
pub(super) const DONE: &str = "done";
pub(super) const TAKEN: &str = "taken";
/// The agent's word, see [`grant::LOST`](crate::grant::LOST).
pub(super) const LOST: &str = "lost";

/// Where the owner of this directory listens, in its network namespace.
pub(super) fn name(pins: &Path) -> std::io::Result<String> {
    let directory = fs::metadata(pins)?;
    Ok(format!(
        "outrigger/takeover/{:x}/{:x}",
        directory.dev(),
        directory.ino()
    ))
}

/// Nothing tells when the other process gives up a name or a lock, so both are tried again.
#[expect(
    clippy::disallowed_methods,
    reason = "on a thread of its own, or before anything is served"
)]
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A message of one word.
pub(super) fn word(say: &str) -> Vec<u8> {
    json!({ "say": say }).to_string().into_bytes()
}

/// What a message says, with its fields.
pub(super) fn said(message: &Message) -> (String, Value) {
    let value: Value = serde_json::from_slice(&message.text).unwrap_or_default();
    (value["say"].as_str().unwrap_or_default().to_owned(), value)
}

/// The descriptors of a message, by the names that stand in it.
pub(super) fn named(value: &Value, descriptors: Vec<OwnedFd>) -> Vec<(String, OwnedFd)> {
    let names = value["descriptors"].as_array().into_iter().flatten();
    let names = names.map(|name| name.as_str().unwrap_or_default().to_owned());
    names.zip(descriptors).collect()
}
