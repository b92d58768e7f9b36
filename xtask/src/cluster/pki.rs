//! Keys and certificates of one run of the cluster: one authority, gone with the cluster. Renews nothing.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// A file of a certificate and one of its key.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

pub(super) struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
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

impl Authority {
    pub(super) fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "outrigger-cluster");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let own = Pair::write(dir, "ca", &certificate.pem(), &key)?;
        Ok(Self {
            dir: dir.into(),
            issuer: Issuer::new(params, key),
            own,
        })
    }

    /// Good for a server and for a client, as a kubelet is both.
    pub(super) fn issue(&self, file: &str, subject: &Subject) -> Result<Pair> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, subject.name);
        if let Some(group) = subject.group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        for address in subject.addresses {
            params.subject_alt_names.push(SanType::IpAddress(*address));
        }
        for host in subject.hosts {
            params
                .subject_alt_names
                .push(SanType::DnsName((*host).try_into()?));
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Pair::write(&self.dir, file, &certificate.pem(), &key)
    }

    /// The key that signs the tokens of service accounts: its public half, its private half.
    pub(super) fn account_key(&self) -> Result<Pair> {
        let key = KeyPair::generate()?;
        Pair::write(&self.dir, "accounts", &key.public_key_pem(), &key)
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
    fn write(dir: &Path, file: &str, public: &str, key: &KeyPair) -> Result<Self> {
        let pair = Self {
            certificate: dir.join(format!("{file}.crt")),
            key: dir.join(format!("{file}.key")),
        };
        fs::write(&pair.certificate, public)?;
        write_private(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }
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
