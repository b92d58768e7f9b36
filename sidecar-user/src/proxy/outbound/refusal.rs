//! How a held application learns that there is no upstream: by packets, which may be lost.

use std::time::Duration;

use super::super::holding::{Gone, Holding};
use super::super::outcome::Answer;
use super::Ready;
use crate::intercept::packet;
use crate::model::HeldSyn;

/// An ICMP message is lost while connect() holds its socket: sent again after 1 ms, 2 ms and so on, up to this.
const ICMP_REPEAT: Duration = Duration::from_millis(256);
/// A refusal waits in the socket's backlog instead, and is repeated only against the unforeseen.
const REFUSAL_REPEAT: Duration = Duration::from_secs(1);

/// Tells the application, until it has heard.
pub(super) async fn answer(holding: &Holding<Ready>, syn: &HeldSyn, answer: Answer, mut gone: Gone) {
    let (mut pause, longest) = match answer {
        Answer::Refused => (REFUSAL_REPEAT, REFUSAL_REPEAT),
        Answer::Unreachable(_) => (Duration::from_millis(1), ICMP_REPEAT),
    };
    let packet = match answer {
        Answer::Refused => packet::refusal(syn.pair, syn.sequence),
        Answer::Unreachable(what) => packet::unreachable(syn, what),
    };
    loop {
        holding.send(&packet);
        tokio::select! {
            () = gone.wait() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(longest),
        }
    }
}
