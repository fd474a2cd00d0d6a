//! `[server.tls]`: TLS towards clients.
//!
//! Only what the file says: the certificates themselves are read by `server::tls`, at the start and whenever their
//! files change. What can't be meant is an error here; what can't be loaded is one there.

use std::path::{Path, PathBuf};

use super::{
    Acme, Challenge,
    listen::{Listen, listen, report_clashes},
};
use crate::config::{
    error::{ConfigError, ConfigErrors, Place},
    found::shortened,
    kind::{Kind, choice, file, list},
    section::Section,
};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// The first is shown to clients that ask for no host, or for one that none of them is for. None, if all are ordered.
    pub certificates: Vec<CertificateFiles>,
    pub min_version: TlsVersion,
    pub clients: ClientAuth,
    /// Listeners without TLS that send everybody to https.
    pub redirect_from: Vec<Listen>,
    pub written: Written,
}

/// Where the file names the files of the section: whoever can't load one says which key is wrong. It changes nothing that
/// is in force, so it is equal to any other.
#[derive(Clone, Debug)]
pub struct Written {
    config: PathBuf,
    section: Place,
    files: Vec<(PathBuf, String, Place)>,
}

impl PartialEq for Written {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Written {}

impl Written {
    fn of(s: &Section<'_>) -> Self {
        Self {
            config: s.file().to_owned(),
            section: s.place().clone(),
            files: Vec::new(),
        }
    }

    fn note(&mut self, s: &Section<'_>, name: &str, path: Option<&PathBuf>) {
        if let Some(path) = path {
            let key = format!("{}.{name}", s.path());
            self.files.push((path.clone(), key, s.place_of(name)));
        }
    }

    /// What is wrong with one of the files, as an error of the configuration. `name` tells keys apart that name the same
    /// file; without a file it is the whole section.
    pub fn wrong(&self, file: Option<(&Path, Option<&str>)>, problem: String) -> ConfigErrors {
        let error = match file.and_then(|(file, name)| self.find(file, name)) {
            Some((path, key, place)) => ConfigError::new(place.clone(), key, problem)
                .found(shortened(&path.display().to_string()))
                .allowed(ALLOWED),
            None => ConfigError::new(self.section.clone(), "server.tls", problem),
        };
        ConfigErrors::new(self.config.display().to_string(), vec![error])
    }

