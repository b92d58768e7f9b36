//! Files as the rules see them: their text, their code without comments and literals, and which lines are tests.
//!
//! Not a parser: it knows just enough of Rust's tokens to tell code from prose.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// One file of the checkout.
pub(super) struct File {
    /// From the checkout's root, with forward slashes.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with comments and the insides of literals blanked, byte for byte in place. Not for Rust: the text.
    pub(super) code: String,
    /// By line: whether it holds a comment.
    comments: Vec<bool>,
    /// By line: whether it belongs to test code.
    tests: Vec<bool>,
}

/// Every text file of ours, in order of path.
pub(super) fn read_all(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    read_into(&mut files, root, root)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    mark_test_modules(&mut files);
    Ok(files)
}

/// A file is test code when its parent declares it so: `#[cfg(test)] mod scratch;`.
fn mark_test_modules(files: &mut [File]) {
    let modules: Vec<String> = files.iter().flat_map(File::test_modules).collect();
    for file in files {
        let module = file.path.trim_end_matches(".rs").trim_end_matches("/mod");
        if modules
            .iter()
            .any(|test| module == test || module.starts_with(&format!("{test}/")))
        {
            file.tests.fill(true);
        }
    }
}

fn read_into(files: &mut Vec<File>, root: &Path, dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A corpus is bytes and no text of ours.
        if path.is_symlink() || matches!(&*name, "target" | ".git" | "corpus") {
            continue;
        }
        if path.is_dir() {
            read_into(files, root, &path)?;
        } else if let Ok(text) = fs::read_to_string(&path) {
            let relative = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            files.push(File::new(&relative, &text));
        }
    }
    Ok(())
}

impl File {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let rust = path.ends_with(".rs");
        let (code, comments) = if rust {
            mask(text)
        } else {
            (text.to_owned(), vec![false; text.lines().count()])
        };
        let mut tests = vec![rust && is_test_file(path); text.lines().count() + 1];
        if rust {
            mark_tests(&code, &mut tests);
        }
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            comments,
            tests,
        }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(super) fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// The paths, less `.rs`, of the files that this one declares as tests.
    fn test_modules(&self) -> impl Iterator<Item = String> {
        let stem = self.path.trim_end_matches(".rs");
        let is_root = ["mod", "lib", "main"]
            .iter()
            .any(|root| stem.ends_with(&format!("/{root}")));
        let dir = if is_root {
            stem.rsplit_once('/').map_or("", |(dir, _)| dir)
        } else {
            stem
        };
        let declared = self
            .code
            .lines()
            .enumerate()
            .filter(|(before, _)| self.is_rust() && self.is_test(before + 1));
        declared.filter_map(move |(_, line)| {
            let (_, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
            Some(format!("{dir}/{name}"))
        })
    }

    /// Where each occurrence of `needle` begins in the code.
    pub(super) fn occurrences<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code.match_indices(needle).map(|(at, _)| at)
    }

    /// The line, from 1, of a place in the code.
    pub(super) fn line_of(&self, at: usize) -> usize {
        1 + self.code.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
    }

    pub(super) fn is_test(&self, line: usize) -> bool {
        self.tests.get(line - 1).copied().unwrap_or(false)
    }

    /// Whether a comment stands on the line, in the statement it belongs to, or right above that.
    pub(super) fn is_explained(&self, line: usize) -> bool {
        let code: Vec<_> = self.code.lines().collect();
        for above in (0..line).rev() {
            if self.comments.get(above).copied().unwrap_or(false) {
                return true;
            }
            let ends_before = above + 1 < line && code.get(above).is_none_or(|text| ends_statement(text));
            if ends_before {
                return false;
            }
        }
        false
    }
}

fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

fn ends_statement(line: &str) -> bool {
    let line = line.trim_end();
    line.trim_start().is_empty() || line.ends_with([';', '{', '}', ','])
}

