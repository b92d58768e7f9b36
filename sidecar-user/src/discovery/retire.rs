//! Where old snapshots go. Decides nothing about new ones.

use std::sync::Arc;
use std::time::Duration;

/// Readers hold a snapshot while they dial, mostly for milliseconds.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps what was replaced until nobody else has it, and then frees it on a thread where nobody waits: a large registry
/// takes tens of milliseconds, which the last reader would take from every connection of its shard.
pub(super) async fn retire<T: Send + Sync + 'static>(old: Arc<T>) {
    // Nobody gets it from its source any more, so the number only falls.
    while Arc::strong_count(&old) > 1 {
        tokio::time::sleep(LOOK).await;
    }
    // Fails when the runtime ends, and the process with it.
    let _ = tokio::task::spawn_blocking(move || drop(old)).await;
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    /// Tells where it is freed.
    struct Old(mpsc::Sender<ThreadId>);

    impl Drop for Old {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_reader_frees_nothing() {
        let (freed, told) = mpsc::channel();
        let old = Arc::new(Old(freed));
        let reader = old.clone();
        let retired = tokio::spawn(retire(old));
        tokio::time::sleep(LOOK * 3).await;
        assert!(told.try_recv().is_err(), "somebody reads it");
        drop(reader);
        assert!(told.try_recv().is_err(), "the reader has other things to do");
        retired.await.unwrap();
        assert_ne!(told.try_recv().unwrap(), thread::current().id());
    }
}
