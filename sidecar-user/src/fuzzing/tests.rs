//! The kept corpus, and damaged copies of it, through every target. What a fuzzer finds becomes a file of the corpus and
//! is run again here for ever.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{TARGETS, Target};

/// Damaged copies for each target: a second or two for all of them together.
const ROUNDS: usize = 1000;
/// Of the whole corpus. It is in every clone.
const MOST_BYTES: usize = 500_000;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz")
}

/// In the order of their names, so that a run can be repeated.
fn corpus(target: &Target) -> Vec<(String, Vec<u8>)> {
    let dir = fuzz_dir().join("corpus").join(target.name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.display().to_string(), fs::read(&path).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// Runs an input, and adds it to `failed` when something does not hold; what that is stands above in the test's output.
fn check(target: &Target, name: &str, input: &[u8], failed: &mut Vec<String>) -> bool {
    std::panic::catch_unwind(|| target.run(input)).unwrap_or_else(|_| {
        failed.push(format!("{}: {name}: {}", target.name, input.escape_ascii()));
        false
    })
}

#[test]
fn the_kept_corpus_holds_and_reaches_both_answers() {
    let (mut bytes, mut failed) = (0, Vec::new());
    for target in &TARGETS {
        let answers: BTreeSet<bool> = corpus(target)
            .iter()
            .map(|(name, input)| {
                bytes += input.len();
                check(target, name, input, &mut failed)
            })
            .collect();
        // A corpus that is always refused is a stale one, and tests nothing.
        if answers.len() < 2 {
            failed.push(format!(
                "{}: every input of the corpus is answered {answers:?}",
                target.name
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(bytes < MOST_BYTES, "the corpus has {bytes} bytes");
}

#[test]
fn damaged_inputs_hold() {
    let mut failed = Vec::new();
    for target in &TARGETS {
        let corpus = corpus(target);
        let random = &mut fastrand::Rng::with_seed(7);
        for round in 0..ROUNDS {
            let (name, input) = &corpus[round % corpus.len()];
            let input = damaged(input, &corpus, random);
            let name = format!("{name}, damaged in round {round}");
            check(target, &name, &input, &mut failed);
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A few bytes changed, lost, added, doubled, or taken from another input.
fn damaged(input: &[u8], corpus: &[(String, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=bytes.len());
        let end = (at + random.usize(..16)).min(bytes.len());
        match random.u8(..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let (_, other) = &corpus[random.usize(..corpus.len())];
                let from = random.usize(..=other.len());
                let to = (from + random.usize(..32)).min(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn every_target_has_its_fuzzer_and_every_fuzzer_its_target() {
    let named: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(named.len(), TARGETS.len(), "a name stands twice");
    let listed = |dir: &str| -> BTreeSet<String> {
        fs::read_dir(fuzz_dir().join(dir))
            .unwrap()
            .map(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.trim_end_matches(".rs").to_owned()
            })
            .collect()
    };
    assert_eq!(listed("targets"), named);
    assert_eq!(listed("corpus"), named);
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    for name in &named {
        assert!(
            manifest.contains(&format!("path = \"targets/{name}.rs\"")),
            "{name}"
        );
    }
}
