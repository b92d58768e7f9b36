//! The doors of the process in the metrics: how many connections wait at each without having proved anything, and how
//! many had to make room.

use std::fmt;
use std::sync::{Arc, Mutex};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::lock;
use crate::admission::{Admission, Counts};

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Doors(Arc<Mutex<Vec<(&'static str, Admission)>>>);

impl Doors {
    pub(super) fn add(&self, name: &'static str, door: Admission) {
        lock(&self.0).push((name, door));
    }

    /// Doors of one name, as each shard has them, are one.
    fn counts(&self) -> Vec<(&'static str, usize, Counts)> {
        let mut all: Vec<(&'static str, usize, Counts)> = Vec::new();
        for (name, door) in &*lock(&self.0) {
            let (more, more_places) = (door.counts(), door.limits().places);
            match all.iter_mut().find(|(known, ..)| known == name) {
                Some((_, places, counts)) => {
                    *places += more_places;
                    counts.waiting += more.waiting;
                    counts.evicted_by_quota += more.evicted_by_quota;
                    counts.evicted_when_full += more.evicted_when_full;
                }
                None => all.push((name, more_places, more)),
            }
        }
        all
    }
}

impl Collector for Doors {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let doors = self.counts();
        if doors.is_empty() {
            return Ok(());
        }
        let help = "Connections that have proved nothing yet, by door";
        let mut metric =
            encoder.encode_descriptor("outrigger_admission_waiting", help, None, MetricType::Gauge)?;
        for (door, _, counts) in &doors {
            metric
                .encode_family(&[("door", *door)])?
                .encode_gauge(&(counts.waiting as i64))?;
        }
        let help = "How many of them there may be, by door";
        let mut metric =
            encoder.encode_descriptor("outrigger_admission_places", help, None, MetricType::Gauge)?;
        for (door, places, _) in &doors {
            metric
                .encode_family(&[("door", *door)])?
                .encode_gauge(&(*places as i64))?;
        }
        evicted(
            &mut encoder,
            "outrigger_admission_evicted_by_quota",
            "Connections closed to make room for a newer one of their source, by door",
            doors
                .iter()
                .map(|(door, _, counts)| (*door, counts.evicted_by_quota)),
        )?;
        evicted(
            &mut encoder,
            "outrigger_admission_evicted_when_full",
            "Connections closed to make room for a newer one because all places were taken, by door",
            doors
                .iter()
                .map(|(door, _, counts)| (*door, counts.evicted_when_full)),
        )
    }
}

fn evicted(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    doors: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (door, n) in doors {
        metric
            .encode_family(&[("door", door)])?
            .encode_counter::<NoLabelSet, u64, u64>(&n, None)?;
    }
    Ok(())
}
