//! Walls inside a room: modules of one sub-room that come to import another by whatever way, be it through a module that both
//! may know. Who imports whom is found as in `circles.rs`: by the module that defines a name, re-exports followed.

use std::collections::{BTreeMap, BTreeSet};

use super::circles::{Imports, Path, imports_in_rooms};
use super::rooms::WALLS;
use super::source::File;

/// Each breach, as lines that say who imports whom, from the one sub-room to the other.
pub(super) fn find(files: &[File]) -> Vec<String> {
    let (imports, names) = imports_in_rooms(files);
    let mut breaches = Vec::new();
    for (from, to) in WALLS {
        let mut told = BTreeSet::new();
        for start in imports.keys().filter(|at| is_in(at, from)) {
            if let Some(way) = way(&imports, start, from, to)
                // One for each hole in the wall, not for everybody who gets through it.
                && told.insert(way[way.len() - 2..].to_vec())
            {
                let steps = way.windows(2).map(|step| {
                    let line = imports[&step[0]][&step[1]];
                    format!("{}:{line}: imports {}", names[&step[0]], names[&step[1]])
                });
                breaches.push(steps.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    breaches
}

/// Whether a module is the sub-room, or below it.
fn is_in(at: &Path, room: &str) -> bool {
    let mut parts = at.iter();
    room.split('/')
        .all(|part| parts.next().is_some_and(|name| name == part))
}

/// The shortest that leaves the sub-room at once, its ends included: the others are told of where they leave it.
fn way(imports: &Imports, start: &Path, room: &str, to: &str) -> Option<Vec<Path>> {
    let mut from: BTreeMap<&Path, &Path> = BTreeMap::new();
    let mut next = vec![start];
    while !next.is_empty() {
        for at in std::mem::take(&mut next) {
            for found in imports.get(at).into_iter().flat_map(BTreeMap::keys) {
                if is_in(found, room) || from.contains_key(found) {
                    continue;
                }
                from.insert(found, at);
                if is_in(found, to) {
                    let back = std::iter::successors(Some(found), |at| from.get(*at).copied());
                    let mut way: Vec<Path> = back.cloned().collect();
                    way.reverse();
                    return Some(way);
                }
                next.push(found);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str =
        "mod install;\nmod noun;\nmod session;\npub use install::links::Link;\npub use noun::Noun;";
    const LINKS: &str = "use super::super::session::Session;\npub struct Link;";

    fn found(session: &str, noun: &str) -> Vec<String> {
        let files = [
            ("mod.rs", ROOT),
            ("noun.rs", noun),
            ("install/mod.rs", "pub mod links;"),
            ("install/links.rs", LINKS),
            (
                "session/mod.rs",
                "mod hold;\nuse hold::Hold;\npub struct Session;",
            ),
            ("session/hold.rs", session),
        ];
        let files: Vec<File> = files
            .iter()
            .map(|(path, text)| File::new(&format!("sidecar-user/src/datapath/{path}"), text))
            .collect();
        find(&files)
    }

    #[test]
    fn a_session_that_imports_the_installer_is_told_whatever_name_it_has_it_by() {
        for import in [
            "use super::super::install::links::Link;",
            "use super::super::Link;",
            "use crate::datapath::{Link};",
            "fn f() -> super::super::install::links::Link {}",
        ] {
            assert_eq!(
                found(import, "pub struct Noun;"),
                [
                    "sidecar-user/src/datapath/session/hold.rs:1: imports sidecar-user/src/datapath/install/links.rs"
                ],
                "{import}"
            );
        }
    }

    #[test]
    fn a_way_around_through_a_noun_of_both_is_told_too() {
        assert_eq!(
            found("use super::super::Noun;", "use super::Link;\npub struct Noun;"),
            [
                "sidecar-user/src/datapath/session/hold.rs:1: imports sidecar-user/src/datapath/noun.rs\n\
              sidecar-user/src/datapath/noun.rs:1: imports sidecar-user/src/datapath/install/links.rs"
            ]
        );
    }

    #[test]
    fn the_installer_imports_the_session_and_tests_import_both() {
        let tests =
            "use super::super::Noun;\n#[cfg(test)]\nmod tests {\n    use super::super::super::Link;\n}";
        assert!(found(tests, "pub struct Noun;").is_empty());
    }
}
