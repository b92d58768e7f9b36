//! The last stage of both walks: relay until a side ends it, or the proxy has to.

use super::outcome;
use super::shard::Shard;
use crate::model::{Cause, Outcome, Party};
use crate::observe::OpenFlow;
use crate::relay::{Port, relay};

pub(super) async fn join(
    shard: &Shard,
    down: &mut impl Port,
    up: &mut impl Port,
    flow: &OpenFlow,
) -> Outcome {
    let bytes = flow.bytes();
    tokio::select! {
        biased;
        end = relay(down, up, &bytes, shard.relay) => outcome::of_end(&end),
        () = shard.cut() => {
            // Cut in the middle, and so it must look.
            down.reset();
            up.reset();
            Outcome::new(Party::Us, Cause::Shutdown)
        }
    }
}
