//! The last stage of both walks: relay until a side ends it, or the proxy has to.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::live::LiveConnection;
use super::outcome;
use super::shard::Shard;
use crate::model::{Outcome, Party};
use crate::observe::OpenFlow;
use crate::relay::{Port, relay};

pub(super) async fn join(
    shard: &Shard,
    live: &LiveConnection,
    down: &mut impl Port,
    up: &mut impl Port,
    flow: &OpenFlow,
) -> Outcome {
    let bytes = flow.bytes();
    let end = {
        let mut relay = pin!(relay(down, up, &bytes, &shard.budget, shard.relay));
        poll_fn(|cx| match live.poll_cut(cx) {
            Poll::Ready(cut) => Poll::Ready(Err(cut)),
            Poll::Pending => relay.as_mut().poll(cx).map(Ok),
        })
        .await
    };
    match end {
        Ok(end) => outcome::of_end(&end),
        Err(cut) => {
            // Cut in the middle, and so it must look.
            if cut.by == Party::Policy {
                down.cancel();
                up.cancel();
            } else {
                down.reset();
                up.reset();
            }
            cut
        }
    }
}
