//! Where an address is: country and city, from a file in MaxMind's format, if one is configured.
//!
//! The file is read whole at the start, which it has to survive, and again when somebody has replaced it: such files
//! are renewed every week. One that can't be read then is reported once, and the one before stays in force.
//!
//! What a file says is not believed blindly: only a country that looks like a code and a city that is text of a
//! sensible length go further, since they are written to Postgres in the transaction of a sign-in. Addresses that
//! belong to nobody in particular (private, loopback) are not looked up.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use maxminddb::{MaxMindDbError, PathElement, Reader};
use tokio::{task::spawn_blocking, time::timeout};
use tracing::{info, warn};

use crate::{chain::Chain, identity::Place};

/// How long reading the file again may take; a network drive that hangs must not hold up what else is written behind.
const READ_TAKES: Duration = Duration::from_secs(30);

/// Bytes of a city's name; the longest known has 58 in its English form.
const MAX_CITY: usize = 100;

/// Addresses and where they are; knows nothing without a file.
pub struct Places {
    database: Option<Database>,
}

struct Database {
    path: PathBuf,
    reader: ArcSwap<Reader<Vec<u8>>>,
    /// Of the file that was looked at last, good or bad.
    version: Mutex<Version>,
}

/// What tells a file from the one that takes its place.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Version {
    modified: Option<SystemTime>,
    length: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum GeoError {
    #[error("the file of `auth.session.geo_database`, {}, could not be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the file of `auth.session.geo_database`, {}, is not a MaxMind database", path.display())]
    Format {
        path: PathBuf,
        #[source]
        source: Box<MaxMindDbError>,
    },
}

impl Places {
    /// From `file`; without one nothing is known of any address.
    pub fn open(file: Option<&Path>) -> Result<Self, GeoError> {
        let Some(path) = file else {
            return Ok(Self { database: None });
        };
        let failed = |source| GeoError::Read {
            path: path.to_owned(),
            source,
        };
        let version = Version::of(path).map_err(failed)?;
        let reader = read(path)?;
        info!(
            kind = reader.metadata().database_type,
            "addresses are looked up in {}",
            path.display()
        );
        Ok(Self {
            database: Some(Database {
                path: path.to_owned(),
                reader: ArcSwap::from_pointee(reader),
                version: Mutex::new(version),
            }),
        })
    }

    /// Where `address` is.
    pub fn of(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        let Some(database) = self.database.as_ref().filter(|_| is_public(address)) else {
            return Place::default();
        };
        let reader = database.reader.load();
        // An IPv6 address in a file that has none, or a record that is broken: not known.
        let Ok(found) = reader.lookup(address) else {
            return Place::default();
        };
        let text = |path: &[PathElement<'_>]| found.decode_path::<&str>(path).ok().flatten();
        let country = text(&maxminddb::path!["country", "iso_code"]);
        let city = text(&maxminddb::path!["city", "names", "en"]);
        Place {
            country: country.filter(|code| is_country(code)).map(str::to_owned),
            city: city.filter(|name| is_name(name)).map(str::to_owned),
        }
    }

    /// Reads the file again if it has been replaced. To be called now and then.
    #[expect(
        clippy::disallowed_methods,
        reason = "reading a file waits for a disk, it computes nothing; and what hangs is left behind"
    )]
    pub async fn refresh(self: &Arc<Self>) {
        let Some(database) = &self.database else { return };
        let path = database.path.display();
        let this = Arc::clone(self);
        let reading = spawn_blocking(move || this.database.as_ref().map_or(Ok(false), Database::refresh));
        match timeout(READ_TAKES, reading).await {
            Ok(Ok(Ok(true))) => info!("{path} has been replaced and is in force"),
            Ok(Ok(Ok(false))) => {}
            Ok(Ok(Err(error))) => warn!(
                error = %Chain(&error),
                "{path} has been replaced by what can't be used; what was read before stays in force"
            ),
            // It panicked, or the runtime is going down.
            Ok(Err(error)) => warn!(%error, "{path} could not be read again"),
            Err(_) => warn!("{path} could not be read again within {READ_TAKES:?}"),
        }
    }
}

impl Database {
    /// Puts the file in force, if it isn't the one that was looked at last. One that is absent for the moment, as
    /// between two steps of a replacement, is waited for.
    fn refresh(&self) -> Result<bool, GeoError> {
        // Before reading: should the file change meanwhile, the next look sees it.
        let Ok(version) = Version::of(&self.path) else {
            return Ok(false);
        };
        // Held while it reads. A look that finds another under way has nothing to add, and must not pile up behind it.
        let Ok(mut known) = self.version.try_lock() else {
            return Ok(false);
        };
        if *known == version {
            return Ok(false);
        }
        *known = version;
        self.reader.store(Arc::new(read(&self.path)?));
        Ok(true)
    }
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
        })
    }
}

fn read(path: &Path) -> Result<Reader<Vec<u8>>, GeoError> {
    let bytes = fs::read(path).map_err(|source| GeoError::Read {
        path: path.to_owned(),
        source,
    })?;
    Reader::from_source(bytes).map_err(|source| GeoError::Format {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

/// Whether an address is one of the internet's; of the others a file could only say what is wrong.
fn is_public(address: IpAddr) -> bool {
    const UNIQUE_LOCAL: u16 = 0xfc00;
    let first = |address: Ipv6Addr| address.segments().first().copied().unwrap_or_default();
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            // Addresses behind a provider's NAT (RFC 6598).
            let shared = first == 100 && (64..128).contains(&second);
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || shared)
        }
        IpAddr::V6(v6) => {
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || first(v6) & 0xfe00 == UNIQUE_LOCAL)
        }
    }
}

fn is_country(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Postgres takes no NUL, and people no control characters.
fn is_name(name: &str) -> bool {
    (1..=MAX_CITY).contains(&name.len()) && !name.chars().any(char::is_control)
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.database.as_ref().map(|database| &database.path);
        f.debug_tuple("Places").field(&path).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_looked_up() {
        for public in ["8.8.8.8", "203.0.113.7", "100.128.0.1", "2001:db8::1", "2a00:1450::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "ff02::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn what_a_file_says_must_look_like_a_country_and_a_city() {
        assert!(is_country("SE") && is_name("Linköping"));
        for wrong in ["", "S", "SWE", "se", "S\0", "é"] {
            assert!(!is_country(wrong), "{wrong:?}");
        }
        for wrong in ["", "Link\0ping", "a\nb", &"x".repeat(101)] {
            assert!(!is_name(wrong), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn without_a_file_nothing_is_known() {
        let places = Arc::new(Places::open(None).unwrap());
        places.refresh().await;
        assert_eq!(places.of("8.8.8.8".parse().unwrap()), Place::default());
    }

    #[test]
    fn a_file_that_is_none_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("places.mmdb");
        let missing = Places::open(Some(&path)).unwrap_err();
        assert!(missing.to_string().contains("places.mmdb"), "{missing}");
        std::fs::write(&path, "not a database").unwrap();
        let wrong = Places::open(Some(&path)).unwrap_err();
        assert!(wrong.to_string().ends_with("is not a MaxMind database"), "{wrong}");
    }
}
