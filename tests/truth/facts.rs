//! What a half has observed, as `key=value`. Addresses are named only when both halves have told which port is whose.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use socket2::SockAddr;

use crate::world::{Ports, World};

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Facts {
    facts: Vec<(String, Value)>,
    ports: Ports,
}

#[derive(Debug, Serialize, Deserialize)]
enum Value {
    Word(String),
    Address(SocketAddr),
}

impl Facts {
    pub(crate) fn say(&mut self, key: &str, value: impl Display) {
        self.facts.push((key.into(), Value::Word(value.to_string())));
    }

    /// How a call ended: what it returned, or its errno.
    pub(crate) fn result(&mut self, key: &str, result: io::Result<impl Display>) {
        self.say(key, word(result));
    }

    /// How a call ended that returns nothing.
    pub(crate) fn done(&mut self, key: &str, result: io::Result<()>) {
        self.result(key, result.map(|()| "ok"));
    }

    pub(crate) fn address(&mut self, key: &str, result: io::Result<SockAddr>) {
        match result.map(|address| address.as_socket()) {
            Ok(Some(address)) => self.facts.push((key.into(), Value::Address(address))),
            Ok(None) => self.say(key, "no-address"),
            Err(error) => self.say(key, errno(&error)),
        }
    }

    /// Gives a port a name. The first name stays.
    pub(crate) fn port(&mut self, port: u16, name: &str) {
        self.ports.entry(port).or_insert_with(|| name.into());
    }
}

/// Both halves' facts as lines, the client's first.
pub(crate) fn lines(world: &World, title: &str, client: Facts, server: Facts) -> Vec<String> {
    let mut ports = server.ports;
    ports.extend(client.ports);
    let halves = [("client", client.facts), ("server", server.facts)];
    let lines = halves.into_iter().flat_map(|(half, facts)| {
        let ports = &ports;
        facts.into_iter().map(move |(key, value)| {
            let value = match value {
                Value::Word(word) => word,
                Value::Address(address) => world.name(address, ports),
            };
            format!("{title}: {half}.{key}={value}")
        })
    });
    lines.collect()
}

pub(crate) fn word(result: io::Result<impl Display>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(error) => errno(&error),
    }
}

/// The name of the errno: a word that does not depend on the C library.
pub(crate) fn errno(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("{:?}", Errno::from_raw(code)),
        None => error.to_string(),
    }
}
