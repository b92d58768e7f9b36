//! The query string of `/flows`: which flows, how many, once or as they happen.

use super::standing::Standing;
use crate::model::{Direction, Flow, SpiffeId};

#[derive(Debug, Default)]
pub(super) struct Query {
    pub filter: Filter,
    pub state: Option<State>,
    pub limit: Option<usize>,
    pub watch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Closed,
}

/// Which flows pass; a field that is `None` lets all pass.
#[derive(Debug, Default)]
pub(super) struct Filter {
    direction: Option<Direction>,
    service: Option<String>,
    identity: Option<String>,
    standing: Option<Standing>,
}

impl Query {
    /// An error is a sentence for the caller.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |want: &str| Err(misfit(&name, &value, want));
            match (&*name, &*value) {
                ("direction", "inbound") => parsed.filter.direction = Some(Direction::Inbound),
                ("direction", "outbound") => parsed.filter.direction = Some(Direction::Outbound),
                ("direction", _) => return wrong("inbound or outbound"),
                ("state", "open") => parsed.state = Some(State::Open),
                ("state", "closed") => parsed.state = Some(State::Closed),
                ("state", _) => return wrong("open or closed"),
                ("watch", "" | "true" | "1") => parsed.watch = true,
                ("watch", "false" | "0") => parsed.watch = false,
                ("watch", _) => return wrong("true or false"),
                ("limit", n) => match n.parse() {
                    Ok(n) => parsed.limit = Some(n),
                    Err(_) => return wrong("a whole number"),
                },
                ("service", _) => parsed.filter.service = Some(value.into_owned()),
                ("identity", _) => parsed.filter.identity = Some(value.into_owned()),
                ("standing", name) => match Standing::named(name) {
                    Some(standing) => parsed.filter.standing = Some(standing),
                    None => return wrong("own, proven, plaintext or stranger"),
                },
                _ => {
                    return Err(format!(
                        "unknown parameter `{}`; there are direction, service, identity, standing, state, limit, watch",
                        name.escape_debug()
                    ));
                }
            }
        }
        Ok(parsed)
    }
}

impl Filter {
    pub(super) fn passes(&self, flow: &Flow) -> bool {
        let direction = self.direction.is_none_or(|d| d == flow.direction);
        let service = self.service.as_deref().is_none_or(|wanted| {
            flow.service
                .as_ref()
                .is_some_and(|name| match wanted.split_once('/') {
                    Some((namespace, hostname)) => {
                        *name.namespace == *namespace && *name.hostname == *hostname
                    }
                    None => *name.hostname == *wanted,
                })
        });
        let identity = self.identity.as_deref().is_none_or(|wanted| {
            [&flow.source_identity, &flow.destination_identity]
                .into_iter()
                .flatten()
                .any(|id| names(id, wanted))
        });
        let standing = self.standing.is_none_or(|wanted| wanted == Standing::of(flow));
        direction && service && identity && standing
    }
}

/// The whole identity, or `namespace/account`.
fn names(id: &SpiffeId, wanted: &str) -> bool {
    id.as_str() == wanted
        || wanted.split_once('/').is_some_and(|(namespace, account)| {
            id.namespace() == namespace && id.service_account() == account
        })
}

/// Escaped, because the answer is printed on terminals.
pub(super) fn misfit(name: &str, value: &str, want: &str) -> String {
    let (name, value) = (name.escape_debug(), value.escape_debug());
    format!("`{name}={value}`: it must be {want}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_it_wants() {
        let query = Query::parse("direction=inbound&state=open&limit=5&watch&identity=demo%2Fweb").unwrap();
        assert_eq!(
            (query.state, query.limit, query.watch),
            (Some(State::Open), Some(5), true)
        );
        assert_eq!(query.filter.identity.as_deref(), Some("demo/web"));
    }

    #[test]
    fn a_wrong_query_is_answered_with_what_is_right() {
        for (query, part) in [
            ("direction=up", "`direction=up`: it must be inbound or outbound"),
            ("limit=-1", "whole number"),
            ("state=half", "open or closed"),
            ("standing=known", "own, proven, plaintext or stranger"),
            ("colour=red", "unknown parameter `colour`"),
        ] {
            let error = Query::parse(query).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
