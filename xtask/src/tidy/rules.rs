//! What a file must keep whatever its room. Each check returns the lines that break it.

use super::Finding;
use super::source::{File, is_word_byte};

const MOST_LINES: usize = 500;

/// More lines than a file may have, for the test of the rule.
pub(super) const LONG_SAMPLE: &str = {
    const LINES: [u8; MOST_LINES + 1] = [b'\n'; MOST_LINES + 1];
    match std::str::from_utf8(&LINES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

pub(super) fn header(file: &File) -> Vec<Finding> {
    let missing = file.is_rust() && !file.text.starts_with("//!");
    missing
        .then(|| Finding {
            line: 1,
            what: "does not start with //!".to_owned(),
        })
        .into_iter()
        .collect()
}

pub(super) fn length(file: &File) -> Vec<Finding> {
    let lines = file.lines();
    let long = file.is_rust() && lines > MOST_LINES;
    long.then(|| Finding {
        line: MOST_LINES + 1,
        what: format!("has {lines} lines"),
    })
    .into_iter()
    .collect()
}

pub(super) fn unsafe_code(file: &File) -> Vec<Finding> {
    let at_home = file.path.ends_with("/sys.rs")
        || file.path.starts_with("sidecar-user/src/datapath/")
        || file.path.starts_with("sidecar-ebpf/");
    if at_home {
        Vec::new()
    } else {
        words(file, "unsafe", "is unsafe", |_| true)
    }
}

pub(super) fn panics(file: &File) -> Vec<Finding> {
    if !file.path.starts_with("sidecar-user/src/") {
        return Vec::new();
    }
    let calls = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("];
    let at_each = calls
        .iter()
        .flat_map(|call| file.occurrences(call).map(move |at| (at, call)));
    at_each
        .map(|(at, call)| (file.line_of(at), is_a_reason(&file.text[at + call.len()..])))
        .filter(|(line, reason)| !reason && !file.is_test(*line) && !file.is_explained(*line))
        .map(|(line, _)| Finding {
            line,
            what: "may panic".to_owned(),
        })
        .collect()
}

/// Whether what follows `expect(` is a message that says why, and not just what.
fn is_a_reason(argument: &str) -> bool {
    let message = argument
        .trim_start()
        .strip_prefix('"')
        .and_then(|rest| rest.split('"').next());
    message.is_some_and(|message| message.split_whitespace().count() >= 3)
}

pub(super) fn descriptors(file: &File) -> Vec<Finding> {
    if !file.path.starts_with("sidecar-user/src/datapath/session/") {
        return Vec::new();
    }
    let privileged = [
        "Ebpf",
        "EbpfLoader",
        "open_pin",
        "from_pin",
        "pinned",
        "link_create",
        "link_update",
    ];
    let uses = |word| words(file, word, "installs", |_| true);
    privileged.into_iter().flat_map(uses).collect()
}

pub(super) fn environment(file: &File) -> Vec<Finding> {
    let reader = ["config.rs", "cli.rs", "config/", "cli/"];
    let inside = file
        .path
        .strip_prefix("sidecar-user/src/")
        .filter(|rest| !reader.iter().any(|name| rest.starts_with(name)));
    if inside.is_none() {
        return Vec::new();
    }
    let mut findings: Vec<_> = ["env::var", "env::args"]
        .iter()
        .flat_map(|call| found(file, call, "reads the environment"))
        .collect();
    findings.retain(|finding| !file.is_test(finding.line));
    findings
}

pub(super) fn allow(file: &File) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    ["#[allow(", "#![allow("]
        .iter()
        .flat_map(|attribute| found(file, attribute, "allows a lint"))
        .collect()
}

/// Prose counts here, so it reads the text.
pub(super) fn unfinished(file: &File) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];
    lines_with(
        file,
        |line| marks.iter().any(|mark| has_word(line, mark)),
        "is unfinished",
    )
}

/// Only the tests that run real programs in real time: unit tests of the rooms own their clock.
pub(super) fn sleeps(file: &File) -> Vec<Finding> {
    if !file.path.starts_with("tests/") || file.path.ends_with("/wait.rs") {
        return Vec::new();
    }
    words(file, "sleep", "sleeps", |after| after.starts_with('('))
}

pub(super) fn machine_paths(file: &File) -> Vec<Finding> {
    let roots = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/tmp/", "wt"),
    ];
    let names_one = |line: &str| {
        // Only where a path begins: a folder of that name inside another is nobody's machine.
        roots.iter().any(|root| {
            line.match_indices(root)
                .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || ".-_~".contains(c)))
        })
    };
    lines_with(file, names_one, "names a path of some machine")
}

