//! A rotation beside a running authority: when each step may come, what workloads are told after it, and what a crash in
//! the middle of one leaves.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::scratch::Scratch;
use super::super::state::{Readers, StateDir};
use super::super::store::{KEY, Times};
use super::super::{Ca, Config, Store};
use super::*;
use crate::model::SpiffeId;

const HOUR: Duration = Duration::from_secs(3600);
/// The end of a leaf is noted with an eighth of its life more, so that not each one is written down.
const NOTED: Duration = Duration::from_secs(3600 + 450);

/// An authority that runs.
struct Running {
    config: Config,
    store: Store,
    now: SystemTime,
    _scratch: Scratch,
}

impl Running {
    fn new() -> Self {
        let scratch = Scratch::new();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            state_dir: scratch.join("state"),
            trust_domain: "td.test".to_owned(),
            leaf_ttl: HOUR,
            server_names: vec![],
        };
        Self {
            store: Store::open(&config).unwrap(),
            config,
            now: at(1_800_000_000),
            _scratch: scratch,
        }
    }

    fn dir(&self) -> StateDir {
        StateDir::open(&self.config.state_dir).unwrap()
    }

    fn reopened(&self) -> Store {
        Store::open(&self.config).unwrap()
    }

    fn take(&self, step: Step, force: bool) -> Result<Status, Error> {
        take(&self.config.state_dir, step, force, self.now)
    }

    /// A leaf, by the number of its root among `roots`, and how many roots its workload is told of.
    fn issue(&self, roots: &[CertificateDer<'static>]) -> (usize, usize) {
        let id = SpiffeId::new("td.test", "demo", "a").unwrap();
        let request = CertificateParams::default()
            .serialize_request(&KeyPair::generate().unwrap())
            .unwrap();
        let (issued, ca) = self
            .store
            .issue(&request.pem().unwrap(), &id, None, self.now)
            .unwrap();
        let leaf = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
        let signer = roots.iter().position(|root| {
            let (_, root) = x509_parser::parse_x509_certificate(root).unwrap();
            leaf.verify_signature(Some(root.public_key())).is_ok()
        });
        (signer.unwrap(), ca.roots())
    }
}

