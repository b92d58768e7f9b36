//! Colours: three, of the terminal's own palette, so that they are readable on a light and on a dark one. Does not decide whether
//! there are any; that is `screen.rs`.

/// What a cell is about, where that has a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tint {
    /// By mutual TLS, or as it should be: green.
    Secured,
    /// In plaintext, or on its way: yellow.
    Plaintext,
    /// Did not work: red.
    Failed,
}

impl Tint {
    /// SGR of ECMA-48: the foreground colours 32, 33 and 31.
    pub(super) fn painted(self, text: &str) -> String {
        let colour = match self {
            Self::Secured => 32,
            Self::Plaintext => 33,
            Self::Failed => 31,
        };
        format!("\x1b[{colour}m{text}\x1b[0m")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) tint: Option<Tint>,
}

impl Cell {
    pub(super) fn tinted(text: impl Into<String>, tint: Tint) -> Self {
        Self {
            text: text.into(),
            tint: Some(tint),
        }
    }

    /// With a colour where there is a reason for one.
    pub(super) fn maybe(text: impl Into<String>, tint: Option<Tint>) -> Self {
        Self {
            text: text.into(),
            tint,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tint: None }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}
