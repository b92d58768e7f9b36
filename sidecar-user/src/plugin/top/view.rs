//! What is known, and by whose clock: the door between news, which come at their times, and the model, to which time is an argument.

use std::collections::BTreeMap;
use std::time::Instant;

use super::app::App;
use super::feed::News;
use super::model::Model;

#[derive(Debug)]
pub(super) struct View {
    model: Model,
    began: Instant,
    /// By target.
    problems: BTreeMap<usize, String>,
    /// Lists that each target has told.
    lists: BTreeMap<usize, usize>,
}

impl View {
    pub(super) fn new() -> Self {
        Self {
            model: Model::default(),
            began: Instant::now(),
            problems: BTreeMap::new(),
            lists: BTreeMap::new(),
        }
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(super) fn refresh(&self, app: &mut App) {
        app.refresh(&self.model, self.now());
    }

    pub(super) fn take(&mut self, news: News, app: &mut App) {
        let now = self.now();
        match news {
            News::Event(target, event) => {
                self.problems.remove(&target);
                self.model.event(target, *event, now);
            }
            News::OpenFlows(target, list) => {
                *self.lists.entry(target).or_default() += 1;
                self.model.open_flows(target, list.open, !list.truncated, now);
            }
            News::Lost(target, problem) => {
                self.model.lost(target);
                self.problems.insert(target, problem);
            }
            News::End => {}
        }
        app.problems = self.problems.values().cloned().collect();
    }

    /// Whether each of so many targets has been asked twice, or has not answered.
    pub(super) fn is_known(&self, targets: usize) -> bool {
        (0..targets)
            .all(|n| self.lists.get(&n).is_some_and(|lists| *lists > 1) || self.problems.contains_key(&n))
    }

    pub(super) fn problems(&self) -> &BTreeMap<usize, String> {
        &self.problems
    }
}
