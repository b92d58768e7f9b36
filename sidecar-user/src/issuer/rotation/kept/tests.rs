//! A rotation of a state that several processes sign by, some of which hear late of its steps.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::super::{Refusal, Store};
use super::super::Phase;
use super::*;
use crate::model::SpiffeId;

const HOUR: Duration = Duration::from_secs(3600);
/// As far as it is noted that certificates may live.
const NOTED: Duration = Duration::from_secs(3600 + 450);
const SECOND: Duration = Duration::from_secs(1);

struct Kept {
    material: Material,
    now: SystemTime,
}

impl Kept {
    fn new() -> Self {
        let mut kept = Self {
            material: Material::fresh("td.test").unwrap(),
            now: at(seconds(SystemTime::now())),
        };
        assert!(kept.note(None));
        kept
    }

    /// Whether there was anything to note.
    fn note(&mut self, published: Option<&str>) -> bool {
        let noted = self.material.noted(published, HOUR, self.now).unwrap();
        let is_some = noted.is_some();
        self.material = noted.unwrap_or(self.material.clone());
        is_some
    }

    fn publish(&mut self) -> bool {
        let roots = self.material.roots.clone();
        self.note(Some(&roots))
    }

    fn take(&mut self, step: Step) -> Result<Phase, Error> {
        let (next, status) = take_kept(&self.material, step, false, self.now)?;
        self.material = next;
        Ok(status.phase)
    }

    /// A process that signs, and has heard of this state last.
    fn replica(&self) -> Store {
        Store::held(&self.material, "td.test", HOUR).unwrap()
    }

    fn issue(&self, store: &Store) -> Result<SystemTime, Refusal> {
        let id = SpiffeId::new("td.test", "demo", "a").unwrap();
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        let issued = store.issue(&request.pem().unwrap(), &id, None, self.now)?.0;
        Ok(issued.not_after)
    }
}

fn told(store: &Store) -> Vec<CertificateDer<'static>> {
    let bundle = store.current().bundle().to_owned();
    let roots = CertificateDer::pem_slice_iter(bundle.as_bytes());
    roots.collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_root_is_replaced_in_steps_and_its_key_with_it() {
    let mut kept = Kept::new();
    let old = told(&kept.replica());
    let old_key = kept.material.key.clone();
    assert_eq!(kept.take(Step::Begin).unwrap(), Phase::Overlap);
    assert!(kept.publish());
    kept.now += NOTED;
    assert_eq!(kept.take(Step::Switch).unwrap(), Phase::Switched);
    let both = told(&kept.replica());
    assert_eq!((both.len(), &both[1]), (2, &old[0]));
    let early = kept.take(Step::Finish);
    assert!(early.is_ok(), "nothing was noted for so long that nothing lives");
    assert_eq!(told(&kept.replica()), both[..1]);
    assert!(kept.material.next_key.is_none() && kept.material.key != old_key);
    assert_eq!(kept.take(Step::Begin).unwrap(), Phase::Overlap, "and once more");
}

#[test]
fn a_step_waits_for_all_that_is_noted_and_says_until_when() {
    let mut kept = Kept::new();
    kept.take(Step::Begin).unwrap();
    kept.publish();
    kept.now += NOTED - SECOND;
    let early = kept.take(Step::Switch).unwrap_err().to_string();
    let from = humantime::format_rfc3339_seconds(kept.now + SECOND).to_string();
    assert!(early.contains(&from) && early.contains("--force"), "{early}");
    kept.now += SECOND;
    kept.note(None);
    kept.take(Step::Switch).unwrap();
    kept.now += NOTED - SECOND;
    let early = kept.take(Step::Finish).unwrap_err().to_string();
    assert!(early.contains("the root has signed that goes"), "{early}");
    kept.now += SECOND;
    kept.take(Step::Finish).unwrap();
}

