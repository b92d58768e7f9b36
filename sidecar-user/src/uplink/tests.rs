//! Names and files; the whole way is in `agent/tests/relay.rs`.

use std::path::PathBuf;

use super::*;

fn config(url: &str) -> Config {
    Config {
        fields: Fields::AGENT,
        url: url.into(),
        server_name: None,
        roots: PathBuf::from("roots"),
        token: PathBuf::from("token"),
    }
}

#[test]
fn a_service_of_the_cluster_is_known_by_its_name() {
    let of = |url: &str| Control::service(&config(url)).unwrap();
    let service = Some((
        ServiceName {
            name: "control".into(),
            namespace: "sys".into(),
        },
        15012,
    ));
    for url in [
        "https://control.sys.svc:15012",
        "https://control.sys.svc.cluster.local:15012",
        "https://control.sys.svc.:15012",
    ] {
        assert_eq!(of(url), service, "{url}");
    }
    for url in [
        "https://control:15012",
        "https://control.sys:15012",
        "https://control.example.org:15012",
        "https://10.0.0.1:15012",
        "https://[fd00::1]:15012",
    ] {
        assert_eq!(of(url), None, "{url}");
    }
}

#[test]
fn a_token_never_goes_out_in_the_clear() {
    for url in ["http://control.sys.svc", "control.sys.svc:15012", "https://", ""] {
        let error = Control::service(&config(url)).unwrap_err().to_string();
        assert!(error.starts_with("control.url:"), "{error}");
    }
}

#[tokio::test]
async fn a_token_that_is_replaced_counts_with_the_next_call_and_a_bad_one_is_named_not_shown() {
    let path = std::env::temp_dir().join(format!("outrigger-uplink-{}", std::process::id()));
    let config = Config {
        token: path.clone(),
        ..config("https://127.0.0.1:1")
    };
    let control = Control::new(config, Addresses::Resolved).unwrap();
    for token in ["one", "two"] {
        std::fs::write(&path, format!(" {token}\n")).unwrap();
        let header = control.token().await.unwrap();
        assert_eq!(header.to_str().unwrap(), format!("Bearer {token}"));
        assert!(!format!("{header:?}").contains(token));
    }
    std::fs::write(&path, "two\nlines").unwrap();
    let error = control.token().await.unwrap_err().to_string();
    assert!(
        error.starts_with("control.token:") && !error.contains("two"),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(control.token().await.is_err());
}
