//! What the certificate service counts, for whoever shows it. Counts only: decides nothing and knows no metric.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a request got no certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It carried none, or something else than a bearer token.
    NoToken,
    UnknownToken,
    ExpiredToken,
    /// The tokens could not be read.
    Unavailable,
    BadRequest,
    /// It asked for another name than its token stands for.
    OtherName,
    /// The token stands for a name of another trust domain.
    ForeignDomain,
    Failed,
    /// The API server does not know the token.
    NotAuthentic,
    /// The token was made for somebody else than us.
    OtherAudience,
    /// The token stands for a service account, and for no pod of it.
    Unbound,
    /// The pod that the token was made for is not there any more, or has ended.
    NoPod,
    /// The pod runs on another node than whoever asks for it.
    OtherNode,
    /// Whoever asks for another is no agent.
    NoAgent,
}

/// Why a connection was ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It did not prove in time that it may be here.
    Unproved,
    /// Its TLS handshake failed.
    Handshake,
    /// Another connection of the same identity needed its place.
    Crowded,
}

/// Read at one moment. What one waits for at the door is in `admission`'s own counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub issued: u64,
    pub handshakes: u64,
    /// By reason.
    pub refused: Vec<(&'static str, u64)>,
    /// By reason.
    pub ended: Vec<(&'static str, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    issued: AtomicU64,
    handshakes: AtomicU64,
    refused: [AtomicU64; Refused::ALL.len()],
    ended: [AtomicU64; Ended::ALL.len()],
}

impl Refused {
    const ALL: [(Self, &'static str); 14] = [
        (Self::NoToken, "no_token"),
        (Self::UnknownToken, "unknown_token"),
        (Self::ExpiredToken, "expired_token"),
        (Self::Unavailable, "tokens_unavailable"),
        (Self::BadRequest, "bad_request"),
        (Self::OtherName, "other_name"),
        (Self::ForeignDomain, "foreign_domain"),
        (Self::Failed, "failed"),
        (Self::NotAuthentic, "not_authentic"),
        (Self::OtherAudience, "other_audience"),
        (Self::Unbound, "unbound_token"),
        (Self::NoPod, "no_pod"),
        (Self::OtherNode, "other_node"),
        (Self::NoAgent, "no_agent"),
    ];

    /// Whoever reaches the port can cause it, without any token that was ever good.
    pub(super) fn is_anyones(self) -> bool {
        matches!(
            self,
            Self::NoToken
                | Self::UnknownToken
                | Self::ExpiredToken
                | Self::NotAuthentic
                | Self::OtherAudience
        )
    }
}

impl Ended {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Unproved, "unproved"),
        (Self::Handshake, "handshake"),
        (Self::Crowded, "identity_quota"),
    ];
}

impl Stats {
    pub(super) fn issued(&self) {
        self.issued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn handshake(&self) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, why: Refused) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, why: Ended) {
        self.ended[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let names = Refused::ALL.iter().map(|(_, name)| *name);
        let reasons = Ended::ALL.iter().map(|(_, name)| *name);
        Counts {
            issued: read(&self.issued),
            handshakes: read(&self.handshakes),
            refused: names.zip(self.refused.iter().map(read)).collect(),
            ended: reasons.zip(self.ended.iter().map(read)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_under_its_own_name() {
        let stats = Stats::default();
        for (n, (why, _)) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, n);
        }
        for (n, (why, _)) in Ended::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, n);
        }
        stats.refused(Refused::Failed);
        stats.ended(Ended::Crowded);
        let counts = stats.counts();
        assert!(counts.refused.contains(&("failed", 1)));
        assert_eq!(counts.ended.last(), Some(&("identity_quota", 1)));
    }
}
