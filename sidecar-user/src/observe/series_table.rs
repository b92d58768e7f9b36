//! The counters of one shard, one [`Series`] for each label set that it has met. The shard that owns it holds its lock.

use std::collections::{HashMap, HashSet};

use super::label_table::LabelTable;
use super::labels::Labels;
use super::series::Series;

#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    /// From a label set to its number.
    index: HashMap<Labels, u32>,
    /// At the index of the label set's number.
    held: Vec<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    labels: Labels,
    series: Series,
    /// Since it was last looked at, a connection was opened, closed or carried bytes.
    is_touched: bool,
}

impl SeriesTable {
    /// The number under which connections with these labels are counted: their own, or that of the overflow set.
    pub(super) fn number_of(&mut self, labels: Labels, table: &LabelTable) -> u32 {
        if let Some(number) = self.index.get(&labels) {
            return *number;
        }
        let Some(number) = table.admit(&labels) else {
            table.count_overflow();
            return self.number_of(labels.overflowed(), table);
        };
        let place = number as usize;
        if self.held.len() <= place {
            self.held.resize_with(place + 1, || None);
        }
        self.held[place] = Some(Held {
            labels: labels.clone(),
            series: Series::default(),
            is_touched: true,
        });
        self.index.insert(labels, number);
        number
    }

    /// To change the counters of a number that an open flow is counted under.
    pub(super) fn touch(&mut self, number: u32) -> &mut Series {
        match self.held.get_mut(number as usize) {
            Some(Some(held)) => {
                held.is_touched = true;
                &mut held.series
            }
            _ => unreachable!("a series stays as long as a flow is counted in it"),
        }
    }

    /// Adds the numbers that are in use: a flow is open, or something happened since the last call.
    pub(super) fn collect_used(&mut self, used: &mut HashSet<u32>) {
        for (number, held) in (0..).zip(&mut self.held) {
            if let Some(held) = held
                && (std::mem::take(&mut held.is_touched) || held.series.active > 0)
            {
                used.insert(number);
            }
        }
    }

    /// Gives up a series that is not in use and adds it to `sum`; `false` when it is in use.
    pub(super) fn release(&mut self, number: u32, table: &LabelTable, sum: &mut Series) -> bool {
        let Some(place) = self.held.get_mut(number as usize) else {
            return true;
        };
        match place.take_if(|held| !held.is_touched && held.series.active == 0) {
            Some(held) => {
                self.index.remove(&held.labels);
                table.release(number);
                sum.add(&held.series);
                true
            }
            None => place.is_none(),
        }
    }

    /// Takes back what another shard, or this one before, has given up; `false` when it does not hold the number.
    pub(super) fn take_back(&mut self, number: u32, sum: &Series) -> bool {
        match self.held.get_mut(number as usize) {
            Some(Some(held)) => {
                held.series.add(sum);
                true
            }
            _ => false,
        }
    }

    /// Adds every series to `sums`, which is indexed by number too.
    pub(super) fn add_to(&self, sums: &mut Vec<Series>) {
        if sums.len() < self.held.len() {
            sums.resize_with(self.held.len(), Series::default);
        }
        for (sum, held) in sums.iter_mut().zip(&self.held) {
            if let Some(held) = held {
                sum.add(&held.series);
            }
        }
    }
}
