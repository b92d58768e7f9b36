//! Whose fault is it that a flow is slow? Pure: from the time that this proxy had bytes and could not hand them on, and from
//! what the kernel knows of the connection to the peer.
//!
//! Each proxy sees the direction that it sends best. Where it only receives, and hands on all that comes at once, the sender
//! is what limits the flow, and the proxy beside the sender tells why.

use std::time::Duration;

use super::tcp::Queue;

/// What held the bytes of a flow up most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bottleneck {
    /// The application of this pod: it does not read what is there for it.
    Application,
    /// The way to the peer: loss, distance or bandwidth.
    Network,
    /// The peer's proxy does not read from its tunnel, or does not answer.
    PeerProxy,
    /// The application at the other end does not read, or, where there is no proxy, whoever is there.
    PeerApplication,
}

impl Bottleneck {
    pub const ALL: [Self; 4] = [
        Self::Application,
        Self::Network,
        Self::PeerProxy,
        Self::PeerApplication,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Network => "network",
            Self::PeerProxy => "peer_proxy",
            Self::PeerApplication => "peer_application",
        }
    }
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// How long there were bytes for the application of this pod that it did not take.
    pub to_application: Duration,
    /// How long there were bytes for the peer, and neither its credit nor the socket had room for them.
    pub to_peer: Duration,
    /// The connection to the peer since the flow began.
    pub peer: Sending,
}

/// How a connection spent its time sending.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sending {
    pub is_tunnel: bool,
    pub busy: Duration,
    pub window_limited: Duration,
    /// The peer's kernel has acknowledged all, its proxy was asked whether it is there, and nothing has come since.
    pub is_unanswered: bool,
}

/// Less than this is how TCP starts: a window that opens, a reader that is woken.
const NOTICED: Duration = Duration::from_millis(100);

impl Evidence {
    /// `None`: nothing was held up for long. The applications had no more to say, or the sender's proxy knows more.
    pub fn bottleneck(&self) -> Option<Bottleneck> {
        if self.to_application.max(self.to_peer) < NOTICED {
            return None;
        }
        if self.to_application >= self.to_peer {
            return Some(Bottleneck::Application);
        }
        let half = self.to_peer / 2;
        let on_the_way = self.peer.busy.saturating_sub(self.peer.window_limited);
        Some(match self.peer.is_tunnel {
            // A closed TCP window is whoever reads the socket: of a tunnel the proxy, which reads whether or not its
            // application does.
            true if self.peer.window_limited >= half || self.peer.is_unanswered => Bottleneck::PeerProxy,
            false if self.peer.window_limited >= half => Bottleneck::PeerApplication,
            // The tunnel had nothing to do for most of the time: what was missing is credit, which is given back as the
            // application reads.
            true if on_the_way < half => Bottleneck::PeerApplication,
            _ => Bottleneck::Network,
        })
    }
}

impl Sending {
    /// What has come on top since `begin`. A tunnel is older than its flows.
    pub fn since(begin: Option<Queue>, now: Option<Queue>, (is_tunnel, is_unanswered): (bool, bool)) -> Self {
        let (begin, now) = (begin.unwrap_or_default(), now.unwrap_or_default());
        Self {
            is_tunnel,
            busy: now.busy.saturating_sub(begin.busy),
            window_limited: now.window_limited.saturating_sub(begin.window_limited),
            is_unanswered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn each_culprit_is_told_by_its_facts() {
        use Bottleneck::{Application, Network, PeerApplication, PeerProxy};
        let table = [
            // to the application, to the peer, tunnel, busy, closed window, unanswered
            ("all is well", 0, 0, true, 9000, 0, false, None),
            ("a start that nobody notices", 99, 99, true, 50, 0, false, None),
            (
                "its application does not read",
                5000,
                0,
                true,
                10,
                0,
                false,
                Some(Application),
            ),
            (
                "so in plaintext",
                5000,
                10,
                false,
                9000,
                9000,
                false,
                Some(Application),
            ),
            (
                "echo: nobody reads, and it began here",
                5000,
                5000,
                true,
                10,
                0,
                false,
                Some(Application),
            ),
            (
                "no credit, an idle tunnel",
                0,
                5000,
                true,
                100,
                0,
                false,
                Some(PeerApplication),
            ),
            (
                "no credit, a tunnel full of other flows' bytes",
                0,
                5000,
                true,
                4000,
                100,
                false,
                Some(Network),
            ),
            ("slow link", 100, 5000, true, 4900, 0, false, Some(Network)),
            (
                "slow link in plaintext",
                100,
                5000,
                false,
                5100,
                10,
                false,
                Some(Network),
            ),
            (
                "nobody reads the tunnel",
                0,
                5000,
                true,
                4900,
                4800,
                false,
                Some(PeerProxy),
            ),
            (
                "a proxy that stands still",
                0,
                9000,
                true,
                300,
                0,
                true,
                Some(PeerProxy),
            ),
            (
                "one that stood still, and nothing was held up",
                0,
                0,
                true,
                300,
                0,
                true,
                None,
            ),
            (
                "nobody reads the socket",
                0,
                5000,
                false,
                4900,
                4800,
                false,
                Some(PeerApplication),
            ),
            (
                "half of it is enough",
                0,
                5000,
                true,
                4900,
                2500,
                false,
                Some(PeerProxy),
            ),
            (
                "plaintext that sent all it could",
                0,
                5000,
                false,
                0,
                0,
                false,
                Some(Network),
            ),
        ];
        for (name, to_application, to_peer, is_tunnel, busy, window_limited, is_unanswered, expected) in table
        {
            let evidence = Evidence {
                to_application: ms(to_application),
                to_peer: ms(to_peer),
                peer: Sending {
                    is_tunnel,
                    busy: ms(busy),
                    window_limited: ms(window_limited),
                    is_unanswered,
                },
            };
            assert_eq!(evidence.bottleneck(), expected, "{name}");
        }
    }

    #[test]
    fn what_a_tunnel_did_before_the_flow_began_is_not_its_fault() {
        let queue = |busy, window_limited| {
            Some(Queue {
                busy: ms(busy),
                window_limited: ms(window_limited),
                ..Queue::default()
            })
        };
        let sending = Sending::since(queue(60_000, 50_000), queue(61_000, 50_100), (true, false));
        assert_eq!((sending.busy, sending.window_limited), (ms(1000), ms(100)));
        let reset = Sending::since(queue(5, 5), queue(1, 1), (true, false));
        assert_eq!((reset.busy, reset.window_limited), (ms(0), ms(0)));
    }
}
