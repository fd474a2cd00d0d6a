//! Values that are files in PEM: read with the configuration, so that `vestibule check` knows what is wrong with them, and
//! so that two configurations are equal only if what the files say is: a reload takes a changed file over.
//!
//! Not here: what clients are shown (`server/tls.rs`), which is loaded whenever its files change.

use std::{fs::File, io, io::Read as _, path::Path};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    found::{Found, Sight, Wrong},
    kind::{Kind, text_schema},
    reader::Reader,
};

/// A system's whole set of authorities has about a quarter of that.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// Certificates of authorities; at least one.
pub(super) fn authorities() -> Kind<Vec<CertificateDer<'static>>> {
    pem_file(
        "the path of a file with certificates of authorities in PEM",
        authorities_in,
    )
}

/// The same of a file that another value names.
pub(super) fn authorities_at(reader: &Reader<'_>, path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    file_of(reader, path, authorities_in)
}

fn authorities_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let certificates = certificates_in(pem)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| format!("it holds a certificate that can't be an authority's: {error}"))?;
    }
    Ok(certificates)
}

/// The gateway's own certificate, and those that lead to its authority.
pub(super) fn certificates() -> Kind<Vec<CertificateDer<'static>>> {
    pem_file(
        "the path of a file with certificates in PEM, the gateway's own first",
        certificates_in,
    )
}

pub(super) fn private_key() -> Kind<PrivateKeyDer<'static>> {
    pem_file("the path of a file with a private key in PEM", |pem| {
        PrivateKeyDer::from_pem_slice(pem)
            .map_err(|_| "no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----".into())
    })
}

fn certificates_in(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err("no certificates in PEM, which begin with -----BEGIN CERTIFICATE-----".into()),
    }
}

/// What a file holds; a relative path begins at the configuration's folder. Errors show its path alone.
fn pem_file<T: 'static>(allowed: &'static str, parse: impl Fn(&[u8]) -> Result<T, Wrong> + 'static) -> Kind<T> {
    let schema = text_schema(&json!({ "type": "string" }));
    Kind::new(allowed, schema, move |found: &Found<'_>| {
        let text = found.text(allowed, Sight::Public)?;
        match file_of(found.reader, Path::new(&text), &parse) {
            Ok(value) => Some(value),
            Err(wrong) => {
                found.report(wrong, Some(format!("{text:?}")), allowed);
                None
            }
        }
    })
}

fn file_of<T>(reader: &Reader<'_>, path: &Path, parse: impl Fn(&[u8]) -> Result<T, Wrong>) -> Result<T, Wrong> {
    let path = reader.folder.join(path);
    let pem = read(&path);
    reader.read_file(path, pem.as_ref().ok().map(|pem| pem.as_slice()));
    let pem = pem.map_err(|error| format!("the file can't be read: {error}"))?;
    reader.made_of(&String::from_utf8_lossy(&pem));
    parse(&pem)
}

/// Wiped on drop, since it may be a key.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path)?;
    // Room for all of it and one byte more, by which its end is seen: moved while it grows, it would leave copies behind.
    let length = usize::try_from(file.metadata()?.len().min(MAX_PEM_BYTES)).unwrap_or(0);
    let mut pem = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(MAX_PEM_BYTES + 1).read_to_end(&mut pem)?;
    if pem.len() as u64 > MAX_PEM_BYTES {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(pem)
}
