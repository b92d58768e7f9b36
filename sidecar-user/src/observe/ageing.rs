//! Lets label sets go that nobody uses any more, so that a burst of names does not leave room for nothing else.
//!
//! Done with each rendering, never by a connection. A set is dropped from every shard or from none: the counters of half
//! of the shards would look like a counter that went back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::label_table::LabelTable;
use super::series::Series;
use super::shard::Shard;

/// To be called by one thread at a time.
pub(super) fn age_out(now: Instant, idle: Duration, labels: &LabelTable, shards: &[Arc<Shard>]) {
    let mut used = HashSet::new();
    for shard in shards {
        shard.collect_used(&mut used);
    }
    for number in labels.idle(now, &used, idle) {
        let mut sum = Series::default();
        let is_released = shards.iter().all(|shard| shard.release(number, &mut sum));
        // A connection may have come meanwhile, and brought the set back.
        if !(is_released && labels.forget(number)) {
            let _ = shards.iter().any(|shard| shard.take_back(number, &sum));
        }
    }
}
