//! Bundles as a kubelet writes them, and every way in which one is of no use.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SignatureAlgorithm, SubjectPublicKeyInfo,
};

use super::*;
use crate::error_chain;

const HOUR: Duration = Duration::from_secs(3600);

/// A root in memory.
pub(in crate::identity) struct Root {
    issuer: Issuer<'static, KeyPair>,
    pub(in crate::identity) pem: String,
}

impl Root {
    pub(in crate::identity) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn leaf(&self, key: &KeyPair, spoil: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id().as_str().try_into().unwrap())];
        params.not_before = (SystemTime::now() - HOUR).into();
        params.not_after = (SystemTime::now() + HOUR).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        spoil(&mut params);
        let spki =
            SubjectPublicKeyInfo::from_der(&rcgen::PublicKeyData::subject_public_key_info(key)).unwrap();
        params.signed_by(&spki, &self.issuer).unwrap().pem()
    }

    /// Key and certificate, as a kubelet writes them.
    pub(in crate::identity) fn bundle(&self, spoil: impl FnOnce(&mut CertificateParams)) -> String {
        let key = KeyPair::generate().unwrap();
        key.serialize_pem() + &self.leaf(&key, spoil)
    }
}

pub(in crate::identity) fn id() -> SpiffeId {
    SpiffeId::new("td.test", "demo", "client").unwrap()
}

/// A projected volume: files behind a link that is swapped as a whole. Gone when the test is.
pub(in crate::identity) struct Volume {
    directory: PathBuf,
    versions: AtomicU32,
}

