//! Objects of one kind over time: what is there, and then each change. A connection that is lost, an answer that is too old (410
//! Gone) and a server that restarts end in another list of everything, so that whoever listens compares and never counts.

use std::fmt::Debug;

use futures_util::{Stream, StreamExt, stream};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<K> {
    /// Everything that is there. What was known and is not among it is gone.
    All(Vec<K>),
    /// It is new, or another one than before.
    Applied(K),
    Gone(K),
    /// The server cannot be asked, for this reason: what is known stays in force, and it is tried again with a backoff.
    Trouble(String),
}

impl<K> Change<K> {
    pub fn map<T>(self, read: impl Fn(K) -> T) -> Change<T> {
        match self {
            Self::All(all) => Change::All(all.into_iter().map(read).collect()),
            Self::Applied(one) => Change::Applied(read(one)),
            Self::Gone(one) => Change::Gone(read(one)),
            Self::Trouble(why) => Change::Trouble(why),
        }
    }
}

/// Never ends.
pub fn follow<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = Change<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut listed = Vec::new();
    watch(api, config)
        .default_backoff()
        .filter_map(move |event| std::future::ready(change(event, &mut listed)))
        .chain(stream::pending())
}

/// `None`: the list goes on.
fn change<K>(event: watcher::Result<Event<K>>, listed: &mut Vec<K>) -> Option<Change<K>> {
    match event {
        Ok(Event::Init) => listed.clear(),
        Ok(Event::InitApply(one)) => listed.push(one),
        Ok(Event::InitDone) => return Some(Change::All(std::mem::take(listed))),
        Ok(Event::Apply(one)) => return Some(Change::Applied(one)),
        Ok(Event::Delete(one)) => return Some(Change::Gone(one)),
        Err(error) => return Some(Change::Trouble(crate::error_chain(&error))),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_told_as_a_whole_and_a_list_that_broke_off_not_at_all() {
        let mut listed = Vec::new();
        let mut tell = |event| change(event, &mut listed);
        assert_eq!(tell(Ok(Event::Init)), None);
        assert_eq!(tell(Ok(Event::InitApply(1))), None);
        assert!(matches!(
            tell(Err(watcher::Error::NoResourceVersion)),
            Some(Change::Trouble(_))
        ));
        assert_eq!(tell(Ok(Event::Init)), None);
        assert_eq!(tell(Ok(Event::InitApply(2))), None);
        assert_eq!(tell(Ok(Event::InitDone)), Some(Change::All(vec![2])));
        assert_eq!(tell(Ok(Event::Apply(3))), Some(Change::Applied(3)));
        assert_eq!(tell(Ok(Event::Delete(3))), Some(Change::Gone(3)));
    }
}