fn told(ca: &Arc<Ca>) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(ca.bundle().as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn is_early(taken: &Result<Status, Error>) -> bool {
    matches!(taken, Err(Error::TooEarly { .. }))
}

#[test]
fn each_step_waits_for_the_leaves_before_it_and_a_running_authority_follows() {
    let mut mesh = Running::new();
    let old = told(&mesh.store.current());
    assert_eq!(mesh.issue(&old), (0, 1));
    let status = mesh.take(Step::Begin, false).unwrap();
    assert_eq!((status.phase, status.roots.len()), (Phase::Overlap, 2));
    let both = told(&mesh.store.current());
    assert_eq!((both[0].clone(), both.len()), (old[0].clone(), 2));
    assert_eq!(mesh.issue(&both), (0, 2));

    mesh.now += NOTED - Duration::from_secs(1);
    let early = mesh.take(Step::Switch, false);
    assert!(is_early(&early), "{early:?}");
    let words = early.unwrap_err().to_string();
    assert!(words.contains("--force") && words.contains("2027-"), "{words}");
    mesh.now += Duration::from_secs(1);
    assert_eq!(mesh.issue(&both), (0, 2), "renewals go on meanwhile");
    assert_eq!(mesh.take(Step::Switch, false).unwrap().phase, Phase::Switched);
    assert_eq!(mesh.issue(&both), (1, 2));

    assert!(
        is_early(&mesh.take(Step::Finish, false)),
        "leaves of the old root live"
    );
    mesh.now += NOTED;
    assert_eq!(mesh.take(Step::Finish, false).unwrap().phase, Phase::Steady);
    assert_eq!(told(&mesh.store.current()), [both[1].clone()]);
    assert_eq!(mesh.issue(&both), (1, 1));
    assert_eq!(told(&mesh.reopened().current()), [both[1].clone()]);
    assert!(mesh.dir().stamp(NEXT_KEY).unwrap().is_none());
    assert!(mesh.take(Step::Begin, false).is_ok(), "and once more");
}

#[test]
fn a_step_back_is_possible_at_once_and_removes_a_root_only_when_its_leaves_are_gone() {
    let mut mesh = Running::new();
    let old = told(&mesh.store.current());
    mesh.take(Step::Begin, false).unwrap();
    assert_eq!(mesh.take(Step::Abort, false).unwrap().phase, Phase::Steady);
    assert_eq!(told(&mesh.store.current()), old);
    assert!(
        mesh.dir().stamp(NEXT_KEY).unwrap().is_none(),
        "its key has gone with it"
    );

    mesh.take(Step::Begin, false).unwrap();
    mesh.take(Step::Switch, true).unwrap();
    let both = told(&mesh.store.current());
    assert_eq!(mesh.issue(&both), (0, 2));
    assert_eq!(mesh.take(Step::Abort, false).unwrap().phase, Phase::Overlap);
    assert_eq!(mesh.issue(&both), (1, 2), "the elder signs again");
    assert!(
        is_early(&mesh.take(Step::Abort, false)),
        "a leaf of the younger lives"
    );
    mesh.now += NOTED;
    mesh.take(Step::Abort, false).unwrap();
    assert_eq!(told(&mesh.store.current()), old);
}

#[test]
fn a_step_out_of_order_says_which_are_possible() {
    let mesh = Running::new();
    for step in [Step::Switch, Step::Finish, Step::Abort] {
        let error = mesh.take(step, true).unwrap_err().to_string();
        assert!(error.contains("possible is begin"), "{error}");
    }
    mesh.take(Step::Begin, false).unwrap();
    let error = mesh.take(Step::Begin, true).unwrap_err().to_string();
    assert!(error.contains("possible is switch or abort"), "{error}");
    assert!(mesh.take(Step::Finish, true).is_err(), "not even by force");
}

#[test]
fn force_does_not_wait() {
    let mesh = Running::new();
    mesh.issue(&told(&mesh.store.current()));
    for step in [Step::Begin, Step::Switch, Step::Finish] {
        mesh.take(step, true).unwrap();
    }
    assert_eq!(status(&mesh.config.state_dir).unwrap().phase, Phase::Steady);
}

#[test]
fn a_crash_in_a_step_leaves_the_state_before_it_or_after_it() {
    let mesh = Running::new();
    let old = told(&mesh.store.current());
    let dir = mesh.dir();
    // In `begin`, between the key and the roots.
    let orphan = RootKey::generate().unwrap();
    dir.lock()
        .unwrap()
        .write(NEXT_KEY, Readers::Owner, &orphan.pem())
        .unwrap();
    assert_eq!(told(&mesh.reopened().current()), old);
    assert!(
        dir.stamp(NEXT_KEY).unwrap().is_none(),
        "a key that has signed nothing"
    );

    // In `finish`, after the roots and before the keys.
    mesh.take(Step::Begin, true).unwrap();
    mesh.take(Step::Switch, true).unwrap();
    let files = Files::read(&dir).unwrap();
    let one = bundle(&files.roots[..1]);
    dir.lock().unwrap().write(ROOTS, Readers::Everyone, &one).unwrap();
    let young = told(&mesh.store.current());
    assert_eq!(young.len(), 1, "a running authority goes on");
    assert_ne!(young, old);
    // And after its key was put in place, too.
    dir.lock()
        .unwrap()
        .write(KEY, Readers::Owner, &files.signer.pem())
        .unwrap();
    assert_eq!(told(&mesh.store.current()), young);
    assert_eq!(told(&mesh.reopened().current()), young);
    assert!(dir.stamp(NEXT_KEY).unwrap().is_none());
    assert_eq!(told(&mesh.reopened().current()), young);
}

#[test]
fn files_that_cannot_be_read_change_nothing_for_a_running_authority_and_stop_a_new_one() {
    let mesh = Running::new();
    let good = told(&mesh.store.current());
    let path = mesh.config.state_dir.join(ROOTS);
    let text = std::fs::read_to_string(&path).unwrap();
    let foreign = Ca::ephemeral("td.test", HOUR, SystemTime::now()).unwrap();
    for (bad, reason) in [
        (
            format!("{text}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "certificate 2",
        ),
        (
            format!("{text}{}", foreign.bundle()),
            "second root belongs to no key",
        ),
        (
            format!("{}{text}", foreign.bundle()),
            "first root does not belong",
        ),
        (String::new(), "no certificate"),
    ] {
        let dir = mesh.dir();
        dir.lock().unwrap().write(ROOTS, Readers::Everyone, &bad).unwrap();
        assert_eq!(told(&mesh.store.current()), good, "{reason}");
        let error = Store::open(&mesh.config).err().unwrap().to_string();
        assert!(
            error.contains(reason) && error.contains("root-cert.pem"),
            "{reason}: {error}"
        );
    }
    assert_eq!(mesh.store.failures(), 4, "each version is told of once");
    mesh.dir()
        .lock()
        .unwrap()
        .write(ROOTS, Readers::Everyone, &text)
        .unwrap();
    assert_eq!(told(&mesh.store.current()), good);
}

#[test]
fn what_an_older_version_may_have_signed_is_waited_for() {
    let mesh = Running::new();
    std::fs::remove_file(mesh.config.state_dir.join("rotation.json")).unwrap();
    let error = mesh.take(Step::Begin, false).unwrap_err().to_string();
    assert!(error.contains("start `outrigger control`"), "{error}");
    let now = SystemTime::now();
    mesh.reopened();
    let times = Times::read(&mesh.dir()).unwrap();
    assert!(at(times.leaves_end) >= now + HOUR);
}
