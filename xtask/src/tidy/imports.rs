//! Who imports whom: paths in the code of `sidecar-user/src`, held against the table of rooms.

use super::Finding;
use super::rooms::{DOOR, ROOMS, Room};
use super::source::{File, is_word_byte};

/// Roots of paths that are no outside crate.
const NOT_CRATES: [&str; 6] = ["alloc", "core", "crate", "self", "std", "super"];

/// Paths to other rooms, by `crate::` or by enough `super::` to leave the own room. Tests obey too.
pub(super) fn between_rooms(file: &File) -> Vec<Finding> {
    let Some(room) = room_of(&file.path) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut look_at = |at: usize, tree: &str| {
        for target in first_segments(tree) {
            let allowed = room.may_import(target);
            if !allowed && (DOOR.contains(&target) || ROOMS.iter().any(|room| room.name == target)) {
                findings.push(Finding {
                    line: file.line_of(at),
                    what: format!("{} imports {target}", room.name),
                });
            }
        }
    };
    for at in file.occurrences("crate::") {
        if !continues_word(&file.code, at) {
            look_at(at, &file.code[at + "crate::".len()..]);
        }
    }
    for (at, supers, tree) in super_chains(&file.code) {
        let depth = depth_in_crate(&file.path) + usize::from(file.is_test(file.line_of(at)));
        if supers >= depth {
            look_at(at, tree);
        }
    }
    findings
}

/// Paths whose root is a crate that this room does not have.
pub(super) fn outside_crates(file: &File) -> Vec<Finding> {
    let Some(room) = room_of(&file.path) else {
        return Vec::new();
    };
    let mut findings: Vec<Finding> = Vec::new();
    for at in file.occurrences("::") {
        let Some(root) = root_before(&file.code, at) else {
            continue;
        };
        let line = file.line_of(at);
        let known = NOT_CRATES.contains(&root) || room.may_use(root);
        let what = format!("{} uses {root}", room.name);
        let told = findings.iter().any(|finding| finding.what == what);
        if !known
            && !told
            && !file.is_test(line)
            && DEPENDENCIES.with(|all| all.iter().any(|name| name == root))
        {
            findings.push(Finding { line, what });
        }
    }
    findings
}

thread_local! {
    /// The names of the crate's dependencies as code spells them.
    static DEPENDENCIES: Vec<String> = dependencies(include_str!("../../../sidecar-user/Cargo.toml"));
}

fn dependencies(manifest: &str) -> Vec<String> {
    manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(|name| name.replace('-', "_"))
        .collect()
}

fn room_of(path: &str) -> Option<&'static Room> {
    let inside = path.strip_prefix("sidecar-user/src/")?;
    let name = inside.split('/').next()?.trim_end_matches(".rs");
    ROOMS.iter().find(|room| room.name == name)
}

/// How many modules deep a file's items are: 1 for `route/mod.rs` and `route.rs`, 2 for `route/pick.rs`.
fn depth_in_crate(path: &str) -> usize {
    let inside = path
        .trim_start_matches("sidecar-user/src/")
        .trim_end_matches("/mod.rs");
    inside.split('/').count()
}

