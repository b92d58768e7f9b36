//! The messages, as JSON. Each is one packet, with its descriptors beside it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a sidecar says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "say")]
pub enum Request {
    Ask(Ask),
    /// After [`Answer::Serving`], with the lease that the one before has handed over.
    Succeed {
        ask: Ask,
        /// The part of the slots of the one before, as that says.
        generation: usize,
    },
    /// The listeners of a shard come with it, those of [`STEERED`] by their names.
    Steer {
        shard: u32,
        listeners: Vec<String>,
    },
    Activate,
    /// What becomes of connections from before.
    Settle {
        destroy: bool,
    },
    /// The proxy before knows that the pod is this one's.
    Taken,
    /// Instead of a session: a stream to the services of the control plane. One end of a pair of Unix sockets comes with
    /// [`Answer::Done`]; the agent serves gRPC at the other.
    Control,
    /// To the agent itself, by whoever may open its socket: a pod is to be installed.
    Install(Wanted),
    /// To the agent itself: a pod is not to be intercepted until it is to be installed again.
    Detach {
        pod: Wanted,
        /// Also while a sidecar serves it.
        force: bool,
    },
}

/// Which pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wanted {
    Cgroup(PathBuf),
    Pid(u32),
    Uid(String),
}

/// What a sidecar is going to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    pub protocol: u32,
    /// For the log.
    pub version: String,
    pub hbone_port: u16,
    pub shards: usize,
    pub open_ports: Vec<u16>,
    pub addresses: Vec<IpAddr>,
    pub strict: bool,
}

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "say")]
pub enum Answer {
    Granted(Given),
    /// A proxy serves the pod. A conversation with it comes along.
    Serving {
        /// For a person to read.
        owner: String,
    },
    /// A proxy has the pod that cannot be asked: it is about to end, or to begin.
    Busy {
        /// For a person to read.
        why: String,
    },
    /// It is not known yet whether whoever asks is the pod's sidecar: it is to ask again, in another conversation.
    Wait {
        /// For a person to read.
        why: String,
    },
    Done,
    /// Connections from before.
    Settled {
        kept: usize,
        destroyed: usize,
        /// Why they were not ended that should have been.
        failed: Option<String>,
    },
    /// For a person to read.
    Refused {
        why: String,
    },
}

/// A session. The descriptors come with it, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Given {
    pub descriptors: Vec<String>,
    /// Its part of the slots.
    pub generation: usize,
    /// Whether SYNs wait for their upstream.
    pub holds: bool,
}

/// Names of a shard's listeners.
pub const STEERED: [&str; 3] = ["inbound", "outbound", "hbone"];

/// The name of one of a shard's raw sockets.
pub fn raw_socket(shard: usize, family: &str) -> String {
    format!("raw/{shard}/{family}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_read_as_it_was_written() {
        let ask = Ask {
            protocol: 1,
            version: "0.1.0".into(),
            hbone_port: 15008,
            shards: 2,
            open_ports: vec![15008, 15020],
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            strict: true,
        };
        let steer = Request::Steer {
            shard: 1,
            listeners: STEERED.map(String::from).into(),
        };
        let succeed = Request::Succeed {
            ask: ask.clone(),
            generation: 3,
        };
        let settle = Request::Settle { destroy: true };
        let all = [
            Request::Ask(ask),
            succeed,
            steer,
            Request::Activate,
            settle,
            Request::Taken,
            Request::Control,
            Request::Install(Wanted::Uid("a".into())),
            Request::Detach {
                pod: Wanted::Pid(1),
                force: true,
            },
        ];
        for request in all {
            let text = serde_json::to_vec(&request).unwrap();
            assert_eq!(serde_json::from_slice::<Request>(&text).unwrap(), request);
        }
        let wait = Answer::Wait { why: "soon".into() };
        let text = serde_json::to_string(&wait).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), wait);
        let refused = Answer::Refused { why: "no".into() };
        let text = serde_json::to_string(&refused).unwrap();
        assert_eq!(text, r#"{"say":"refused","why":"no"}"#);
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), refused);
    }
}
