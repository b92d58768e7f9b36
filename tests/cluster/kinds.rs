//! The kinds of Istio's policies while some test needs them: the first one installs them, the last one takes them away. Without
//! them a mesh has no policies, which a test that has the mesh alone can see.

use std::sync::Mutex;

use harness::cluster::{Kubectl, istio};

/// How many tests need them now.
static HOLDERS: Mutex<usize> = Mutex::new(0);

pub(crate) struct Kinds<'a>(Kubectl<'a>);

impl<'a> Kinds<'a> {
    pub(crate) fn install(kubectl: Kubectl<'a>) -> Self {
        // Held meanwhile: who comes second finds them installed.
        let mut holders = HOLDERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *holders == 0 {
            istio::install(kubectl).unwrap();
        }
        *holders += 1;
        Self(kubectl)
    }
}

impl Drop for Kinds<'_> {
    fn drop(&mut self) {
        let mut holders = HOLDERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *holders -= 1;
        if *holders == 0 {
            let _ = istio::remove(self.0);
        }
    }
}
