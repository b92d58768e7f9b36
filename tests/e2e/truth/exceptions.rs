//! What an application can notice and we accept, each with the reason why it cannot be otherwise.

/// Facts whose difference is accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exception {
    /// The name of the fact, up to the `=`; a `*` stands for anything.
    pub(crate) fact: &'static str,
    pub(crate) reason: &'static str,
    /// It depends on the ports of the run, so its absence proves nothing.
    pub(crate) by_chance: bool,
}

impl Exception {
    pub(crate) fn covers(&self, name: &str) -> bool {
        let mut parts = self.fact.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
            return false;
        };
        let mut last = None;
        for part in parts {
            last = Some(part);
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        // Without a star at the end the name ends with the last part.
        match last {
            None => rest.is_empty(),
            Some(part) => part.is_empty() || name.ends_with(part),
        }
    }
}

/// Of the bytes themselves none is lost, and none excepted.
const URGENT: &str =
    "HTTP/2 has no place for the mark of an urgent byte, which arrives among the others, in its place";

/// In every pair in which the client has a sidecar.
pub(crate) const CLIENT: &[Exception] = &[
    accept(
        "names/proc-net-tcp/*: client.remote",
        "the kernel's table shows the socket's own connection, which ends at the proxy; no hook rewrites /proc",
    ),
    accept(
        "fastopen/*.data-in-the-syn",
        "the destination's answer is awaited before any data is taken from the client, so its kernel sends it again",
    ),
    accept(
        "mptcp/both/*.multipath",
        "the proxy ends TCP in between, and falls back to one path as behind any such box",
    ),
    accept_by_chance(
        "bind/same-port-to-two-servers/v6: *",
        "IPv6 has one loopback address: two destinations share one of 4,096 ports of it in one case of 4,096, and then \
         no source port",
    ),
    accept(
        "options/path/*: client.*",
        "segment size and MTU are those of the connection to the proxy, which does not leave the pod",
    ),
    accept("urgent/*.poll", URGENT),
    accept("urgent/*.at-mark*", URGENT),
    accept("urgent/*.read", URGENT),
    accept("urgent/*.read-rest", URGENT),
    accept("urgent/*.read-urgent", URGENT),
];

/// In every pair in which the server has one.
pub(crate) const SERVER: &[Exception] = &[
    accept(
        "names/proc-net-tcp/*: server.remote",
        "the kernel's table shows the socket's own connection, which begins at the proxy; no hook rewrites /proc",
    ),
    accept(
        "fastopen/*.data-in-the-syn",
        "the data is kept by the proxy until the server has accepted, and its SYN does not leave the pod anyway",
    ),
    accept(
        "mptcp/both/*.multipath",
        "the proxy ends TCP in between, and falls back to one path as behind any such box",
    ),
    accept(
        "options/path/*: server.*",
        "segment size and MTU are those of the connection from the proxy, which does not leave the pod",
    ),
    accept("urgent/*.poll", URGENT),
    accept("urgent/*.at-mark*", URGENT),
    accept("urgent/*.read", URGENT),
    accept("urgent/*.read-rest", URGENT),
    accept("urgent/*.read-urgent", URGENT),
];

const fn accept(fact: &'static str, reason: &'static str) -> Exception {
    Exception {
        fact,
        reason,
        by_chance: false,
    }
}

const fn accept_by_chance(fact: &'static str, reason: &'static str) -> Exception {
    Exception {
        by_chance: true,
        ..accept(fact, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let covers = |fact, name| accept(fact, "").covers(name);
        assert!(covers("a/b/*: client.mtu", "a/b/v4: client.mtu"));
        assert!(!covers("a/b/*: client.mtu", "a/b/v4: client.mtu-after"));
        assert!(!covers("a/b/*: client.mtu", "a/c/v4: client.mtu"));
        assert!(covers("a/*", "a/b/v4: server.x"));
        assert!(covers("a/b: x", "a/b: x"));
        assert!(!covers("a/b: x", "a/b: xy"));
    }
}
