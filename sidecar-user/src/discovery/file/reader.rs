//! What the readers of entries share: where they leave problems, where something stands, and ports.

use std::collections::BTreeMap;

use crate::document::{Field, Position, Problem, Sink};

/// Where entries leave what is wrong with them, and what they say that is not acted on.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Sink,
    pub(super) warnings: Sink,
}

impl Reader {
    pub(super) fn warn(&self, field: &Field<'_>, what: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Problem {
            at: Some(field.at()),
            field: field.path().to_owned(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    pub(super) fn warning(&self, place: &Place, what: String, remedy: &str) {
        self.warnings.push(Problem {
            at: Some(place.at),
            field: place.path.clone(),
            what,
            remedy: remedy.into(),
        });
    }

    pub(super) fn problem(&self, place: &Place, what: String, remedy: &str) {
        self.problems.push(Problem {
            at: Some(place.at),
            field: place.path.clone(),
            what,
            remedy: remedy.into(),
        });
    }
}

/// Where something stands, remembered for checks that look at several entries.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) at: Position,
    pub(super) path: String,
}

impl From<&Field<'_>> for Place {
    fn from(field: &Field<'_>) -> Self {
        Self {
            at: field.at(),
            path: field.path().to_owned(),
        }
    }
}

pub(super) type Ports = BTreeMap<u16, u16>;

/// `{80: 8080}`. A target of 0 is allowed where something else can name the port.
pub(super) fn read_ports(field: &Field<'_>, lowest_target: u16) -> Ports {
    const PORT: &str = "write a number from 1 to 65535";
    let entries = field.entries("a map such as {80: 8080}").unwrap_or_default();
    let mut ports = Ports::new();
    for (key, value) in entries {
        let (port, target) = (key.parse::<u16>("port", PORT), value.parse::<u16>("port", PORT));
        if port == Some(0) {
            key.problem("port 0 cannot be dialled", PORT);
        }
        if target.is_some_and(|target| target < lowest_target) {
            value.problem("the target port is 0", PORT);
        }
        if let (Some(port), Some(target)) = (port, target) {
            ports.insert(port, target);
        }
    }
    ports
}
