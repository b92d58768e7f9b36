//! `docs/kubernetes.md` has every name by which Outrigger goes in a cluster, and none that the code does not know: the constants of
//! `kubernetes/names.rs`, and what else of our domain the injector reads. Runs as a test.

use std::collections::BTreeSet;
use std::fs;

use syn::{Expr, Item, Lit};

use crate::workspace;

const NAMES: &str = "sidecar-user/src/kubernetes/names.rs";
const INJECTOR: &str = "sidecar-user/src/inject";
const PAGE: &str = "docs/kubernetes.md";
const DOMAIN: &str = "outrigger.example";

/// The values of the file's constants, as a reader of the page would write them.
fn constants(source: &str) -> BTreeSet<String> {
    let file = syn::parse_file(source).expect("names.rs is Rust");
    let constants = file.items.into_iter().filter_map(|item| match item {
        Item::Const(constant) => Some(*constant.expr),
        _ => None,
    });
    constants.map(|value| value_of(&value)).collect()
}

fn value_of(value: &Expr) -> String {
    match value {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => text.value(),
            Lit::Int(number) => number.base10_digits().to_owned(),
            _ => panic!("a name is text or a number"),
        },
        // `domain!()`, or `concat!(domain!(), "rest")`.
        Expr::Macro(call) => {
            let tokens = call.mac.tokens.to_string();
            let rest = tokens.split('"').nth(1).unwrap_or_default();
            format!("{DOMAIN}{rest}")
        }
        _ => panic!("a name is a literal"),
    }
}

/// What stands between backticks, or in the first column of a table of numbers.
fn told(page: &str) -> BTreeSet<String> {
    let quoted = page.split('`').skip(1).step_by(2).map(str::to_owned);
    let cells = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    quoted.chain(cells.map(str::to_owned)).collect()
}

/// Whatever of our domain is a label or an annotation: `outrigger.example/word`.
fn of_our_domain(text: &str) -> BTreeSet<String> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    let found = text.match_indices(DOMAIN).filter_map(|(at, _)| {
        let rest = text[at + DOMAIN.len()..].strip_prefix('/')?;
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        // A repository of images has words below it.
        let is_path = rest[word.len()..].starts_with(['/', ':']);
        (!word.is_empty() && !is_path).then(|| format!("{DOMAIN}/{word}"))
    });
    found.collect()
}

#[test]
fn the_page_about_kubernetes_has_every_name_and_no_other() {
    let read =
        |path: &str| fs::read_to_string(workspace::root().join(path)).expect("a file of the workspace");
    let (page, names) = (read(PAGE), constants(&read(NAMES)));
    assert!(
        names.len() > 15 && names.contains("outrigger.example/mode"),
        "{names:?}"
    );
    let told = told(&page);
    let untold: Vec<_> = names.difference(&told).collect();
    assert!(
        untold.is_empty(),
        "{PAGE} does not tell of {untold:?}, of {NAMES}"
    );

    let mut read_by_us = String::new();
    for entry in fs::read_dir(workspace::root().join(INJECTOR)).expect("the room") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|ext| ext == "rs") {
            read_by_us += &fs::read_to_string(path).expect("a source");
        }
    }
    let unknown: Vec<_> = of_our_domain(&page)
        .into_iter()
        .chain(of_our_domain(&read_by_us))
        .filter(|name| !names.contains(name))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?} are no names of {NAMES}");
}

#[test]
fn a_name_that_is_missing_or_made_up_is_noticed() {
    let source = r#"
        macro_rules! domain { () => { "outrigger.example" }; }
        pub const DOMAIN: &str = domain!();
        pub const MODE: &str = concat!(domain!(), "/mode");
        pub const PORT: u16 = 15030;
    "#;
    let names: Vec<String> = constants(source).into_iter().collect();
    assert_eq!(names, ["15030", "outrigger.example", "outrigger.example/mode"]);
    let told = told("say `outrigger.example/mode`\n| 15030 | agent |\n");
    assert!(
        told.contains("outrigger.example/mode")
            && told.contains("15030")
            && !told.contains("outrigger.example")
    );
    let found =
        of_our_domain("`outrigger.example/modes`, outrigger.example/test/nginx:local, outrigger.example:x");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["outrigger.example/modes"]);
}
