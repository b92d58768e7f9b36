//! A report for people: a line for each check, and below what is not fine its reason and its remedy, in the width that there is.

use clap::Args;

use super::report::{Check, CheckReport, Outcome};
use crate::plugin::columns::printable;
use crate::plugin::paint::Tint;
use crate::plugin::screen::Screen;

/// How it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// The locale is of UTF-8.
    pub(super) is_unicode: bool,
    pub(super) is_coloured: bool,
    pub(super) width: usize,
}

/// Where nobody says how wide it may be: what is read in a log.
const USUAL: usize = 80;
/// Longer lines are not read.
const WIDEST: usize = 100;

/// What the environment says about letters. The parser is what reads it, so the variables are arguments.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct LocaleArgs {
    #[arg(long, hide = true, env = "LC_ALL")]
    lc_all: Option<String>,
    #[arg(long, hide = true, env = "LC_CTYPE")]
    lc_ctype: Option<String>,
    #[arg(long, hide = true, env = "LANG")]
    lang: Option<String>,
}

impl LocaleArgs {
    pub(super) fn style(&self, screen: &Screen) -> Style {
        Style {
            is_unicode: self.is_unicode(),
            is_coloured: screen.is_coloured,
            width: screen.width.unwrap_or(USUAL).min(WIDEST),
        }
    }

    /// The first of these that is set decides (POSIX, 8.2).
    fn is_unicode(&self) -> bool {
        let all = [&self.lc_all, &self.lc_ctype, &self.lang];
        let locale = all.into_iter().flatten().find(|locale| !locale.is_empty());
        let locale = locale.map_or_else(String::new, |locale| locale.to_ascii_lowercase());
        locale.contains("utf-8") || locale.contains("utf8")
    }
}

impl Style {
    fn mark(self, outcome: Outcome) -> String {
        let (unicode, ascii, tint) = match outcome {
            Outcome::Ok => ("✔", "ok", Tint::Secured),
            Outcome::Warning => ("!", "!", Tint::Plaintext),
            Outcome::Failed => ("✘", "x", Tint::Failed),
        };
        let mark = match self.is_unicode {
            true => unicode.to_owned(),
            false => format!("{ascii:<2}"),
        };
        match self.is_coloured {
            true => tint.painted(&mark),
            false => mark,
        }
    }

    /// Columns of a mark and the blank behind it.
    fn indent(self) -> usize {
        if self.is_unicode { 2 } else { 3 }
    }
}

/// `is_short`: only what is not fine.
pub(super) fn render(report: &CheckReport, is_short: bool, style: Style) -> String {
    let mut text = String::new();
    for category in &report.categories {
        let shown: Vec<&Check> = category
            .checks
            .iter()
            .filter(|check| !is_short || check.result != Outcome::Ok)
            .collect();
        if shown.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{}\n", printable(&category.name)));
        for check in shown {
            line(&mut text, check, style);
        }
    }
    if !is_short {
        let (outcome, words) = match report.succeeded {
            true => (Outcome::Ok, "nothing has failed"),
            false => (Outcome::Failed, "not everything works"),
        };
        text.push_str(&format!("\n{} {words}\n", style.mark(outcome)));
    }
    text
}

fn line(text: &mut String, check: &Check, style: Style) {
    let indent = style.indent();
    let what = wrapped(&printable(&check.what), style.width, indent);
    text.push_str(&format!("{} {}\n", style.mark(check.result), what.trim_start()));
    for (word, said) in [("", &check.reason), ("-> ", &check.remedy)] {
        if let Some(said) = said {
            let said = format!("{word}{}", printable(said));
            text.push_str(&wrapped(&said, style.width, indent + 2));
            text.push('\n');
        }
    }
}

/// Lines that are broken between words, each behind so many blanks. A longer word has a line for itself.
fn wrapped(words: &str, width: usize, indent: usize) -> String {
    let (blanks, mut text, mut at) = (" ".repeat(indent), String::new(), 0);
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if at > 0 && at + 1 + length <= width {
            text.push(' ');
            at += 1 + length;
        } else {
            if at > 0 {
                text.push('\n');
            }
            text.push_str(&blanks);
            at = indent + length;
        }
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::report::{category, ok};
    use super::*;

    const STYLE: Style = Style {
        is_unicode: true,
        is_coloured: false,
        width: 80,
    };

    fn report() -> CheckReport {
        let long = "that of node-1, whose log says that the kernel has refused a program of it, and nobody knows why";
        CheckReport::new(vec![
            category("API server", vec![ok("a", "it is Kubernetes v1.36.4")]),
            category(
                "agents",
                vec![
                    ok("b", "2 agents ready").failed(long, "kubectl logs agent\x1b[31m"),
                    ok("c", "clocks agree").warning("not on node-2", "set it by NTP"),
                ],
            ),
        ])
    }

    #[test]
    fn a_report_is_read_from_top_to_bottom_at_80_columns() {
        assert_eq!(
            render(&report(), false, STYLE),
            "\
API server
✔ it is Kubernetes v1.36.4

agents
✘ 2 agents ready
    that of node-1, whose log says that the kernel has refused a program of it,
    and nobody knows why
    -> kubectl logs agent?[31m
! clocks agree
    not on node-2
    -> set it by NTP

✘ not everything works
"
        );
        let short = render(&report(), true, STYLE);
        assert!(
            short.starts_with("agents\n✘ ") && !short.contains("everything"),
            "{short}"
        );
    }

    #[test]
    fn marks_are_ascii_where_the_locale_is_and_have_colours_where_they_are_asked_for() {
        let ascii = Style {
            is_unicode: false,
            ..STYLE
        };
        let text = render(&report(), false, ascii);
        assert!(text.is_ascii(), "{text}");
        assert!(text.contains("ok it is") && text.contains("x  2 agents") && text.contains("!  clocks"));
        let coloured = Style {
            is_coloured: true,
            ..STYLE
        };
        assert!(render(&report(), false, coloured).contains("\x1b[32m✔\x1b[0m it is"));
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn the_first_variable_that_is_set_decides_about_the_locale() {
        let of = |[lc_all, lc_ctype, lang]: [&str; 3]| {
            let set = |value: &str| Some(value.to_owned());
            let args = LocaleArgs {
                lc_all: set(lc_all),
                lc_ctype: set(lc_ctype),
                lang: set(lang),
            };
            args.is_unicode()
        };
        assert!(of(["", "", "en_US.UTF-8"]));
        assert!(of(["C.utf8", "", "C"]));
        assert!(!of(["C", "", "en_US.UTF-8"]));
        assert!(!LocaleArgs::default().is_unicode());
    }
}
