//! Where an agent is asked: a name, or a path. Parses and connects.

use std::fmt;
use std::str::FromStr;

/// The abstract name of a Unix socket of the network namespace, written with `@` in front as ss(8) does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door(String);

impl Door {
    /// Without the `@`.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for Door {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // sun_path has 108 bytes, the first of which is zero.
        match text.strip_prefix('@') {
            Some(name) if !name.is_empty() && name.len() < 108 => Ok(Self(name.into())),
            _ => Err("it is not the abstract name of a Unix socket"),
        }
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_an_abstract_name() {
        let door: Door = "@outrigger/agent".parse().unwrap();
        assert_eq!(
            (door.name(), door.to_string().as_str()),
            ("outrigger/agent", "@outrigger/agent")
        );
        for bad in ["", "@", "outrigger/agent", &format!("@{}", "x".repeat(108))] {
            assert!(bad.parse::<Door>().is_err(), "{bad}");
        }
    }
}
