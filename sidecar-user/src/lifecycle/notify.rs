//! Tells the service manager how the process fares, by sd_notify(3): READY=1 once, STATUS= with what is missing, STOPPING=1,
//! and WATCHDOG=1 while the control work's loop turns. Decides nothing about readiness or the end.
//!
//! A datagram to a manager whose queue is full blocks its sender, so a thread of its own sends them. Nobody else waits for a
//! manager that does not read.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::privileges::{self, Privileges};
use crate::observe::Readiness;

/// Watchdog messages within one timeout of the manager. sd_watchdog_enabled(3) asks for 2; with 3 one may come late.
const PINGS: u32 = 3;

/// What the manager waits for beside the time that was promised: the end of threads, the log's last lines.
const LAST_STEPS: Duration = Duration::from_secs(10);

/// Messages on their way; those beyond are lost. A manager that reads leaves none there.
const QUEUE: usize = 16;

/// How long the end waits for a manager to take the word that it has begun. Without it, a short end would outrun the word.
const LAST_WORD: Duration = Duration::from_millis(500);

static MANAGER: OnceLock<SyncSender<Message>> = OnceLock::new();
/// Another process speaks for the service.
static REPLACED: AtomicBool = AtomicBool::new(false);

struct Message {
    text: String,
    /// Told when it has been sent.
    sent: Option<SyncSender<()>>,
}

/// From now on the manager is told. Call it once, where the environment names its socket (NOTIFY_SOCKET).
pub fn start() -> io::Result<()> {
    let (queue, messages) = mpsc::sync_channel::<Message>(QUEUE);
    let send = move || {
        privileges::keep(Privileges::NONE);
        for message in messages {
            if !REPLACED.load(Relaxed)
                && let Err(error) = sd_notify::notify(&[NotifyState::Custom(&message.text)])
            {
                tracing::warn!(%error, "the service manager is not told: nobody takes messages at NOTIFY_SOCKET");
            }
            if let Some(sent) = message.sent {
                // Nobody waits any more.
                let _ = sent.send(());
            }
        }
    };
    thread::Builder::new().name("notify".into()).spawn(send)?;
    let _ = MANAGER.set(queue);
    Ok(())
}

/// Follows the readiness and pings the watchdog until dropped. Spawn it on the runtime of the control work: a loop that
/// stands still sends no ping, and the manager restarts the process.
///
/// Not before this process is the service's main one: a manager that believes several processes (NotifyAccess=all) takes the
/// word of each for the service's.
pub async fn follow(readiness: Readiness) {
    if MANAGER.get().is_some() {
        let send = |states: &[NotifyState<'_>]| tell(states, None);
        run(readiness, sd_notify::watchdog_enabled(), send).await;
    }
}

/// This process is the service's main one from now on; the one before ends by itself. The manager believes that of a process
/// of the service where it has NotifyAccess=all.
pub fn took_over() {
    tell(&[NotifyState::MainPid(std::process::id())], None);
}

/// Another process is the service's main one: this one says nothing any more, neither that it lives nor that it ends.
pub fn replaced() {
    REPLACED.store(true, Relaxed);
}

/// The process has begun to end, and needs this long at most.
pub fn stopping(limit: Duration) {
    let micros = limit.saturating_add(LAST_STEPS).as_micros();
    let micros = u32::try_from(micros).unwrap_or(u32::MAX);
    let states = [NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)];
    let (sent, is_sent) = mpsc::sync_channel(1);
    tell(&states, Some(sent));
    // Nobody has it where there is no manager: then this ends at once.
    let _ = is_sent.recv_timeout(LAST_WORD);
}

fn tell(states: &[NotifyState<'_>], sent: Option<SyncSender<()>>) {
    if let Some(manager) = MANAGER.get() {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        let text = lines.join("\n");
        // A full queue is one that the manager does not read.
        let _ = manager.try_send(Message { text, sent });
    }
}

async fn run(readiness: Readiness, watchdog: Option<Duration>, send: impl Fn(&[NotifyState<'_>])) {
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
            // The manager's clock starts with READY=1, and so does this one.
            () = next(&mut pings), if announced => send(&[NotifyState::Watchdog]),
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
