//! The owner's side: who asks, what is granted, and what becomes of it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, path::Path, thread};

use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::phase::{self, Phase};
use super::handover::{Door, Handover};
use super::wire::{
    ANSWER, ASK, DONE, FIRST_WORD, GRANTED, LAY_DOWN, LOST, REFUSED, TAKEN, Takeover, handed, pause, said,
    word,
};
use crate::lifecycle;
use crate::lifecycle::messages::{Listener, Message, Messages};
use crate::model::SpiffeId;
use crate::observe::{Observer, SharedSocket};

/// What another proxy may have, and who it has to be.
pub(in super::super) struct Offer {
    pub(in super::super) takeover: Takeover,
    pub(in super::super) identity: SpiffeId,
    pub(in super::super) handover: Handover,
    pub(in super::super) admin_socket: Option<SharedSocket>,
    pub(in super::super) observer: Observer,
    pub(in super::super) phase: watch::Receiver<Phase>,
    /// Told once another proxy has the pod.
    pub(in super::super) replaced: watch::Sender<bool>,
    /// How often the pod has been taken over before.
    pub(in super::super) takeovers: u64,
}

/// How often a name or a listener that cannot be had is tried again.
const LOOK: Duration = Duration::from_millis(50);

struct Owner {
    offer: Offer,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By name, the lease apart. Given up with this proxy's own listeners: as long as one of the descriptors is open, the
    /// kernel accepts connections that nobody serves.
    descriptors: Vec<(&'static str, OwnedFd)>,
    listener: Option<Arc<Listener>>,
    /// The process that takes over, 0 where it is of another PID namespace.
    asked: Option<u32>,
    /// With the proxy that has the pod, which sees our end by it.
    taken: Option<Messages>,
}

/// Answers whoever asks, on threads of its own, until another proxy has the pod.
pub(in super::super) fn offer(pins: &Path, offer: Offer, descriptors: Vec<(&'static str, OwnedFd)>) {
    let draining = phase::reached(&offer.phase, Phase::Draining);
    let owner = Arc::new(Owner {
        offer,
        state: Mutex::new(State {
            descriptors,
            ..State::default()
        }),
    });
    let closing = owner.clone();
    tokio::spawn(async move {
        draining.await;
        closing.lock().descriptors.clear();
    });
    let begin = || {
        let door = owner.offer.handover.door(pins)?;
        let listening = thread::Builder::new().name("takeover".into());
        listening.spawn(move || owner.listen(door))
    };
    let begun: io::Result<_> = begin();
    if let Err(error) = begun {
        tracing::warn!(%error, "no other proxy can take this pod over");
    }
}

/// The proxy before has the name for a moment yet, or until it ends where it is stuck.
fn bind(name: &str) -> Listener {
    let begun = Instant::now();
    let mut warned = false;
    loop {
        match Listener::bind(name) {
            Ok(listener) => return listener,
            Err(error) if begun.elapsed() > ANSWER && !warned => {
                warned = true;
                tracing::warn!(%error, name, "no other proxy can take this pod over yet");
            }
            Err(_) => {}
        }
        pause(LOOK);
    }
}

impl Owner {
    fn listen(self: Arc<Self>, door: Door) {
        let (listener, may_ask): (_, fn(&Messages) -> bool) = match door {
            // Others get no answer.
            Door::Named(name) => (bind(&name), |asking| {
                asking.peer().is_ok_and(|peer| peer.is_trusted())
            }),
            Door::Agents(listener) => (listener, |_| true),
        };
        let listener = Arc::new(listener);
        self.lock().listener = Some(listener.clone());
        loop {
            match listener.accept() {
                Ok(asking) if may_ask(&asking) => {
                    if let Some(message) = self.first(&asking) {
                        self.clone().answer(asking, message);
                    }
                }
                Ok(_) => {}
                Err(_) if self.lock().taken.is_some() => return,
                Err(error) => {
                    tracing::debug!(%error, "a proxy that wants to take over cannot be accepted");
                    pause(LOOK);
                }
            }
        }
    }

    fn first(&self, asking: &Messages) -> Option<Message> {
        let limit = match self.offer.handover {
            Handover::Installed(_) => FIRST_WORD,
            Handover::Granted(_) => ANSWER,
        };
        asking.receive(Some(limit)).ok().flatten()
    }

    fn answer(self: Arc<Self>, asking: Messages, message: Message) {
        let (say, asked) = said(&message);
        let pid = match self.offer.handover {
            Handover::Installed(_) => asking.peer().map(|peer| peer.pid).unwrap_or_default(),
            // The kernel tells of the agent, which has asked it who this is.
            Handover::Granted(_) => asked["pid"].as_u64().unwrap_or_default() as u32,
        };
        let may = say == ASK && self.offer.handover.is_proof(&message.descriptors);
        let granted = match self.refusal(may, &asked, pid) {
            Some(why) => {
                tracing::warn!(
                    pid,
                    why,
                    "another proxy wants to take this pod over and is refused"
                );
                let answer = json!({"say": REFUSED, "why": why}).to_string();
                let _ = asking.send(answer.as_bytes(), &[]);
                return;
            }
            None => self.grant(&asking),
        };
        if let Err(error) = granted {
            tracing::warn!(pid, %error, "another proxy cannot be given what it needs to take over");
            self.lock().asked = None;
            return;
        }
        tracing::info!(pid, "another proxy prepares to take this pod over");
        let owner = self.clone();
        let waiting = thread::Builder::new()
            .name("takeover-wait".into())
            .spawn(move || owner.wait(asking, pid));
        if let Err(error) = waiting {
            tracing::warn!(pid, %error, "nobody can wait for the proxy that takes over");
            self.lock().asked = None;
        }
    }

    /// Why this one may not, for a person to read.
    fn refusal(&self, may: bool, asked: &Value, pid: u32) -> Option<String> {
        if !may {
            return Some("it has not shown that it may open interception.pins".into());
        }
        if self.offer.takeover == Takeover::Refuse {
            return Some("`interception.takeover: refuse` is its setting".into());
        }
        let identity = asked["identity"].as_str().unwrap_or_default();
        if identity != self.offer.identity.as_str() {
            return Some(format!(
                "it serves {}, and not {identity:?}",
                self.offer.identity.as_str()
            ));
        }
        if *self.offer.phase.borrow() != Phase::Serving {
            return Some("it is ending; wait for that".into());
        }
        let mut state = self.lock();
        if let Some(first) = state.asked {
            let first = match first {
                0 => "a process of another PID namespace".to_owned(),
                pid => format!("process {pid}"),
            };
            return Some(format!(
                "{first} is already taking over, which takes until it has a certificate; wait for that, or end it"
            ));
        }
        state.asked = Some(pid);
        None
    }

    fn grant(&self, asking: &Messages) -> io::Result<()> {
        let lease = self.offer.handover.lease().ok_or(io::ErrorKind::NotFound)??;
        let others = &self.lock().descriptors;
        let names: Vec<&str> = [handed::LEASE]
            .into_iter()
            .chain(others.iter().map(|(n, _)| *n))
            .collect();
        let descriptors = [lease.as_fd()]
            .into_iter()
            .chain(others.iter().map(|(_, fd)| fd.as_fd()));
        let answer = json!({
            "say": GRANTED,
            "descriptors": names,
            "takeovers": self.offer.takeovers,
            "generation": self.offer.handover.generation(),
            "pid": std::process::id(),
        });
        asking.send(answer.to_string().as_bytes(), &descriptors.collect::<Vec<_>>())
    }

    /// What becomes of a proxy that has been granted the pod.
    fn wait(&self, new: Messages, pid: u32) {
        let mut laid_down = false;
        // A message that cannot be read is as good as none: the other one is taken for gone.
        while let Ok(Some(message)) = new.receive(None) {
            match said(&message).0.as_str() {
                LAY_DOWN => {
                    self.offer.handover.lay_down();
                    laid_down = true;
                    if new.send(&word(DONE), &[]).is_err() {
                        break;
                    }
                }
                TAKEN => return self.taken(new, pid),
                LOST => return self.lost(new, pid, "the agent of this node says so"),
                _ => {}
            }
        }
        if laid_down && let Err(error) = self.offer.handover.restore() {
            let error = format!("{error:#}");
            match self.offer.handover {
                Handover::Installed(_) => tracing::error!(
                    pid,
                    error,
                    "what another proxy has changed before it ended cannot be put back"
                ),
                // Nobody brings connections here any more. The next proxy gets the pod from the agent.
                Handover::Granted(_) => return self.lost(new, pid, &error),
            }
        }
        tracing::warn!(
            pid,
            laid_down,
            "the proxy that was to take over has ended; this one goes on"
        );
        self.lock().asked = None;
    }

    /// What the other one has changed stays, and it has ended.
    fn lost(&self, new: Messages, pid: u32, error: &str) {
        tracing::error!(
            pid,
            error,
            "what another proxy has changed before it ended cannot be put back: this one serves what it has begun, and ends"
        );
        self.taken(new, pid);
    }

    fn taken(&self, new: Messages, pid: u32) {
        lifecycle::notify::replaced();
        self.offer.handover.leave();
        if let Some(socket) = &self.offer.admin_socket {
            socket.goes_on_elsewhere();
        }
        self.offer.observer.close_endpoints();
        tracing::info!(pid, "another proxy has taken this pod over");
        let mut state = self.lock();
        state.taken = Some(new);
        if let Some(listener) = state.listener.take() {
            // The thread that waits there gives the name up for the next owner.
            let _ = listener.close();
        }
        drop(state);
        self.offer.replaced.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
