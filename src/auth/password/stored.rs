//! What a stored password hash can be, read once.
//!
//! New ones are Argon2id and nothing else. Those that came with users from elsewhere keep their format until their owner
//! signs in: better-auth's scrypt, bcrypt, Django's PBKDF2, Argon2 in other variants and with other parameters.
//!
//! A row must not be able to take all memory or a thread for minutes, so every cost in it has a bound. What can't be
//! read, or asks for more, is nobody's password: a hash fails closed.

use argon2::{
    Algorithm, Params, Version,
    password_hash::phc::{Output, PasswordHash, Salt},
};

use super::legacy::{Bcrypt, BetterAuth, DjangoPbkdf2};

/// Memory for one verification, unless today's hashes need more.
const MAX_MEMORY_KIB: u32 = 256 * 1024;

/// Memory times passes, likewise: about a second of one core.
const MAX_WORK_KIB: u64 = 2 * 1024 * 1024;

/// Why a stored hash can't be verified; in words that tell nothing of it.
pub(super) type Unreadable = &'static str;

pub(super) enum StoredHash<'h> {
    Argon2(StoredArgon2),
    BetterAuth(BetterAuth<'h>),
    Bcrypt(Bcrypt<'h>),
    DjangoPbkdf2(DjangoPbkdf2<'h>),
}

/// An Argon2 hash of any variant, taken apart.
pub(super) struct StoredArgon2 {
    /// A PHC string and nothing before it.
    pub(super) plain: bool,
    pub(super) algorithm: Algorithm,
    pub(super) version: Version,
    pub(super) params: Params,
    pub(super) salt: Salt,
    pub(super) expected: Output,
}

/// What an Argon2 hash may cost.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    memory_kib: u32,
    work_kib: u64,
}

impl Bounds {
    /// Whatever is configured for new hashes is allowed for stored ones.
    pub(super) fn beside(memory_kib: u32, iterations: u32) -> Self {
        Self {
            memory_kib: MAX_MEMORY_KIB.max(memory_kib),
            work_kib: MAX_WORK_KIB.max(work_kib(memory_kib, iterations)),
        }
    }
}

fn work_kib(memory_kib: u32, iterations: u32) -> u64 {
    u64::from(memory_kib) * u64::from(iterations)
}

impl<'h> StoredHash<'h> {
    pub(super) fn parse(text: &'h str, bounds: Bounds) -> Result<Self, Unreadable> {
        // Django puts its own name for the algorithm before a PHC string, without its first dollar sign.
        let phc = text.strip_prefix("argon2").unwrap_or(text);
        if phc.starts_with("$argon2") {
            let plain = phc.len() == text.len();
            return StoredArgon2::parse(phc, plain, bounds).map(Self::Argon2);
        }
        if let Some(django) = DjangoPbkdf2::parse(text) {
            return django.map(Self::DjangoPbkdf2);
        }
        if let Some(bcrypt) = Bcrypt::parse(text) {
            return bcrypt.map(Self::Bcrypt);
        }
        BetterAuth::parse(text)
            .map(Self::BetterAuth)
            .ok_or("its format is unknown")
    }
}

impl StoredArgon2 {
    fn parse(text: &str, plain: bool, bounds: Bounds) -> Result<Self, Unreadable> {
        let phc = PasswordHash::new(text).map_err(|_| "it is no PHC string")?;
        let algorithm = Algorithm::try_from(phc.algorithm.as_str()).map_err(|_| "it is no Argon2 that is known")?;
        let version = match phc.version {
            Some(version) => Version::try_from(version).map_err(|_| "its version is unknown")?,
            // As the reference implementation reads a string without one.
            None => Version::V0x10,
        };
        let params = Params::try_from(&phc).map_err(|_| "its parameters are not valid")?;
        if params.m_cost() > bounds.memory_kib {
            return Err("it asks for too much memory");
        }
        if work_kib(params.m_cost(), params.t_cost()) > bounds.work_kib {
            return Err("it asks for too much time");
        }
        let (Some(salt), Some(expected)) = (phc.salt, phc.hash) else {
            return Err("it lacks its salt or its output");
        };
        Ok(Self {
            plain,
            algorithm,
            version,
            params,
            salt,
            expected,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::password::tests::VECTORS;

    const BOUNDS: Bounds = Bounds {
        memory_kib: MAX_MEMORY_KIB,
        work_kib: MAX_WORK_KIB,
    };

    fn reason(text: &str) -> Unreadable {
        StoredHash::parse(text, BOUNDS)
            .err()
            .unwrap_or_else(|| panic!("{text} is taken"))
    }

    #[test]
    fn what_costs_too_much_is_refused_unread() {
        let argon2 = |cost| format!("$argon2id$v=19${cost}$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA");
        assert_eq!(reason(&argon2("m=262145,t=1,p=1")), "it asks for too much memory");
        assert_eq!(reason(&argon2("m=262144,t=9,p=1")), "it asks for too much time");
        assert_eq!(reason(&argon2("m=64,t=4294967295,p=1")), "it asks for too much time");
        let bcrypt = "$2b$16$MQIHXqD9Mt5.fH9km11m2us5jBhzoA7j2fnKsUdpWiwWve4MFKeWy";
        assert_eq!(reason(bcrypt), "it asks for too much time");
        let django = "pbkdf2_sha256$5000001$salt$L8EtYBZjbGD0DyBfnPOQFHSMtCYhvpEFJkYtk1gp54Q=";
        assert_eq!(reason(django), "it asks for too much time");
    }

    #[test]
    fn what_is_configured_today_is_always_allowed() {
        let costly = "$argon2id$v=19$m=1048576,t=4,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA";
        assert!(StoredHash::parse(costly, BOUNDS).is_err());
        assert!(StoredHash::parse(costly, Bounds::beside(1024 * 1024, 4)).is_ok());
    }

    #[test]
    fn what_is_nearly_a_hash_is_none() {
        let hex = |n| "0".repeat(n);
        for text in [
            "",
            "$",
            "plain text",
            "$argon2id$v=19$m=64,t=1,p=1$c2FsdA",
            "$argon2x$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
            "$argon2id$v=18$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
            "$argon2id$v=19$m=0,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
            "argon2argon2$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
            "$2b$04$MQIHXqD9Mt5.fH9km11m2us5jBhzoA7j2fnKsUdpWiwWve4MFKeW",
            "$2b$03$MQIHXqD9Mt5.fH9km11m2us5jBhzoA7j2fnKsUdpWiwWve4MFKeWy",
            // The variant with a flaw in how it reads bytes from 0x80 on: ours would verify something else.
            "$2x$04$MQIHXqD9Mt5.fH9km11m2us5jBhzoA7j2fnKsUdpWiwWve4MFKeWy",
            "pbkdf2_sha256$0$salt$L8EtYBZjbGD0DyBfnPOQFHSMtCYhvpEFJkYtk1gp54Q=",
            "pbkdf2_sha256$1000$salt$L8EtYBZjbGD0",
            "pbkdf2_sha256$1000$$L8EtYBZjbGD0DyBfnPOQFHSMtCYhvpEFJkYtk1gp54Q=",
            "pbkdf2_sha1$1000$salt$L8EtYBZjbGD0DyBfnPOQFHSMtCYhvpEFJkYtk1gp54Q=",
            "pbkdf2_sha512$1000$salt$L8EtYBZjbGD0DyBfnPOQFHSMtCYhvpEFJkYtk1gp54Q=",
            "pbkdf2_sha256$1000$salt$L8EtYBZjbGD0DyBfnPOQFHSMtCYhvpEFJkYtk1gp54Q=$more",
            &format!("{}:{}", hex(31), hex(128)),
            &format!("{}:{}", hex(32), hex(127)),
            &format!("{}:{}", hex(32), "G".repeat(128)),
            &format!("{}:{}:", hex(32), hex(128)),
        ] {
            assert!(StoredHash::parse(text, BOUNDS).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC*") {
            let _ = StoredHash::parse(&text, BOUNDS);
        }

        /// Real hashes with something put into, or taken out of, the middle of them.
        #[test]
        fn no_damage_makes_the_reader_panic(
            which in 0..VECTORS.len(),
            from in 0_usize..200,
            len in 0_usize..20,
            new in "[$:=,0-9a-zA-Z+/.\\PC]{0,12}",
        ) {
            let mut text: Vec<char> = VECTORS[which].1.chars().collect();
            let from = from.min(text.len());
            let to = (from + len).min(text.len());
            text.splice(from..to, new.chars());
            let text: String = text.into_iter().collect();
            let _ = StoredHash::parse(&text, BOUNDS);
        }
    }
}
