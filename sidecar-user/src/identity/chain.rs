//! Sorts the certificates of an authority's answer: which is the leaf, which lead from it to a root, which are roots.
//!
//! Authorities differ in order: several certificates in a string, the root first or in the middle, duplicates. So the
//! leaf is found by its key and the chain by who has signed whom. Positions count for one thing only: the last string is
//! the bundle of roots, as the Istio certificate service has it, wherever it can be one. Trusts nothing: `answer.rs` has
//! the result verified.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Version;

use super::bad_answer::{BadAnswer, MAX_CERTIFICATES};
use crate::pki;

#[derive(Debug)]
pub(super) struct Sorted {
    /// The leaf and what leads to a root, in this order, as it is shown to peers; never a root, for they have them.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) roots: Vec<CertificateDer<'static>>,
}

struct Found<'a> {
    der: &'a CertificateDer<'static>,
    cert: X509Certificate<'a>,
    in_last_string: bool,
}

/// `key` is the DER of the public key that was in the request.
pub(super) fn sort(answer: &[String], key: &[u8]) -> Result<Sorted, BadAnswer> {
    arrange(&read(answer)?, answer.len(), key)
}

/// The same for certificates that are read already, each with the number of its string, of which there are `strings`.
pub(super) fn arrange(
    all: &[(usize, CertificateDer<'static>)],
    strings: usize,
    key: &[u8],
) -> Result<Sorted, BadAnswer> {
    let mut found: Vec<Found<'_>> = Vec::with_capacity(all.len());
    for (string, der) in all {
        let in_last_string = string + 1 == strings;
        match found.iter_mut().find(|known| known.der == der) {
            Some(known) => known.in_last_string |= in_last_string,
            None => found.push(Found {
                der,
                cert: parse(*string, der)?,
                in_last_string,
            }),
        }
    }
    let leaf = found
        .iter()
        .position(|found| found.cert.public_key().raw == key)
        .ok_or_else(|| BadAnswer::OtherKey {
            subjects: found.iter().map(|found| pki::subject(&found.cert)).collect(),
        })?;
    let roots = roots(&found, leaf)?;
    let chain = path(&found, leaf, &roots)?;
    let ders = |indices: &[usize]| indices.iter().map(|n| found[*n].der.clone()).collect();
    Ok(Sorted {
        chain: ders(&chain),
        roots: ders(&roots),
    })
}

/// Every certificate with the number of its string. Text around the blocks is nobody's business; a string without any
/// certificate is a mistake unless it is blank.
fn read(answer: &[String]) -> Result<Vec<(usize, CertificateDer<'static>)>, BadAnswer> {
    let mut all = Vec::new();
    for (index, text) in answer.iter().enumerate() {
        let fail = |reason: String| BadAnswer::Pem { index, reason };
        let before = all.len();
        for cert in CertificateDer::pem_slice_iter(text.as_bytes()) {
            if all.len() == MAX_CERTIFICATES {
                return Err(BadAnswer::Long);
            }
            all.push((index, cert.map_err(|error| fail(error.to_string()))?));
        }
        if all.len() == before && !text.trim().is_empty() {
            return Err(fail("it holds no certificate in PEM".to_owned()));
        }
    }
    match all.is_empty() {
        true => Err(BadAnswer::Empty),
        false => Ok(all),
    }
}

fn parse<'a>(index: usize, der: &'a CertificateDer<'static>) -> Result<X509Certificate<'a>, BadAnswer> {
    let fail = |reason: String| BadAnswer::Pem { index, reason };
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) => Err(fail("bytes follow a certificate".to_owned())),
        Err(error) => Err(fail(format!("a certificate cannot be read: {error}"))),
    }
}

/// In the bundle: what has signed itself, and what was signed by nobody here, for it could be of no other use. Where the
/// last string holds no such certificate it is no bundle, and what has signed itself anywhere is a root.
fn roots(found: &[Found<'_>], leaf: usize) -> Result<Vec<usize>, BadAnswer> {
    let is_authority = |found: &Found<'_>| found.cert.is_ca() || found.cert.version() == X509Version::V1;
    let signs_itself = |found: &Found<'_>| pki::is_signed_by(&found.cert, &found.cert);
    let is_anchor = |candidate: &Found<'_>| {
        signs_itself(candidate)
            || !found
                .iter()
                .any(|other| pki::is_signed_by(&candidate.cert, &other.cert))
    };
    let pick = |wanted: &dyn Fn(&Found<'_>) -> bool| -> Vec<usize> {
        let candidates = found.iter().enumerate();
        candidates
            .filter(|(n, found)| *n != leaf && is_authority(found) && wanted(found))
            .map(|(n, _)| n)
            .collect()
    };
    let bundle = pick(&|found| found.in_last_string && is_anchor(found));
    let roots = match bundle.is_empty() {
        true => pick(&signs_itself),
        false => bundle,
    };
    match roots.is_empty() {
        true => Err(BadAnswer::NoRoot {
            subjects: found.iter().map(|found| pki::subject(&found.cert)).collect(),
        }),
        false => Ok(roots),
    }
}

/// The shortest way from the leaf to a certificate that a root has signed. Each certificate is looked at once.
fn path(found: &[Found<'_>], leaf: usize, roots: &[usize]) -> Result<Vec<usize>, BadAnswer> {
    let mut below: Vec<Option<usize>> = vec![None; found.len()];
    let mut queue = std::collections::VecDeque::from([leaf]);
    let mut last = leaf;
    while let Some(n) = queue.pop_front() {
        last = n;
        let signed_by = |issuer: &usize| pki::is_signed_by(&found[n].cert, &found[*issuer].cert);
        if roots.iter().any(signed_by) {
            let mut chain: Vec<usize> = std::iter::successors(Some(n), |n| below[*n]).collect();
            chain.reverse();
            return Ok(chain);
        }
        for issuer in (0..found.len()).filter(signed_by) {
            if issuer != leaf && below[issuer].is_none() && found[issuer].cert.is_ca() {
                below[issuer] = Some(n);
                queue.push_back(issuer);
            }
        }
    }
    Err(BadAnswer::NoPath {
        subject: pki::subject(&found[last].cert),
        issuer: pki::name(found[last].cert.issuer()),
        roots: roots.iter().map(|n| pki::subject(&found[*n].cert)).collect(),
    })
}
