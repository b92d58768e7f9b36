//! What is wrong with a document, where, and what to do about it.

use std::fmt;
use std::path::Path;

/// Where a value begins. Both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Absent when the value did not come from the document.
    pub at: Option<Position>,
    /// The path of the field, e.g. `workloads[1].protocol`; empty for the document as a whole.
    pub field: String,
    pub what: String,
    pub remedy: String,
}

/// Every problem of one document, in its order. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// One mistake repeated in every entry of a large file should not bury the log.
const SHOWN: usize = 20;

impl Problems {
    /// `None` when nothing is wrong.
    pub fn new(mut all: Vec<Problem>) -> Option<Self> {
        all.sort_by_key(|problem| problem.at);
        (!all.is_empty()).then_some(Self(all))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// One line a problem, each beginning with `path:line:column`.
    pub fn in_file(&self, path: &Path) -> String {
        let mut lines: Vec<String> = self
            .0
            .iter()
            .take(SHOWN)
            .map(|problem| match problem.at {
                Some(_) => format!("{}:{problem}", path.display()),
                None => format!("{}: {problem}", path.display()),
            })
            .collect();
        if let Some(more) = self.0.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            lines.push(format!("{}: and {more} more", path.display()));
        }
        lines.join("\n")
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl std::error::Error for Problems {}
impl std::error::Error for Problem {}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "{at}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "`{}`: ", Printable(&self.field))?;
        }
        write!(f, "{}; {}", Printable(&self.what), Printable(&self.remedy))
    }
}

/// Names and values of the document stand in every part of a problem. Their control characters are escaped, so that a file
/// drives no terminal, and a problem stays on its line.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in self.0.split_inclusive(char::is_control) {
            let (text, control) = match piece.chars().next_back().filter(|c| c.is_control()) {
                Some(control) => (&piece[..piece.len() - control.len_utf8()], Some(control)),
                None => (piece, None),
            };
            f.write_str(text)?;
            if let Some(control) = control {
                write!(f, "{}", control.escape_debug())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