impl Volume {
    pub(in crate::identity) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("outrigger-bundle-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        Self {
            directory,
            versions: AtomicU32::new(0),
        }
    }

    pub(in crate::identity) fn files(&self) -> Files {
        Files {
            bundle: self.directory.join("bundle.pem"),
            roots: self.directory.join("roots.pem"),
        }
    }

    /// As a kubelet does it: a new directory, then the link in one step.
    pub(in crate::identity) fn write(&self, bundle: &str, roots: &str) {
        let name = format!("..{}", self.versions.fetch_add(1, Ordering::Relaxed));
        std::fs::create_dir(self.directory.join(&name)).unwrap();
        std::fs::write(self.directory.join(&name).join("bundle.pem"), bundle).unwrap();
        std::fs::write(self.directory.join(&name).join("roots.pem"), roots).unwrap();
        let (made, data) = (self.directory.join("..data_tmp"), self.directory.join("..data"));
        std::os::unix::fs::symlink(&name, &made).unwrap();
        std::fs::rename(&made, &data).unwrap();
        for file in ["bundle.pem", "roots.pem"] {
            let _ = std::os::unix::fs::symlink(format!("..data/{file}"), self.directory.join(file));
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn judge(bundle: &str, roots: &str) -> Result<Svid, Error> {
    let volume = Volume::new();
    volume.write(bundle, roots);
    read(&id(), &volume.files(), SystemTime::now())
}

fn refusal(bundle: &str, roots: &str) -> String {
    error_chain(&judge(bundle, roots).unwrap_err())
}

#[test]
fn a_key_of_every_kind_that_a_kubelet_makes_can_sign_for_its_certificate() {
    let root = Root::new("root");
    let kinds: [&'static SignatureAlgorithm; 4] = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ];
    for kind in kinds {
        let key = KeyPair::generate_for(kind).unwrap();
        let bundle = key.serialize_pem() + &root.leaf(&key, |_| {});
        let svid =
            judge(&bundle, &root.pem).unwrap_or_else(|error| panic!("{kind:?}: {}", error_chain(&error)));
        assert_eq!((svid.id(), svid.roots().len()), (&id(), 1));
        svid.certified_key().keys_match().unwrap();
    }
}

#[test]
fn roots_of_a_rotation_are_all_trusted_and_a_root_in_the_chain_is_not() {
    let (old, new) = (Root::new("old"), Root::new("new"));
    let svid = judge(&old.bundle(|_| {}), &(old.pem.clone() + &new.pem)).unwrap();
    assert_eq!((svid.roots().len(), svid.certified_key().cert.len()), (2, 1));
    let chain = old.bundle(|_| {}) + &old.pem;
    let error = refusal(&chain, &new.pem);
    assert!(
        error.contains("signed by `CN=old`") && error.contains("`CN=new`"),
        "{error}"
    );
}

/// What a root has signed is none. The root beside the leaf would be the only one left, and nobody has brought it as one.
#[test]
fn without_a_root_in_their_file_no_certificate_of_the_chain_becomes_one() {
    let root = Root::new("root");
    let intermediate = root.leaf(&KeyPair::generate().unwrap(), |ca| {
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let error = refusal(&(root.bundle(|_| {}) + &root.pem), &intermediate);
    assert!(
        error.contains("no certificate among the roots has signed itself"),
        "{error}"
    );
}

#[test]
fn a_certificate_that_peers_would_refuse_or_of_another_workload_is_refused() {
    let root = Root::new("root");
    type Spoil = fn(&mut CertificateParams);
    let other = "spiffe://td.test/ns/demo/sa/other";
    let cases: [(Spoil, &str); 5] = [
        (
            |leaf| {
                leaf.subject_alt_names = vec![SanType::URI(
                    "spiffe://td.test/ns/demo/sa/other".try_into().unwrap(),
                )]
            },
            other,
        ),
        (|leaf| leaf.extended_key_usages.truncate(1), "a peer would refuse"),
        (
            |leaf| leaf.key_usages = vec![KeyUsagePurpose::KeyCertSign],
            "key usage must",
        ),
        (
            |leaf| leaf.not_after = (SystemTime::now() - HOUR / 2).into(),
            "not now",
        ),
        (
            |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "it may sign",
        ),
    ];
    for (spoil, fault) in cases {
        let error = refusal(&root.bundle(spoil), &root.pem);
        assert!(
            error.contains(fault) && error.contains("bundle.pem"),
            "{fault}: {error}"
        );
    }
}

#[test]
fn a_file_that_is_no_bundle_is_refused_by_its_field_without_showing_its_key() {
    let root = Root::new("root");
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (pem, leaf) = (key.serialize_pem(), root.leaf(&key, |_| {}));
    let broken = pem.replace("-----END", "----END");
    let sec1 = pem.replace("PRIVATE KEY", "EC PRIVATE KEY");
    let long = " ".repeat(MAX_BUNDLE as usize + 1);
    let body = pem.lines().nth(1).unwrap();
    for (bundle, fault) in [
        (String::new(), "holds no key"),
        (leaf.clone(), "holds no key"),
        (pem.clone(), "holds no certificate"),
        (pem.clone() + &pem + &leaf, "holds two keys"),
        (other.serialize_pem() + &leaf, "for another key"),
        (pem.clone() + &root.pem + &leaf, "for another key"),
        (sec1 + &leaf, "not in PKCS#8"),
        (broken, "is no PEM"),
        (long, "is longer than"),
    ] {
        let error = refusal(&bundle, &root.pem);
        assert!(
            error.starts_with("identity.bundle:") && error.contains(fault),
            "{fault}: {error}"
        );
        assert!(
            error.contains("podCertificate") && !error.contains(body),
            "{error}"
        );
    }
    for (roots, fault) in [
        ("", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\n", "is no PEM"),
    ] {
        let error = refusal(&(pem.clone() + &leaf), roots);
        assert!(
            error.starts_with("identity.roots:") && error.contains(fault),
            "{fault}: {error}"
        );
    }
    let error = refusal(&(pem.clone() + &leaf), &leaf);
    assert!(error.contains("there is no root"), "{error}");
    let many = root.pem.repeat(MAX_CERTIFICATES);
    assert!(refusal(&(pem + &leaf), &many).contains("more than"), "{many}");
}

#[test]
fn files_that_are_missing_are_named() {
    let volume = Volume::new();
    let error = read(&id(), &volume.files(), SystemTime::now()).unwrap_err();
    let text = error.to_string();
    assert!(
        error.is_local() && text.contains("identity.bundle: cannot read") && text.contains("bundle.pem"),
        "{text}"
    );
}
