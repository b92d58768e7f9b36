//! Tells the service manager how the process fares, by sd_notify(3): READY=1 once, STATUS= with what is missing, STOPPING=1,
//! and WATCHDOG=1 while the control work's loop turns. Without NOTIFY_SOCKET in the environment nothing is sent. Decides
//! nothing about readiness or the end.
//!
//! Sending is a datagram to the manager and blocks while its queue is full, as sd_notify(3) does.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::observe::Readiness;

/// Watchdog messages within one timeout of the manager. sd_watchdog_enabled(3) asks for 2; with 3 one may come late.
const PINGS: u32 = 3;

/// What the manager waits for beside the time that was promised: the end of threads, the log's last lines.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// Follows the readiness and pings the watchdog until dropped. Spawn it on the runtime of the control work: a loop that
/// stands still sends no ping, and the manager restarts the process.
pub async fn follow(readiness: Readiness) {
    run(readiness, sd_notify::watchdog_enabled(), send).await;
}

/// The process has begun to end, and needs this long at most.
pub fn stopping(limit: Duration) {
    let micros = limit.saturating_add(LAST_STEPS).as_micros();
    let micros = u32::try_from(micros).unwrap_or(u32::MAX);
    send(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        refused(&error);
    }
}

fn refused(error: &io::Error) {
    tracing::warn!(%error, "the service manager is not told: nobody takes messages at NOTIFY_SOCKET");
}

async fn run(readiness: Readiness, watchdog: Option<Duration>, mut send: impl FnMut(&[NotifyState<'_>])) {
    let mut changes = readiness.changes();
    let mut pings = watchdog.map(every);
    let mut announced = false;
    let mut told = None;
    loop {
        changes.borrow_and_update();
        let missing = readiness.missing();
        let is_ready = missing.is_none();
        let status = missing.unwrap_or_else(|| "ready".to_owned());
        if told.as_ref() != Some(&status) {
            let mut states = vec![NotifyState::Status(&status)];
            if is_ready && !announced {
                states.insert(0, NotifyState::Ready);
                announced = true;
            }
            send(&states);
            told = Some(status);
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = next(&mut pings) => send(&[NotifyState::Watchdog]),
        }
    }
}

/// A loop that stood still makes up for no ping that it has missed.
fn every(timeout: Duration) -> Interval {
    let mut pings = interval((timeout / PINGS).max(Duration::from_millis(1)));
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings
}

async fn next(pings: &mut Option<Interval>) {
    match pings {
        Some(pings) => {
            pings.tick().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::observe::Observer;

    /// What was sent, one line a message.
    #[derive(Clone, Default)]
    struct Manager(Arc<Mutex<Vec<String>>>);

    impl Manager {
        fn supervise(&self, readiness: &Readiness, watchdog: Option<Duration>) {
            let sent = self.0.clone();
            tokio::spawn(run(readiness.clone(), watchdog, move |states| {
                let words: Vec<String> = states.iter().map(ToString::to_string).collect();
                sent.lock().unwrap().push(words.join(" "));
            }));
        }

        /// What has come since the last look, once everybody who can go on has.
        async fn heard(&self) -> Vec<String> {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            std::mem::take(&mut *self.0.lock().unwrap())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_is_announced_once_and_followed() {
        let (observer, manager) = (Observer::new(), Manager::default());
        let identity = observer.readiness().condition("identity", "no certificate yet");
        manager.supervise(observer.readiness(), None);
        assert_eq!(
            manager.heard().await,
            ["STATUS=not ready: identity: no certificate yet"]
        );
        identity.met();
        assert_eq!(manager.heard().await, ["READY=1 STATUS=ready"]);
        identity.met();
        assert_eq!(manager.heard().await, [] as [&str; 0], "nothing new");
        identity.unmet("it has expired");
        assert_eq!(
            manager.heard().await,
            ["STATUS=not ready: identity: it has expired"]
        );
        identity.met();
        assert_eq!(manager.heard().await, ["STATUS=ready"]);
        observer.readiness().drain();
        let heard = manager.heard().await;
        assert!(
            heard.len() == 1 && heard[0].starts_with("STATUS=not ready: draining"),
            "{heard:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stood_still_sends_no_ping_and_makes_up_for_none() {
        const TIMEOUT: Duration = Duration::from_secs(30);
        let (observer, manager) = (Observer::new(), Manager::default());
        observer.readiness().condition("listeners", "").met();
        manager.supervise(observer.readiness(), Some(TIMEOUT));
        assert_eq!(manager.heard().await, ["READY=1 STATUS=ready", "WATCHDOG=1"]);
        for _ in 0..6 {
            tokio::time::advance(TIMEOUT / PINGS).await;
            assert_eq!(manager.heard().await, ["WATCHDOG=1"]);
        }
        // Time goes by and no task of the loop is polled: `advance` moves the clock before it yields.
        tokio::time::advance(10 * TIMEOUT).await;
        assert_eq!(manager.heard().await, ["WATCHDOG=1"]);
    }
}
