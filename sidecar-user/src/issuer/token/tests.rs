//! What tokens are worth, how they are listed, and what is left of one that is revoked.

use super::*;
use crate::issuer::scratch::Scratch;

const HOUR: Duration = Duration::from_secs(3600);

fn id_of(account: &str) -> SpiffeId {
    SpiffeId::new("td.test", "demo", account).unwrap()
}

fn plain(account: &str) -> Request {
    Request {
        identity: id_of(account),
        label: None,
        life: None,
    }
}

fn labelled(account: &str, label: &str, life: Option<Duration>) -> Request {
    Request {
        label: Some(label.to_owned()),
        life,
        ..plain(account)
    }
}

fn now() -> SystemTime {
    store::at(1_800_000_000)
}

fn make(dir: &Path, request: &Request) -> String {
    create(dir, request, now()).unwrap().secret.to_string()
}

fn identity(tokens: &Tokens, token: &str) -> Option<SpiffeId> {
    match tokens.worth(token, now()).unwrap() {
        Worth::Good(holder) => Some(holder.identity),
        _ => None,
    }
}

#[test]
fn a_token_stands_for_its_identity_and_the_file_does_not_hold_it() {
    let scratch = Scratch::new();
    let dir = scratch.join("state");
    let (a, b) = (make(&dir, &plain("a")), make(&dir, &plain("b")));
    let tokens = Tokens::open(&dir).unwrap();
    assert_eq!(identity(&tokens, &a), Some(id_of("a")));
    assert_eq!(identity(&tokens, &b), Some(id_of("b")));
    for wrong in ["ort_guess", ""] {
        assert_eq!(tokens.worth(wrong, now()).unwrap(), Worth::Unknown);
    }
    let text = std::fs::read_to_string(dir.join(FILE)).unwrap();
    assert!(!text.contains(&a) && !text.contains(a.trim_start_matches(PREFIX)));
    assert_eq!((a.len(), a.starts_with(PREFIX)), (PREFIX.len() + 64, true));
}

#[test]
fn a_token_made_or_revoked_later_counts_at_once() {
    let scratch = Scratch::new();
    let dir = scratch.join("state");
    let tokens = Tokens::open(&dir).unwrap();
    let (late, other) = (
        make(&dir, &labelled("late", "mine", None)),
        make(&dir, &plain("other")),
    );
    assert_eq!(identity(&tokens, &late), Some(id_of("late")));
    assert_eq!(revoke(&dir, "mine").unwrap().identity, id_of("late"));
    assert_eq!(tokens.worth(&late, now()).unwrap(), Worth::Unknown);
    let by_id = list(&dir).unwrap()[0].id.clone();
    revoke(&dir, &by_id).unwrap();
    assert_eq!(tokens.worth(&other, now()).unwrap(), Worth::Unknown);
    let error = revoke(&dir, "mine").unwrap_err().to_string();
    assert!(
        error.contains("`mine`") && error.contains("token list"),
        "{error}"
    );
}

#[test]
fn a_token_with_a_life_is_worth_nothing_after_it() {
    let scratch = Scratch::new();
    let dir = scratch.join("state");
    let token = make(&dir, &labelled("a", "short", Some(HOUR)));
    let tokens = Tokens::open(&dir).unwrap();
    let last = now() + HOUR - Duration::from_secs(1);
    let holder = Holder {
        identity: id_of("a"),
        label: "short".into(),
    };
    assert_eq!(tokens.worth(&token, last).unwrap(), Worth::Good(holder));
    assert_eq!(tokens.worth(&token, now() + HOUR).unwrap(), Worth::Expired);
    assert_eq!(tokens.count(last).unwrap(), (1, 0));
    assert_eq!(tokens.count(now() + HOUR).unwrap(), (0, 1));
    let endless = make(&dir, &labelled("a", "endless", Some(Duration::MAX)));
    assert!(matches!(
        tokens.worth(&endless, now() + HOUR).unwrap(),
        Worth::Good(_)
    ));
}

#[test]
fn a_list_names_label_identity_and_times_and_a_label_is_one_tokens() {
    let scratch = Scratch::new();
    let dir = scratch.join("state");
    make(&dir, &labelled("b", "second", Some(HOUR)));
    make(&dir, &labelled("a", "first", None));
    let all = list(&dir).unwrap();
    let seen: Vec<_> = all
        .iter()
        .map(|t| (t.label.as_str(), t.created, t.expires))
        .collect();
    assert_eq!(
        seen,
        [
            ("first", Some(now()), None),
            ("second", Some(now()), Some(now() + HOUR))
        ]
    );
    for (label, reason) in [
        ("first", "another token has it"),
        ("", "up to 63"),
        ("two words", "up to 63"),
        ("0123456789ab", "looks like the id"),
    ] {
        let error = create(&dir, &labelled("c", label, None), now())
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(reason), "{label}: {error}");
    }
    assert_eq!(list(&dir).unwrap().len(), 2);
}

#[test]
fn only_the_first_token_makes_the_directory() {
    let scratch = Scratch::new();
    let mistyped = scratch.join("stat");
    assert!(list(&mistyped).is_err() && revoke(&mistyped, "x").is_err());
    assert!(!mistyped.exists());
    make(&mistyped, &plain("a"));
    assert_eq!(list(&mistyped).unwrap().len(), 1);
}

#[test]
fn tokens_of_the_first_versions_are_good_listed_and_revoked() {
    let scratch = Scratch::new();
    let dir = scratch.join("state");
    let token = make(&dir, &plain("a"));
    let entry = format!("{{\"{}\": \"{}\"}}", hash(&token), id_of("a"));
    std::fs::write(dir.join(FILE), entry).unwrap();
    let tokens = Tokens::open(&dir).unwrap();
    assert_eq!(identity(&tokens, &token), Some(id_of("a")));
    let [old] = &list(&dir).unwrap()[..] else { panic!() };
    assert_eq!((&old.label, old.created), (&old.id, None));
    make(&dir, &plain("b"));
    assert_eq!(
        identity(&tokens, &token),
        Some(id_of("a")),
        "kept beside a new one"
    );
    revoke(&dir, &old.id).unwrap();
    assert_eq!(identity(&tokens, &token), None);
}

#[test]
fn a_damaged_file_answers_nobody_and_is_not_overwritten() {
    let scratch = Scratch::new();
    let dir = scratch.join("state");
    let token = make(&dir, &plain("a"));
    let tokens = Tokens::open(&dir).unwrap();
    std::fs::write(dir.join(FILE), "{\n  \"x\": \"no-identity\"}").unwrap();
    let error = tokens.worth(&token, now()).unwrap_err().to_string();
    assert!(error.contains("tokens.json"), "{error}");
    assert!(create(&dir, &plain("b"), now()).is_err());
    assert!(revoke(&dir, "x").is_err() && list(&dir).is_err());
}

#[test]
fn tokens_made_at_the_same_time_are_all_kept() {
    let scratch = Scratch::new();
    let dir = scratch.join("state");
    let made: Vec<(String, SpiffeId)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let (dir, account) = (&dir, format!("sa{n}"));
                scope.spawn(move || (make(dir, &plain(&account)), id_of(&account)))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let tokens = Tokens::open(&dir).unwrap();
    for (token, id) in made {
        assert_eq!(identity(&tokens, &token), Some(id));
    }
}
