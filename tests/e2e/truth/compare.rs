//! The difference between two runs, less what is accepted. An exception that does not occur is an error as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::truth::exceptions::Exception;

/// Facts by name: what stands before the `=`, and all values given under it, in order.
type Facts<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// A readable account of what differs and should not, and of exceptions without a difference. Empty when all is well.
pub(crate) fn differences(bare: &[String], other: &[String], exceptions: &[Exception]) -> String {
    let (bare, other) = (by_name(bare), by_name(other));
    let mut account = String::new();
    let mut topic = "";
    let mut used = vec![false; exceptions.len()];
    let mut present = vec![false; exceptions.len()];
    let names: BTreeSet<&str> = bare.keys().chain(other.keys()).copied().collect();
    for name in names {
        let matching: Vec<usize> = (0..exceptions.len())
            .filter(|n| exceptions[*n].covers(name))
            .collect();
        matching.iter().for_each(|n| present[*n] = true);
        let (was, is) = (values(&bare, name), values(&other, name));
        if was == is {
            continue;
        }
        if matching.is_empty() {
            let (case, fact) = name.split_once(": ").unwrap_or((name, ""));
            if case != topic {
                let _ = writeln!(account, "{case}");
                topic = case;
            }
            let _ = writeln!(account, "    {fact:40} bare {was:28} here {is}");
        }
        matching.iter().for_each(|n| used[*n] = true);
    }
    for (n, exception) in exceptions.iter().enumerate() {
        // A run of only some cases says nothing about the others.
        if present[n] && !used[n] && !exception.by_chance {
            let _ = writeln!(
                account,
                "no longer differs, so it is no exception: {} ({})",
                exception.fact, exception.reason
            );
        }
    }
    account
}

/// Halves that stopped, in a run that should have no reason to.
pub(crate) fn stopped(facts: &[String]) -> Vec<&String> {
    facts.iter().filter(|line| line.contains(".stopped=")).collect()
}

fn by_name(lines: &[String]) -> Facts<'_> {
    let mut facts = Facts::new();
    for line in lines {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        facts.entry(name).or_default().push(value);
    }
    facts
}

fn values(facts: &Facts<'_>, name: &str) -> String {
    facts
        .get(name)
        .map_or("(absent)".into(), |values| values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXCEPTION: Exception = Exception {
        fact: "a/b/*: client.mtu",
        reason: "another link",
        by_chance: false,
    };

    fn lines(values: [&str; 2]) -> Vec<String> {
        let [mtu, errno] = values;
        vec![
            format!("a/b/v4: client.mtu={mtu}"),
            format!("a/b/v4: client.connect={errno}"),
        ]
    }

    #[test]
    fn equal_facts_make_no_difference() {
        assert_eq!(differences(&lines(["1", "ok"]), &lines(["1", "ok"]), &[]), "");
    }

    #[test]
    fn a_difference_is_told_with_both_values_unless_it_is_accepted() {
        let (bare, here) = (lines(["1500", "EPERM"]), lines(["65536", "ok"]));
        let account = differences(&bare, &here, &[EXCEPTION]);
        assert!(account.contains("a/b/v4\n"), "{account}");
        assert!(account.contains("client.connect"), "{account}");
        assert!(account.contains("EPERM") && account.contains("ok"), "{account}");
        assert!(!account.contains("mtu"), "{account}");
    }

    #[test]
    fn a_fact_that_only_one_run_has_is_a_difference() {
        let bare = lines(["1", "ok"]);
        assert!(differences(&bare, &bare[..1], &[]).contains("(absent)"));
    }

    #[test]
    fn an_exception_that_no_longer_differs_is_told() {
        let bare = lines(["1500", "ok"]);
        assert!(differences(&bare, &bare, &[EXCEPTION]).contains("no longer differs"));
        assert_eq!(
            differences(&bare[1..], &bare[1..], &[EXCEPTION]),
            "",
            "not in this run"
        );
    }
}