/// In files of every kind. Git writes each marker as seven signs at the start of a line, and a label after all but `=`.
pub(super) fn conflicts(file: &File) -> Vec<Finding> {
    let is_marker = |line: &str| {
        line == "======="
            || ["<<<<<<<", "|||||||", ">>>>>>>"].iter().any(|signs| {
                line.strip_prefix(signs)
                    .is_some_and(|label| label.is_empty() || label.starts_with(' '))
            })
    };
    lines_with(file, is_marker, "is a marker of a merge conflict")
}

pub(super) fn licence(file: &File) -> Vec<Finding> {
    let package = file.path.ends_with("Cargo.toml") && file.text.lines().any(|line| line == "[package]");
    let says = file.text.lines().any(|line| line.starts_with("license"));
    (package && !says)
        .then(|| Finding {
            line: 1,
            what: "has no licence".to_owned(),
        })
        .into_iter()
        .collect()
}

/// Every place in the code where `needle` stands.
fn found(file: &File, needle: &str, what: &str) -> Vec<Finding> {
    file.occurrences(needle)
        .map(|at| Finding {
            line: file.line_of(at),
            what: what.to_owned(),
        })
        .collect()
}

/// The same for a whole word, where what follows it is meant.
fn words(file: &File, word: &str, what: &str, meant: impl Fn(&str) -> bool) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    file.occurrences(word)
        .filter(|at| is_word_at(&file.code, *at, word) && meant(&file.code[at + word.len()..]))
        .map(|at| Finding {
            line: file.line_of(at),
            what: what.to_owned(),
        })
        .collect()
}

fn lines_with(file: &File, is_bad: impl Fn(&str) -> bool, what: &str) -> Vec<Finding> {
    let lines = file.text.lines().enumerate().filter(|(_, line)| is_bad(line));
    lines
        .map(|(before, _)| Finding {
            line: before + 1,
            what: what.to_owned(),
        })
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| is_word_at(line, at, word))
}

fn is_word_at(text: &str, at: usize, word: &str) -> bool {
    let bytes = text.as_bytes();
    let starts = at == 0 || !is_word_byte(bytes[at - 1]);
    starts && bytes.get(at + word.len()).is_none_or(|byte| !is_word_byte(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(check: fn(&File) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        check(&File::new(path, text))
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn unsafe_is_a_word_and_not_a_part_of_one() {
        let text = "#![deny(unsafe_op_in_unsafe_fn)]\n// unsafe\nunsafe fn f() {}\n";
        assert_eq!(lines(unsafe_code, "tests/harness/netns.rs", text), [3]);
        assert_eq!(
            lines(unsafe_code, "sidecar-user/src/datapath/maps.rs", text),
            [0; 0]
        );
    }

    #[test]
    fn a_panic_in_the_product_needs_a_reason() {
        let text = "fn f() {\n    x().expect(\"small\");\n    y().expect(\"maps are small\");\n}\n";
        assert_eq!(lines(panics, "sidecar-user/src/main.rs", text), [2]);
        assert_eq!(lines(panics, "xtask/src/main.rs", text), [0; 0]);
    }

    #[test]
    fn a_test_may_read_the_environment() {
        let text = "#[cfg(test)]\nmod tests {\n    fn dir() { std::env::var_os(\"X\"); }\n}\n";
        assert_eq!(
            lines(environment, "sidecar-user/src/datapath/mod.rs", text),
            [0; 0]
        );
    }

    #[test]
    fn end_to_end_tests_may_not_sleep() {
        let text = "async fn f() { tokio::time::sleep(d).await }\n";
        assert_eq!(lines(sleeps, "sidecar-user/src/identity/renew.rs", text), [0; 0]);
        assert_eq!(lines(sleeps, "tests/e2e/renewal.rs", text), [1]);
    }

    #[test]
    fn each_marker_of_a_conflict_is_found_in_files_of_every_kind() {
        let text = "a\n<<<<<<< ours\nb\n||||||| base\nc\n=======\r\nd\n>>>>>>> next\ne\n";
        for path in [
            "README.md",
            "deploy/charts/outrigger/values.yaml",
            "xtask/src/main.rs",
            "xtask/src/cluster/node.sh",
            "Cargo.toml",
            ".ci/run",
        ] {
            assert_eq!(lines(conflicts, path, text), [2, 4, 6, 8], "{path}");
        }
    }

    #[test]
    fn a_path_of_a_machine_is_found_where_it_begins() {
        let ours = concat!("cp /ro", "ot/x y\nsee \"/ho", "me/me/x\"\nsrc/wo", "rk/x\n");
        assert_eq!(lines(machine_paths, "CONTRIBUTING.md", ours), [1, 2]);
    }
}
