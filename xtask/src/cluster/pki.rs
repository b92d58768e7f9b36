//! Keys and certificates of one run of the cluster: one authority, gone with the cluster. Renews nothing.
//!
//! OpenSSL's own program makes them: with a library for it, the chores took half a minute longer to build.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use super::programs::quietly;

/// A file of a certificate and one of its key.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

pub(super) struct Authority {
    dir: PathBuf,
    pub(super) own: Pair,
}

/// Whom a certificate names.
#[derive(Default)]
pub(super) struct Subject<'a> {
    /// The user.
    pub(super) name: &'a str,
    /// The user's group.
    pub(super) group: Option<&'a str>,
    /// Of a server.
    pub(super) addresses: &'a [IpAddr],
    pub(super) hosts: &'a [&'a str],
}

/// More than a run of the cluster lasts.
const DAYS: &str = "365";

const OF_AN_AUTHORITY: &str = "basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign, digitalSignature
subjectKeyIdentifier = hash
";

/// Good for a server and for a client, as a kubelet is both.
const OF_ALL_OTHERS: &str = "basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

impl Authority {
    pub(super) fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let own = Pair::named(dir, "ca");
        let subject = Subject {
            name: "outrigger-cluster",
            ..Subject::default()
        };
        own.make(&request(&subject, OF_AN_AUTHORITY), None)?;
        Ok(Self { dir: dir.into(), own })
    }

    pub(super) fn issue(&self, file: &str, subject: &Subject) -> Result<Pair> {
        let pair = Pair::named(&self.dir, file);
        pair.make(&request(subject, OF_ALL_OTHERS), Some(&self.own))?;
        Ok(pair)
    }

    /// The key that signs the tokens of service accounts: its public half, its private half.
    pub(super) fn account_key(&self) -> Result<Pair> {
        let pair = Pair::named(&self.dir, "accounts");
        write_private(&pair.key, "")?;
        let curve = "ec_paramgen_curve:P-256";
        quietly(
            Command::new("openssl")
                .args(["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out"])
                .arg(&pair.key),
        )?;
        quietly(
            Command::new("openssl")
                .args(["pkey", "-pubout", "-in"])
                .arg(&pair.key)
                .arg("-out")
                .arg(&pair.certificate),
        )?;
        Ok(pair)
    }

    /// Who somebody is to the API server, as a file.
    pub(super) fn kubeconfig(&self, server: &str, file: &str, subject: &Subject) -> Result<PathBuf> {
        let pair = self.issue(file, subject)?;
        let path = self.dir.join(format!("{file}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "outrigger", "cluster": {
                "server": server,
                "certificate-authority": self.own.certificate,
            }}],
            "users": [{ "name": subject.name, "user": {
                "client-certificate": pair.certificate,
                "client-key": pair.key,
            }}],
            "contexts": [{ "name": "outrigger", "context": { "cluster": "outrigger", "user": subject.name } }],
            "current-context": "outrigger",
        });
        write_private(&path, &config.to_string())?;
        Ok(path)
    }
}

impl Pair {
    fn named(dir: &Path, file: &str) -> Self {
        Self {
            certificate: dir.join(format!("{file}.crt")),
            key: dir.join(format!("{file}.key")),
        }
    }

    /// A new key and its certificate, which `by` signs, or the key itself.
    fn make(&self, request: &str, by: Option<&Self>) -> Result<()> {
        let asked = self.certificate.with_extension("request");
        fs::write(&asked, request).with_context(|| format!("write {}", asked.display()))?;
        // Nobody else may read it from its first byte on.
        write_private(&self.key, "")?;
        let mut openssl = Command::new("openssl");
        openssl
            .args(["req", "-x509", "-batch", "-sha256", "-days", DAYS])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"])
            .arg("-config")
            .arg(&asked)
            .arg("-keyout")
            .arg(&self.key)
            .arg("-out")
            .arg(&self.certificate);
        if let Some(by) = by {
            openssl.arg("-CA").arg(&by.certificate).arg("-CAkey").arg(&by.key);
        }
        quietly(&mut openssl)
    }
}

/// What is to be in the certificate, as OpenSSL reads it.
fn request(subject: &Subject, extensions: &str) -> String {
    let mut text = format!(
        "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = more\n\n[name]\nCN = {}\n",
        subject.name
    );
    if let Some(group) = subject.group {
        let _ = writeln!(text, "O = {group}");
    }
    let _ = write!(text, "\n[more]\n{extensions}");
    let addresses = subject.addresses.iter().map(|address| format!("IP:{address}"));
    let hosts = subject.hosts.iter().map(|host| format!("DNS:{host}"));
    let names: Vec<String> = addresses.chain(hosts).collect();
    if !names.is_empty() {
        let _ = writeln!(text, "subjectAltName = {}", names.join(", "));
    }
    text
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gone with the test.
    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn openssl(args: &[&str], files: &[&Path]) -> String {
        let output = Command::new("openssl").args(args).args(files).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }

    #[test]
    fn a_certificate_names_its_subject_is_good_for_both_ends_and_signs_no_other() {
        let dir = Dir(std::env::temp_dir().join(format!("outrigger-pki-{}", std::process::id())));
        let authority = Authority::create(&dir.0).unwrap();
        let subject = Subject {
            name: "system:node:node-1",
            group: Some("system:nodes"),
            addresses: &["10.97.0.1".parse().unwrap(), "fd97::1".parse().unwrap()],
            hosts: &["node-1"],
        };
        let pair = authority.issue("kubelet", &subject).unwrap();
        let ca = authority.own.certificate.as_path();
        for purpose in ["sslserver", "sslclient"] {
            let args = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile"];
            let said = openssl(&args, &[ca, &pair.certificate]);
            assert!(said.contains("OK"), "{purpose}: {said}");
        }
        // Before 3.2 it writes names with more room.
        let text = openssl(&["x509", "-noout", "-text", "-in"], &[&pair.certificate]).replace(" = ", "=");
        for part in [
            "CN=system:node:node-1, O=system:nodes",
            "IP Address:10.97.0.1, IP Address:FD97:0:0:0:0:0:0:1, DNS:node-1",
            "CA:FALSE",
        ] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        let mode = fs::metadata(&pair.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        // What somebody signs who is no authority.
        let forged = Authority {
            dir: dir.0.clone(),
            own: pair,
        };
        let below = forged
            .issue(
                "below",
                &Subject {
                    name: "root",
                    ..Subject::default()
                },
            )
            .unwrap();
        let args = ["verify", "-untrusted"];
        let said = openssl(
            &args,
            &[
                &forged.own.certificate,
                Path::new("-CAfile"),
                ca,
                &below.certificate,
            ],
        );
        assert!(!said.contains("OK"), "{said}");
    }

    #[test]
    fn the_halves_of_the_accounts_key_belong_together() {
        let dir = Dir(std::env::temp_dir().join(format!("outrigger-accounts-{}", std::process::id())));
        let pair = Authority::create(&dir.0).unwrap().account_key().unwrap();
        let public = openssl(&["pkey", "-pubout", "-in"], &[&pair.key]);
        assert!(public.starts_with("-----BEGIN PUBLIC KEY-----"), "{public}");
        assert_eq!(public, fs::read_to_string(&pair.certificate).unwrap());
    }
}