    fn find(&self, file: &Path, name: Option<&str>) -> Option<&(PathBuf, String, Place)> {
        self.files.iter().find(|(path, key, _)| {
            let named = |name: &str| key.rsplit('.').next() == Some(name);
            path == file && name.is_none_or(named)
        })
    }
}

/// A certificate, with those that lead to its root, and its key: PEM.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// Whether clients show a certificate. One that is shown must be issued by an authority of the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClientAuth {
    NotAsked,
    Optional(PathBuf),
    Required(PathBuf),
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Demand {
    Optional,
    Required,
}

const ALLOWED: &str = "the path of a PEM file";

/// Whichever is there, somebody wants TLS.
const KEYS: [&str; 7] = [
    "certificate",
    "key",
    "min_version",
    "client_ca",
    "client_auth",
    "redirect_from",
    "certificates",
];

impl Tls {
    /// `Some(None)`: there is no such section, and no certificates are ordered. `listeners` are those of `server.listen`.
    #[expect(
        clippy::option_option,
        reason = "the outer one is wrong or right, the inner one absent or there"
    )]
    pub(super) fn read(s: &mut Section<'_>, listeners: &[Listen], acme: Option<&Acme>) -> Option<Option<Self>> {
        s.shown_as_comment();
        let certificate = s
            .key(
                "certificate",
                "PEM: the certificate, then those that lead to its root. Read again when the file changes.",
                pem(),
            )
            .optional("\"tls.crt\"");
        let key = s
            .key("key", "PEM: the certificate's private key.", pem())
            .optional("\"tls.key\"");
        let min_version = s
            .key(
                "min_version",
                "The oldest version of TLS that is spoken.",
                choice(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)]),
            )
            .or("\"1.2\"");
        let client_ca = s
            .key(
                "client_ca",
                "PEM: authorities whose client certificates are believed. Upstreams are told whose they are.",
                pem(),
            )
            .optional("\"clients.crt\"");
        let client_auth = s
            .key(
                "client_auth",
                "With client_ca: whether a client must show a certificate.",
                choice(&[("optional", Demand::Optional), ("required", Demand::Required)]),
            )
            .or("required");
        let redirect_from = s
            .key(
                "redirect_from",
                "Listeners without TLS that send everybody to https.",
                list(listen()),
            )
            .or("[]");
        let mut written_at = Written::of(s);
        for (name, path) in [("certificate", &certificate), ("key", &key), ("client_ca", &client_ca)] {
            written_at.note(s, name, path.as_ref().and_then(Option::as_ref));
        }
        let more = s.items(
            "certificates",
            "More certificates, chosen by the host that a client asks for.",
            |s| {
                s.shown_as_comment();
                let certificate = s.key("certificate", "As in [server.tls].", pem()).required("other.crt");
                let key = s.key("key", "As in [server.tls].", pem()).required("other.key");
                written_at.note(s, "certificate", certificate.as_ref());
                written_at.note(s, "key", key.as_ref());
                Some(CertificateFiles {
                    certificate: certificate?,
                    key: key?,
                })
            },
        );
        let written = KEYS.iter().any(|key| s.has(key));
        if let Some(redirect_from) = &redirect_from {
            report_clashes(s, "redirect_from", redirect_from, listeners);
        }
        if client_ca == Some(None) && s.has("client_auth") {
            s.report(
                s.wrong("client_auth", "there is no client_ca whose certificates could be shown")
                    .allowed("client_ca beside it"),
            );
        }
        let certificate = certificate?;
        let key = key?;
        if written {
            report_half(s, certificate.as_ref(), key.as_ref(), acme);
        }
        if !written && acme.is_none() {
            return Some(None);
        }
        report_unanswered(s, acme, redirect_from.as_deref());
        let first = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
            (None, None) if acme.is_some() => None,
            _ => return None,
        };
        let (client_ca, client_auth) = (client_ca?, client_auth?);
        Some(Some(Self {
            certificates: first.into_iter().chain(more).collect(),
            min_version: min_version?,
            clients: match (client_ca, client_auth) {
                (None, _) => ClientAuth::NotAsked,
                (Some(ca), Demand::Optional) => ClientAuth::Optional(ca),
                (Some(ca), Demand::Required) => ClientAuth::Required(ca),
            },
            redirect_from: redirect_from?,
            written: written_at,
        }))
    }
}

/// A certificate needs its key, and the other way round.
fn report_half(s: &Section<'_>, certificate: Option<&PathBuf>, key: Option<&PathBuf>, acme: Option<&Acme>) {
    for (here, there, name, other) in [
        (certificate, key, "certificate", "key"),
        (key, certificate, "key", "certificate"),
    ] {
        let needed = there.is_some() || (name == "certificate" && acme.is_none());
        if here.is_none() && needed {
            s.report(
                s.wrong(
                    name,
                    format!("missing: TLS needs a certificate and its key, beside {other}"),
                )
                .allowed(ALLOWED),
            );
        }
    }
}

/// An authority that looks by a plain request needs somebody who answers it.
fn report_unanswered(s: &Section<'_>, acme: Option<&Acme>, redirect_from: Option<&[Listen]>) {
    let by_request = acme.is_some_and(|acme| acme.challenge == Challenge::Http01);
    if by_request && redirect_from.is_some_and(<[_]>::is_empty) {
        let problem = "missing: `server.acme.challenge` is \"http-01\", which nobody would answer";
        s.report(
            s.wrong("redirect_from", problem)
                .allowed("the listener that port 80 leads to, such as [\"0.0.0.0:80\"]"),
        );
    }
}

/// The path of a PEM file; a relative one begins at the configuration's folder.
fn pem() -> Kind<PathBuf> {
    file(ALLOWED, |path| {
        if path.as_os_str().is_empty() {
            return Err("empty".into());
        }
        Ok(())
    })
}
