//! The query string of `/flows`: which flows, how many, once or as they happen.

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
}

impl Query {
    /// An error is a sentence for the caller.
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode(value).ok_or_else(|| broken(name))?;
            let wrong = |want: &str| Err(misfit(name, &value, want));
            match (name, value.as_str()) {
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
                ("service", _) => parsed.filter.service = Some(value),
                ("identity", _) => parsed.filter.identity = Some(value),
                _ => {
                    return Err(format!(
                        "unknown parameter `{}`; there are direction, service, identity, state, limit, watch",
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
        direction && service && identity
    }
}

/// The whole identity, or `namespace/account`.
fn names(id: &SpiffeId, wanted: &str) -> bool {
    id.as_str() == wanted
        || wanted.split_once('/').is_some_and(|(namespace, account)| {
            id.namespace() == namespace && id.service_account() == account
        })
}

pub(super) fn broken(name: &str) -> String {
    format!("`{}`: a broken %-escape", name.escape_debug())
}

/// Escaped, because the answer is printed on terminals.
pub(super) fn misfit(name: &str, value: &str, want: &str) -> String {
    let (name, value) = (name.escape_debug(), value.escape_debug());
    format!("`{name}={value}`: it must be {want}")
}

pub(super) fn percent_decode(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else { return None };
        let digit = |b: &u8| char::from(*b).to_digit(16);
        bytes.push((digit(high)? * 16 + digit(low)?) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
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
            ("service=%2", "%-escape"),
            ("colour=red", "unknown parameter `colour`"),
        ] {
            let error = Query::parse(query).unwrap_err();
            assert!(error.contains(part), "{query}: {error}");
        }
    }
}