/// What makes an item test code. Fuzzers run the second kind, too; the product has neither.
const TEST_CODE: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(test, feature ="];

/// Marks the item below each attribute of [`TEST_CODE`]: to its closing brace, or to its semicolon.
fn mark_tests(code: &str, tests: &mut [bool]) {
    for (at, attribute) in TEST_CODE
        .iter()
        .flat_map(|attribute| code.match_indices(attribute))
    {
        let body = at + attribute.len();
        let mut depth = 0_usize;
        let end = code[body..].bytes().position(|byte| {
            match byte {
                b'{' => depth += 1,
                b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && matches!(byte, b'}' | b';')
        });
        let line = |at: usize| {
            code.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
        };
        let last = line(end.map_or(code.len(), |end| body + end));
        let last = last.min(tests.len() - 1);
        tests[line(at)..=last].fill(true);
    }
}

/// Blanks comments and the insides of literals, and says which lines hold comments.
fn mask(text: &str) -> (String, Vec<bool>) {
    let mut code = text.as_bytes().to_vec();
    let mut comments = vec![false; text.lines().count() + 1];
    let mut at = 0;
    while at < code.len() {
        let rest = &text.as_bytes()[at..];
        let is_word = at > 0 && is_word_byte(text.as_bytes()[at - 1]);
        let (length, comment) = if rest.starts_with(b"//") {
            (
                rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
                true,
            )
        } else if rest.starts_with(b"/*") {
            (block_comment(rest), true)
        } else if let Some(length) = raw_string(rest).filter(|_| !is_word) {
            (length, false)
        } else if rest[0] == b'"' {
            (quoted(rest, b'"'), false)
        } else if rest[0] == b'\'' && is_character(rest) {
            (quoted(rest, b'\''), false)
        } else {
            at += 1;
            continue;
        };
        if comment {
            let first = text.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            let more = rest[..length].iter().filter(|byte| **byte == b'\n').count();
            comments[first..=first + more].fill(true);
        }
        code[at..at + length]
            .iter_mut()
            .filter(|byte| **byte != b'\n')
            .for_each(|byte| *byte = b' ');
        at += length;
    }
    // Whole literals and comments were blanked, so what is left is still valid.
    (String::from_utf8_lossy(&code).into_owned(), comments)
}

/// Block comments nest.
fn block_comment(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (at, depth) = (at + 2, depth + 1),
            [b'*', b'/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` and so on.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = [&b"br"[..], b"cr", b"r"]
        .into_iter()
        .find(|prefix| rest.starts_with(prefix))?
        .len();
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"')
        .chain(std::iter::repeat_n(b'#', hashes))
        .collect();
    let inside = rest[open + 1..]
        .windows(close.len())
        .position(|window| window == close);
    Some(inside.map_or(rest.len(), |inside| open + 1 + inside + close.len()))
}

/// A literal with escapes, both quotes included.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Tells a character from a lifetime or a label.
fn is_character(rest: &[u8]) -> bool {
    let Some(first) = rest.get(1) else { return false };
    let width = match first {
        b'\\' => return true,
        ..0x80 => 1,
        ..0xe0 => 2,
        ..0xf0 => 3,
        _ => 4,
    };
    rest.get(1 + width) == Some(&b'\'')
}

pub(super) fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        mask(text).0
    }

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        assert_eq!(masked("a // b\nc"), "a     \nc");
        assert_eq!(masked("a /* b /* c */ d */ e"), "a                   e");
        assert_eq!(masked(r#"f("x\"y", 'z', '\'')"#), "f(      ,    ,     )");
        assert_eq!(masked("r#\"a\"b\"# + br\"c\" d"), "         +       d");
    }

    #[test]
    fn lifetimes_and_labels_are_not_characters() {
        let code = "fn f<'a>(x: &'a str) -> &'a str { 'l: loop { break 'l } }";
        assert_eq!(masked(code), code);
        assert_eq!(masked("['é', 'x'; n]"), "[    ,    ; n]");
    }

    #[test]
    fn a_word_that_ends_in_r_begins_no_raw_string() {
        assert_eq!(masked("for \"x\"; bar\"y\""), "for    ; bar   ");
    }

    #[test]
    fn tests_are_the_items_marked_so() {
        let file = File::new(
            "a/src/x.rs",
            "fn a() {}\n#[cfg(test)]\nuse x;\nfn b() {}\n#[cfg(test)]\nmod tests {\n}\nfn c() {}\n",
        );
        let tests: Vec<_> = (1..=8).filter(|line| file.is_test(*line)).collect();
        assert_eq!(tests, [2, 3, 5, 6, 7]);
        assert!(File::new("tests/e2e/x.rs", "fn a() {}\n").is_test(1));
    }

    #[test]
    fn what_only_fuzzers_have_is_a_test() {
        let mut files = [
            File::new(
                "a/src/x/mod.rs",
                "#[cfg(any(test, feature = \"fuzzing\"))]\nmod fuzz;\nmod real;\n",
            ),
            File::new("a/src/x/fuzz.rs", "fn a() {}\n"),
        ];
        mark_test_modules(&mut files);
        assert!(files[0].is_test(2) && !files[0].is_test(3) && files[1].is_test(1));
    }

    #[test]
    fn a_file_declared_as_a_test_is_one() {
        let mut files = [
            File::new(
                "a/src/x/mod.rs",
                "#[cfg(test)]\npub(crate) mod scratch;\nmod real;\n",
            ),
            File::new("a/src/x/scratch.rs", "fn a() {}\n"),
            File::new("a/src/x/real.rs", "#[cfg(test)]\nmod checks;\nfn a() {}\n"),
            File::new("a/src/x/real/checks.rs", "fn a() {}\n"),
        ];
        mark_test_modules(&mut files);
        assert_eq!(
            files.each_ref().map(|file| file.is_test(1)),
            [true, true, true, true]
        );
        assert!(!files[0].is_test(3) && !files[2].is_test(3));
    }

    #[test]
    fn an_explanation_stands_in_or_above_its_statement() {
        let text = "// why\na\n    .b();\nc();\nd(); // why\n\ne();\n";
        let file = File::new("a/src/x.rs", text);
        let explained: Vec<_> = [3, 4, 5, 7]
            .into_iter()
            .filter(|line| file.is_explained(*line))
            .collect();
        assert_eq!(explained, [3, 5]);
    }
}
