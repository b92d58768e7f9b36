//! Colours, letters and small marks of a picture, as elements of SVG. Knows nothing of flows.

use super::super::columns::printable;

/// Colours have names in the style sheet, which knows those of a dark page; the attributes are for who reads no style sheet.
pub(super) const STYLE: &str = "\
text{font-family:Inter,'Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif}
@media(prefers-color-scheme:dark){
.page{fill:#0d1117}.box{fill:#161b22;stroke:#6e7681}.outer{fill:#0d1117;stroke:#6e7681}
.name{fill:#e6edf3}.note{fill:#9198a1}.under{stroke:#0d1117}
.s{stroke:#3fb950}.p{stroke:#e0a030}.d{stroke:#ff6b61}
.fs{fill:#3fb950}.fp{fill:#e0a030}.fd{fill:#ff6b61}
}
";

pub(super) const NAME: f64 = 13.0;
pub(super) const NOTE: f64 = 11.0;
/// How wide a padlock is.
pub(super) const LOCK: f64 = 7.0;

/// Of a line's class: `s` secured, `p` plaintext, `d` down.
pub(super) fn colour(class: &str) -> &'static str {
    match class {
        "s" => "#1a7f37",
        "p" => "#9a5b00",
        _ => "#cf222e",
    }
}

/// Not by colour alone: solid, dashed, dotted.
pub(super) fn dashes(class: &str) -> String {
    dash(match class {
        "s" => "",
        "p" => "7 4",
        _ => "2 4",
    })
}

pub(super) fn dash(dashes: &str) -> String {
    match dashes {
        "" => String::new(),
        dashes => format!(" stroke-dasharray=\"{dashes}\""),
    }
}

/// A padlock that stands on the line of the text beside it.
pub(super) fn lock((x, y): (f64, f64), svg: &mut String) {
    let (left, right, top) = (x + 1.5, x + LOCK - 1.5, y - 4.6);
    let colour = colour("s");
    svg.push_str(&format!(
        "<path class=\"s\" d=\"M{left:.1} {top:.1}v-1.6a2 2 0 0 1 4 0v1.6\" fill=\"none\" stroke=\"{colour}\" \
         stroke-width=\"1.2\"/><path class=\"fs\" d=\"M{x:.1} {top:.1}H{:.1}V{y:.1}H{x:.1}Z\" fill=\"{colour}\"/>\n",
        right + 1.5
    ));
}

pub(super) struct Text<'a> {
    pub(super) at: (f64, f64),
    pub(super) class: &'a str,
    pub(super) size: f64,
    pub(super) anchor: &'a str,
    pub(super) bold: bool,
}

impl Text<'_> {
    pub(super) fn write(&self, words: &str, svg: &mut String) {
        let fill = match self.class {
            "name" => "#1f2328",
            "note" => "#59636e",
            "fp" => colour("p"),
            _ => colour("d"),
        };
        let bold = if self.bold { " font-weight=\"600\"" } else { "" };
        svg.push_str(&format!(
            "<text class=\"{}\" x=\"{:.1}\" y=\"{:.1}\" font-size=\"{}\" text-anchor=\"{}\" fill=\"{fill}\"{bold} \
             font-family=\"Inter,'Segoe UI','Helvetica Neue',Arial,'DejaVu Sans',sans-serif\">{}</text>\n",
            self.class,
            self.at.0,
            self.at.1,
            self.size,
            self.anchor,
            escaped(words)
        ));
    }
}

/// Small and grey, from there to the right.
pub(super) fn note(at: (f64, f64), words: &str, svg: &mut String) {
    let text = Text {
        at,
        class: "note",
        size: NOTE,
        anchor: "start",
        bold: false,
    };
    text.write(words, svg);
}

/// Not less than it takes in the widest of the fonts, at the size of one.
pub(super) fn width(words: &str, size: f64) -> f64 {
    let of = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '\'' | '|' => 0.32,
        '.' | ',' | ':' | ';' | '/' | ' ' | '-' | '!' | '(' | ')' | '[' | ']' | 'f' | 'r' | 't' => 0.42,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' => 1.0,
        c if c.is_ascii_uppercase() => 0.76,
        c if c.is_ascii() => 0.65,
        _ => 1.0,
    };
    words.chars().map(of).sum::<f64>() * size
}

/// As text and as the value of an attribute. XML 1.0 has no control characters at all.
pub(super) fn escaped(words: &str) -> String {
    let text = printable(words);
    let is_character = |c: &char| !matches!(c, '\u{fffe}' | '\u{ffff}');
    let mut escaped = String::new();
    for c in text.chars().filter(is_character) {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
