//! What the plugin prints, as it was looked at and found good: `golden/`. `OUTRIGGER_BLESS=1` writes what is printed now.

/// The file of this name says the same.
pub(super) fn same(name: &str, text: &str) {
    let file = FILES.iter().find(|(of, _)| *of == name);
    let (_, good) = file.unwrap_or_else(|| panic!("{name} is not in the list of this file"));
    if std::env::var_os("OUTRIGGER_BLESS").is_some() {
        let path = format!("{}/src/plugin/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, text).unwrap();
    } else {
        assert_eq!(text, *good, "{name}:\n{text}");
    }
}

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("golden/", $name, ".txt")))),*]
    };
}

const FILES: &[(&str, &str)] = files![
    "flows-80",
    "flows-200",
    "flows-colours",
    "edges-80",
    "edges-200",
    "status-80",
    "status-200",
    "top-80",
    "top-200",
    "top-once-80",
    "top-once-200",
];