/// The names that a path tree begins with: `a` of `a::b`, both of `{a::b, c}`.
fn first_segments(tree: &str) -> Vec<&str> {
    let Some(group) = tree.strip_prefix('{') else {
        return word(tree).into_iter().collect();
    };
    let (mut segments, mut depth, mut expected) = (Vec::new(), 1_usize, true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' => expected |= depth == 1,
            _ if character.is_whitespace() => {}
            _ if expected => {
                segments.extend(word(&group[at..]));
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    segments
}

fn word(text: &str) -> Option<&str> {
    let end = text
        .bytes()
        .position(|byte| !is_word_byte(byte))
        .unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

fn continues_word(code: &str, at: usize) -> bool {
    at > 0 && is_word_byte(code.as_bytes()[at - 1])
}

/// Each chain of `super::`, its length, and the tree behind it.
fn super_chains(code: &str) -> Vec<(usize, usize, &str)> {
    const STEP: &str = "super::";
    let mut chains = Vec::new();
    let mut from = 0;
    while let Some(found) = code[from..].find(STEP) {
        let at = from + found;
        let mut tree = &code[at..];
        let mut supers = 0;
        while let Some(rest) = tree.strip_prefix(STEP) {
            (tree, supers) = (rest, supers + 1);
        }
        if !continues_word(code, at) {
            chains.push((at, supers, tree));
        }
        from = at + supers * STEP.len();
    }
    chains
}

/// The word before `::` when a path begins with it.
fn root_before(code: &str, colons: usize) -> Option<&str> {
    let bytes = code.as_bytes();
    let start = (0..colons)
        .rev()
        .find(|at| !is_word_byte(bytes[*at]))
        .map_or(0, |at| at + 1);
    let follows = start > 0 && matches!(bytes[start - 1], b':' | b'.' | b'$' | b'\'');
    let global = code[..start].ends_with("::")
        && !code[..start - 2].ends_with(|c: char| c.is_alphanumeric() || "_>)}".contains(c));
    (start < colons && (!follows || global)).then(|| &code[start..colons])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(path: &str, text: &str) -> Vec<String> {
        between_rooms(&File::new(path, text))
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    fn crates(path: &str, text: &str) -> Vec<String> {
        outside_crates(&File::new(path, text))
            .into_iter()
            .map(|finding| finding.what)
            .collect()
    }

    #[test]
    fn each_way_to_write_an_import_is_seen() {
        for text in [
            "use crate::observe::Sink;",
            "use crate::{model::{Flow, Outcome},\n observe};",
            "fn f(sink: &crate::observe::Sink) {}",
            "pub(crate) use super::super::observe::Sink;",
            "use super::super::{observe, model};",
            "#[cfg(test)]\nmod tests { use crate::observe::Sink; }",
            "#[cfg(test)]\nmod tests { use super::super::super::observe::Sink; }",
        ] {
            assert_eq!(
                rooms("sidecar-user/src/route/pick.rs", text),
                ["route imports observe"],
                "{text}"
            );
        }
    }

    #[test]
    fn names_inside_an_allowed_room_are_not_rooms() {
        for text in [
            "use crate::model::{observe, policy};",
            "use super::observe;",
            "// use crate::observe;",
            "let s = \"crate::observe\";",
            "use mycrate::observe;",
            "#[cfg(test)]\nmod tests { use super::super::observe; }",
        ] {
            assert_eq!(rooms("sidecar-user/src/route/pick.rs", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn the_door_is_closed_to_rooms_and_roles_are_closed_to_each_other() {
        assert_eq!(
            rooms("sidecar-user/src/proxy/mod.rs", "use crate::config::Raw;"),
            ["proxy imports config"]
        );
        assert_eq!(
            rooms("sidecar-user/src/proxy/mod.rs", "use crate::control;"),
            ["proxy imports control"]
        );
        assert_eq!(
            rooms("sidecar-user/src/config.rs", "use crate::{proxy, control};"),
            [""; 0]
        );
    }

    #[test]
    fn a_crate_is_seen_wherever_a_path_begins_with_it() {
        for text in [
            "use aya::Ebpf;",
            "fn f() { ::aya::load() }",
            "type T = Option<aya::Ebpf>;",
            "aya::include!(x);",
        ] {
            assert_eq!(
                crates("sidecar-user/src/proxy/mod.rs", text),
                ["proxy uses aya"],
                "{text}"
            );
        }
        for text in [
            "use crate::model::aya::X;",
            "x.aya::<T>();",
            "use std::io;",
            "enum Http {}",
        ] {
            assert_eq!(crates("sidecar-user/src/proxy/mod.rs", text), [""; 0], "{text}");
        }
    }

    #[test]
    fn dependencies_are_read_from_the_manifest() {
        let names = dependencies(
            "[package]\nname = \"x\"\n[dependencies]\naya-log.workspace = true\nnix = { a = 1 }\n\n[lints]\nb = 1\n",
        );
        assert_eq!(names, ["aya_log", "nix"]);
    }
}
