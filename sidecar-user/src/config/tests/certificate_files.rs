//! Certificates that come in files, in the place of an authority. Reads none.

use super::*;

#[test]
fn certificates_in_files_take_the_place_of_an_authority() {
    let text = "workload: {name: a}\nregistry: r\ninterception: none\nidentity: {bundle: /b, roots: /r}\n";
    let role = read_proxy(text, &[]).unwrap().role;
    let identity::Source::Files(files) = role.identity.source else {
        panic!("{:?}", role.identity.source);
    };
    assert_eq!(
        (files.bundle.as_path(), files.roots.as_path()),
        (Path::new("/b"), Path::new("/r"))
    );
    let found = read_proxy(MINIMAL, &["--interception", "none", "--identity-bundle", "/b"]).unwrap_err();
    for field in ["identity.authority", "identity.token"] {
        assert!(
            found.contains(&format!("`{field}`: it is given, and identity.bundle too")),
            "{found}"
        );
    }
    let found = read_proxy(&text.replace(", roots: /r", ""), &[]).unwrap_err();
    assert!(found.contains("`identity.roots`: it is missing"), "{found}");
}
