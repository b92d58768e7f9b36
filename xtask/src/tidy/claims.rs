//! The claims of `docs/security.md` name the tests that show them: a name that is no test, or no module of tests, is a
//! claim that nobody shows. Runs as a test; says nothing about what the tests do.

use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace;

/// What stands between backticks and looks like a path of Rust.
fn claims(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let is_path = |quoted: &&str| {
        quoted.contains("::")
            && quoted
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
    };
    quoted.filter(is_path).collect()
}

fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).expect("a directory of the workspace").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).expect("a source of the workspace");
            found.push((path, text));
        }
    }
}

/// A test of that name, in a file or folder of the module's name; or such a module with tests.
fn is_shown(claim: &str, sources: &[(PathBuf, String)]) -> bool {
    let mut parts: Vec<&str> = claim.split("::").collect();
    let name = parts.pop().unwrap_or_default();
    let belongs = |path: &Path| {
        let path = path.display().to_string();
        parts
            .iter()
            .filter(|part| **part != "tests")
            .all(|part| path.contains(part))
    };
    let test = format!("fn {name}(");
    sources
        .iter()
        .filter(|(path, _)| belongs(path))
        .any(|(path, text)| {
            let is_module = name == "tests" || path.display().to_string().contains(&format!("{name}.rs"));
            text.contains(&test) || (is_module && text.contains("test]\n"))
        })
}

#[test]
fn every_claim_about_security_names_a_test() {
    let root = workspace::root();
    let text = fs::read_to_string(root.join("docs/security.md")).expect("the page of claims");
    let mut found = Vec::new();
    for dir in [
        "tests/e2e",
        "tests/cluster",
        "sidecar-user/src",
        "sidecar-ebpf/src",
    ] {
        sources(&root.join(dir), &mut found);
    }
    let claims = claims(&text);
    assert!(claims.len() > 30, "{claims:?}");
    let missing: Vec<_> = claims
        .into_iter()
        .filter(|claim| !is_shown(claim, &found))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/security.md names what is no test: {missing:?}"
    );
}

#[test]
fn a_name_that_nobody_has_is_noticed() {
    let sources = [(
        PathBuf::from("tests/e2e/reach.rs"),
        "#[test]\nfn a_fact() {}".to_owned(),
    )];
    assert!(is_shown("reach::a_fact", &sources));
    assert!(!is_shown("reach::another_fact", &sources));
    assert!(!is_shown("policy::a_fact", &sources));
    assert_eq!(claims("`reach::a_fact` and `no path`, `x.rs`"), ["reach::a_fact"]);
}
