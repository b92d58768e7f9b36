//! MAY IT? Pure decisions about a connection whose facts are known. No clock, no input, no output.

use std::net::SocketAddr;

use crate::model::SpiffeId;

/// Whether plaintext from outside the mesh is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Plaintext is accepted and counted.
    #[default]
    Permissive,
    /// Only proven identities get in.
    Strict,
}

/// What is known of an inbound connection when it asks to be let in.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The identity that the peer proved; none for plaintext.
    pub peer: Option<&'a SpiffeId>,
    /// The client, as far as the connection shows it.
    pub source: SocketAddr,
    /// Where it wants to go.
    pub destination: SocketAddr,
}

/// Leave to deliver to one destination. Only `admit` makes one, and delivery cannot be called without it.
#[derive(Debug)]
pub struct Permit {
    destination: SocketAddr,
}

impl Permit {
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Plaintext, where only proven identities are let in.
    Plaintext,
}

pub fn admit(mode: Mode, facts: &Facts<'_>) -> Result<Permit, Denied> {
    match (facts.peer, mode) {
        (None, Mode::Strict) => Err(Denied::Plaintext),
        (Some(_), _) | (None, Mode::Permissive) => Ok(Permit {
            destination: facts.destination,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_admits_identities_and_denies_plaintext() {
        let id = SpiffeId::new("td.test", "a", "b").unwrap();
        let (source, destination) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let proven = Facts {
            peer: Some(&id),
            source,
            destination,
        };
        let plain = Facts {
            peer: None,
            source,
            destination,
        };
        assert_eq!(admit(Mode::Strict, &proven).unwrap().destination(), destination);
        assert_eq!(admit(Mode::Strict, &plain).unwrap_err(), Denied::Plaintext);
        assert!(admit(Mode::Permissive, &plain).is_ok());
    }
}
