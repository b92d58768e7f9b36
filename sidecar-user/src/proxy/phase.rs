//! Whom a proxy still serves, for those who act on it. `stop.rs` decides it.

use tokio::sync::watch;

use crate::observe::{Figure, Observer};

/// Who is served. Each phase serves less than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Serving,
    /// Not ready any more, so that nobody new is sent here, and everybody who comes is served.
    LameDuck,
    /// Newcomers of both directions are refused; open flows go on.
    Draining,
    /// Open flows are reset.
    Cut,
}

impl Phase {
    pub(super) const ALL: [Self; 4] = [Self::Serving, Self::LameDuck, Self::Draining, Self::Cut];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::LameDuck => "lame-duck",
            Self::Draining => "draining",
            Self::Cut => "cut",
        }
    }
}

/// Completes when the phase has been reached, or the role is gone, which ends everything too.
pub(super) fn reached(phase: &watch::Receiver<Phase>, wanted: Phase) -> impl Future<Output = ()> + use<> {
    let mut phase = phase.clone();
    async move {
        let _ = phase.wait_for(|phase| *phase >= wanted).await;
    }
}

/// Shows the phase among the metrics.
pub(super) fn show(observer: &Observer, phase: watch::Receiver<Phase>) {
    observer.figures(move || read(*phase.borrow()));
}

pub(super) fn read(phase: Phase) -> Vec<Figure> {
    let help = "1 for the phase that this proxy is in";
    let series = Phase::ALL.map(|each| (each.name(), u64::from(each == phase)));
    vec![Figure::gauge("outrigger_proxy_state", help).by("state", series)]
}
