//! How tokens are written down: `tokens.json`, a map from the SHA-256 of each to what it stands for.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Error;
use super::state::{Locked, Readers, StateDir};
use super::store::{at, seconds};
use crate::model::SpiffeId;

pub(super) const FILE: &str = "tokens.json";

/// By SHA-256 in hexadecimal.
pub(super) type Entries = BTreeMap<String, Entry>;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Entry {
    /// All that the first versions wrote.
    Bare(SpiffeId),
    Full(Full),
}

/// Times are seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Full {
    identity: SpiffeId,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    created: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

impl Entry {
    pub(super) fn new(
        identity: SpiffeId,
        label: Option<String>,
        created: SystemTime,
        expires: Option<SystemTime>,
    ) -> Self {
        Self::Full(Full {
            identity,
            label,
            created: seconds(created),
            expires: expires.map(seconds),
        })
    }

    pub(super) fn identity(&self) -> &SpiffeId {
        match self {
            Self::Bare(identity) | Self::Full(Full { identity, .. }) => identity,
        }
    }

    /// `id` where nobody gave one.
    pub(super) fn label<'a>(&'a self, id: &'a str) -> &'a str {
        match self {
            Self::Full(Full {
                label: Some(label), ..
            }) => label,
            _ => id,
        }
    }

    pub(super) fn created(&self) -> Option<SystemTime> {
        match self {
            Self::Bare(_) => None,
            Self::Full(full) => Some(at(full.created)),
        }
    }

    pub(super) fn expires(&self) -> Option<SystemTime> {
        match self {
            Self::Bare(_) => None,
            Self::Full(full) => full.expires.map(at),
        }
    }
}

pub(super) fn read(dir: &StateDir) -> Result<Entries, Error> {
    let Some(text) = dir.read(FILE, Readers::Owner)? else {
        return Ok(Entries::new());
    };
    serde_json::from_str(&text).map_err(|error| Error::Damaged {
        path: dir.path(FILE),
        reason: error.to_string(),
    })
}

pub(super) fn write(locked: &Locked<'_>, entries: &Entries) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(entries).expect("strings and numbers always serialize");
    text.push('\n');
    locked.write(FILE, Readers::Owner, &text)
}