#[test]
fn whoever_hears_late_signs_nothing_that_a_step_does_not_wait_for() {
    let mut kept = Kept::new();
    kept.take(Step::Begin).unwrap();
    kept.publish();
    kept.now += NOTED;
    kept.note(None);
    let late = kept.replica();
    kept.take(Step::Switch).unwrap();
    assert_ne!(told(&late)[0], told(&kept.replica())[0]);
    // It goes on for long, while the others note the ends of what they sign by the younger root.
    let mut latest = kept.now;
    for _ in 0..20 {
        kept.now += HOUR / 16;
        kept.note(None);
        match kept.issue(&late) {
            Ok(end) => latest = latest.max(end),
            Err(refusal) => assert!(matches!(refusal, Refusal::NotNoted), "{refusal}"),
        }
    }
    assert!(matches!(kept.issue(&late), Err(Refusal::NotNoted)));
    let mut at_the_end = Kept {
        material: kept.material.clone(),
        now: latest - SECOND,
    };
    let error = at_the_end.take(Step::Finish).unwrap_err();
    assert!(matches!(error, Error::TooEarly { .. }), "{error}");
    at_the_end.now = latest;
    assert_eq!(at_the_end.take(Step::Finish).unwrap(), Phase::Steady);
}

#[test]
fn notes_are_ahead_of_what_is_signed_and_not_one_for_each() {
    let mut kept = Kept::new();
    for minute in 0..240 {
        let before = kept.now;
        let is_due = kept.replica().is_note_due(kept.now);
        assert_eq!(kept.note(None), is_due, "minute {minute}");
        assert_eq!(kept.issue(&kept.replica()).unwrap(), before + HOUR);
        kept.now += 60 * SECOND;
    }
    let mut notes = 0;
    for _ in 0..60 {
        kept.now += 60 * SECOND;
        notes += usize::from(kept.note(None));
    }
    assert!(
        (15..=17).contains(&notes),
        "one in a sixteenth of a life: {notes}"
    );
}

#[test]
fn switch_waits_until_both_roots_are_published_and_that_can_have_come_to_pods() {
    let mut kept = Kept::new();
    kept.take(Step::Begin).unwrap();
    let old = told(&kept.replica());
    kept.now += 2 * NOTED;
    let error = kept.take(Step::Switch).unwrap_err();
    assert!(matches!(error, Error::Unpublished), "{error}");
    assert!(status_kept(&kept.material).unwrap().unpublished);
    // Roots of before do not count.
    kept.note(Some("other roots"));
    assert!(matches!(kept.take(Step::Switch), Err(Error::Unpublished)));
    assert!(kept.publish());
    assert!(!kept.publish(), "once");
    let error = kept.take(Step::Switch).unwrap_err();
    assert!(matches!(error, Error::TooEarly { .. }), "{error}");
    kept.now += PROJECTED;
    kept.take(Step::Switch).unwrap();
    assert_ne!(told(&kept.replica())[0], old[0]);
}

#[test]
fn by_force_nothing_is_waited_for() {
    let mut kept = Kept::new();
    for step in [Step::Begin, Step::Switch, Step::Finish] {
        kept.material = take_kept(&kept.material, step, true, kept.now).unwrap().0;
    }
    let status = status_kept(&kept.material).unwrap();
    assert_eq!((status.phase, status.unpublished), (Phase::Steady, false));
}

#[test]
fn a_step_back_brings_the_elder_root_back_with_its_key() {
    let mut kept = Kept::new();
    let before = kept.material.clone();
    kept.take(Step::Begin).unwrap();
    kept.take(Step::Abort).unwrap();
    assert_eq!(
        (&kept.material.roots, &kept.material.key),
        (&before.roots, &before.key)
    );
    assert!(kept.material.next_key.is_none());
}

#[test]
fn a_state_in_which_nobody_has_noted_anything_is_left_alone() {
    let material = Material::fresh("td.test").unwrap();
    let error = take_kept(&material, Step::Begin, true, SystemTime::now())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("`outrigger control` of this version"),
        "{error}"
    );
    let store = Store::held(&material, "td.test", HOUR).unwrap();
    let kept = Kept {
        material,
        now: SystemTime::now(),
    };
    assert!(matches!(kept.issue(&store), Err(Refusal::NotNoted)));
}
