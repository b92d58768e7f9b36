//! Files over time: swaps, files that are of no use, and what stays in force meanwhile.

use super::super::bundle::tests::{Root, Volume, id};
use super::*;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Followed {
    svid: watch::Receiver<Option<Arc<Svid>>>,
    status: watch::Receiver<Status>,
    task: tokio::task::JoinHandle<Infallible>,
}

impl Followed {
    fn start(files: Files) -> Self {
        let (publish, svid) = watch::channel(None);
        let (report, status) = watch::channel(Status::default());
        let task = tokio::spawn(async move { follow(&id(), &files, &publish, &report).await });
        Self { svid, status, task }
    }

    /// The first certificate that is not of this serial number.
    async fn other_than(&mut self, serial: &str) -> Arc<Svid> {
        let is_other = |svid: &Option<Arc<Svid>>| svid.as_ref().is_some_and(|svid| svid.serial() != serial);
        let waiting = tokio::time::timeout(PATIENCE, self.svid.wait_for(is_other));
        waiting.await.unwrap().unwrap().clone().unwrap()
    }

    async fn error(&mut self, words: &str) -> Status {
        let has = |status: &Status| {
            status
                .last_error
                .as_ref()
                .is_some_and(|error| error.contains(words))
        };
        let waiting = tokio::time::timeout(PATIENCE, self.status.wait_for(has));
        waiting
            .await
            .unwrap_or_else(|_| panic!("never: {words}"))
            .unwrap()
            .clone()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_volume_that_is_swapped_brings_the_next_certificate_and_the_next_roots() {
    let (volume, root) = (Volume::new(), Root::new("root"));
    volume.write(&root.bundle(|_| {}), &root.pem);
    let mut followed = Followed::start(volume.files());
    let first = followed.other_than("").await;
    assert_eq!(first.roots().len(), 1);
    let next = Root::new("next");
    volume.write(&next.bundle(|_| {}), &(root.pem.clone() + &next.pem));
    let second = followed.other_than(first.serial()).await;
    assert_eq!(second.roots().len(), 2);
    assert_eq!(followed.status.borrow().last_error, None);
}

#[tokio::test]
async fn files_that_turn_bad_leave_the_last_good_certificate_in_force_and_say_why() {
    let (volume, root) = (Volume::new(), Root::new("root"));
    volume.write(&root.bundle(|_| {}), &root.pem);
    let mut followed = Followed::start(volume.files());
    let good = followed.other_than("").await;
    volume.write("no bundle", &root.pem);
    let status = followed.error("holds no key").await;
    assert!(status.failures > 0 && status.next_attempt.is_some());
    assert!(Arc::ptr_eq(followed.svid.borrow().as_ref().unwrap(), &good));
    volume.write(&root.bundle(|_| {}), &root.pem);
    followed.other_than(good.serial()).await;
    let is_over = |status: &Status| status.failures == 0 && status.last_error.is_none();
    tokio::time::timeout(PATIENCE, followed.status.wait_for(is_over))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_bundle_that_comes_later_than_the_proxy_is_taken_up() {
    let (volume, root) = (Volume::new(), Root::new("root"));
    let mut followed = Followed::start(volume.files());
    followed.error("cannot read").await;
    assert!(followed.svid.borrow().is_none());
    volume.write(&root.bundle(|_| {}), &root.pem);
    followed.other_than("").await;
}

#[tokio::test]
async fn the_same_certificate_once_more_is_no_news() {
    let (volume, root) = (Volume::new(), Root::new("root"));
    let bundle = root.bundle(|_| {});
    volume.write(&bundle, &root.pem);
    let svid = || bundle::read(&id(), &volume.files(), SystemTime::now()).unwrap();
    let publish = watch::Sender::new(None);
    offer(svid(), &publish);
    let mut seen = publish.subscribe();
    seen.mark_unchanged();
    volume.write(&bundle, &root.pem);
    offer(svid(), &publish);
    assert!(!seen.has_changed().unwrap());
    let other = Root::new("other");
    volume.write(&bundle, &(root.pem.clone() + &other.pem));
    offer(svid(), &publish);
    assert!(seen.has_changed().unwrap(), "its roots have changed");
}
