//! The last stage of both walks: relay until a side ends it, or the proxy has to.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::super::contain::Joined;
use super::super::live::LiveConnection;
use super::super::outcome;
use super::super::shard::context::Shard;
use crate::admission::Guest;
use crate::model::{Cause, Outcome, Party};
use crate::observe::OpenFlow;
use crate::relay::{Port, relay};

pub(in crate::proxy) async fn join(
    shard: &Shard,
    live: &LiveConnection,
    down: &mut impl Port,
    up: &mut impl Port,
    flow: &OpenFlow,
) -> Outcome {
    let bytes = flow.bytes();
    let reading = shard.readings.begin(flow, &*down, &*up);
    let ports = Joined { down, up };
    let end = {
        let mut relay = pin!(relay(
            &mut *ports.down,
            &mut *ports.up,
            &bytes,
            &shard.budget,
            shard.relay
        ));
        poll_fn(|cx| match live.poll_cut(cx) {
            Poll::Ready(cut) => Poll::Ready(Err(cut)),
            Poll::Pending => relay.as_mut().poll(cx).map(Ok),
        })
        .await
    };
    reading.end();
    match end {
        Ok(end) => outcome::of_end(&end),
        Err(cut) => {
            // Cut in the middle, and so it must look.
            if cut.by == Party::Policy {
                ports.down.cancel();
                ports.up.cancel();
            } else {
                ports.down.reset();
                ports.up.reset();
            }
            cut
        }
    }
}

/// The same for a connection that holds a place at a door until the client's first byte has reached its application.
pub(in crate::proxy) async fn join_guest(
    shard: &Shard,
    (live, guest): (&LiveConnection, &Guest),
    down: &mut impl Port,
    up: &mut impl Port,
    flow: &OpenFlow,
) -> Outcome {
    let bytes = flow.bytes();
    let mut waiting = true;
    let mut evicted = pin!(guest.evicted());
    let mut joined = pin!(join(shard, live, down, up, flow));
    poll_fn(|cx| {
        if waiting && bytes.sent() > 0 {
            waiting = false;
            guest.proved();
        }
        if waiting && evicted.as_mut().poll(cx).is_ready() {
            waiting = false;
            live.cut(Outcome::new(Party::Us, Cause::LimitReached));
        }
        joined.as_mut().poll(cx)
    })
    .await
}
