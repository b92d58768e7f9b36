//! What a replica keeps in order by itself: the roots in the ConfigMap, and notes in the Secret about what it signs and has published.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::super::kept::{Kept, NAME};
use super::super::roots::{Elsewhere, Roots};
use crate::error_chain;
use crate::issuer::Material;
use crate::kubernetes::{find_config_map, publish};

/// How often it is looked at whether something is to be done.
const LOOK: Duration = Duration::from_secs(2);
/// How often the ConfigMap is looked after that somebody may have changed.
const LOOK_AFTER: Duration = Duration::from_secs(300);

/// What was seen to.
struct Done {
    roots: String,
    at: Instant,
    /// The roots were in the ConfigMap and everywhere else, and that was noted.
    everywhere: bool,
}

/// Never ends.
pub(super) async fn run(kept: &Kept, roots: &Arc<Roots>, elsewhere: watch::Receiver<Elsewhere>) {
    let store = roots.service().store();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done: Option<Done> = None;
    loop {
        look.tick().await;
        let is_done = done.as_ref().is_some_and(|done| {
            let is_complete = done.everywhere || !elsewhere.borrow().holds(&done.roots);
            done.roots == store.current().bundle() && done.at.elapsed() < LOOK_AFTER && is_complete
        });
        if is_done && !store.is_note_due(SystemTime::now()) {
            continue;
        }
        match see_to(kept, roots, &elsewhere).await {
            Ok(seen) => done = seen,
            Err(error) => {
                store.count_failure();
                tracing::warn!(
                    namespace = kept.namespace,
                    name = NAME,
                    error,
                    "the roots cannot be published, or it cannot be noted until when certificates live; tried again"
                );
            }
        }
    }
}

/// `None`: somebody else has changed something meanwhile.
async fn see_to(
    kept: &Kept,
    roots: &Roots,
    elsewhere: &watch::Receiver<Elsewhere>,
) -> Result<Option<Done>, String> {
    let Kept { client, namespace } = kept;
    let words = |error| error_chain(&error);
    // The roots are read after it: whoever has written newer ones since then has changed it, and these are not written over them.
    let found = find_config_map(client, namespace, NAME).await.map_err(words)?;
    let bundle = roots.now().await?;
    if found.value(Material::ROOTS) != Some(&*bundle)
        && !publish(client, namespace, NAME, &found, Material::ROOTS, &bundle)
            .await
            .map_err(words)?
    {
        return Ok(None);
    }
    let everywhere = elsewhere.borrow().holds(&bundle);
    let store = roots.service().store();
    let noted = kept.note(everywhere.then_some(&*bundle), store.leaf_ttl()).await;
    let noted = noted.map_err(|trouble| error_chain(&trouble))?;
    store.replace(&noted).map_err(|error| error_chain(&error))?;
    Ok(Some(Done {
        roots: bundle,
        at: Instant::now(),
        everywhere,
    }))
}
