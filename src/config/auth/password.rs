//! `[auth.password]`: which passwords will do, and what hashing them may cost.

use std::time::Duration;

use crate::config::{
    found::Wrong,
    kind::{boolean, integer},
    section::Section,
    server::one_per_core,
    units::{nonzero_duration, size},
};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Password {
    /// UTF-16 units, as the contract counts.
    pub min_length: usize,
    pub max_length: usize,
    /// Whether a changed password ends the user's other sessions even if the caller does not ask for it.
    pub change_revokes_others: bool,
    /// How long the mailed link works.
    pub reset_expires_in: Duration,
    pub argon2: Argon2,
    /// Hashing threads; never zero here (0 in the file means one per core).
    pub max_concurrent: usize,
    /// Hashes that may wait; past it: 503.
    pub queue: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Argon2 {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
}

impl Password {
    pub(super) fn read(s: &mut Section<'_>) -> Option<Self> {
        let min_length = s
            .key(
                "min_length",
                "The shortest password, in UTF-16 units.",
                integer::<usize>(1..=1024),
            )
            .or("8");
        let max_length = s
            .key(
                "max_length",
                "The longest password, in UTF-16 units.",
                integer::<usize>(1..=1024),
            )
            .or("128");
        let change_revokes_others = s
            .key(
                "change_revokes_others",
                "Whether changing a password always ends the user's other sessions; else only where the caller asks \
                 for it. A reset ends all sessions in any case.",
                boolean(),
            )
            .or("false");
        let reset_expires_in = s
            .key(
                "reset_expires_in",
                "How long the link works that lets a user choose a new password.",
                nonzero_duration(),
            )
            .or("1h");
        let max_concurrent = s
            .key(
                "max_concurrent",
                "Threads that hash; 0 = one per core. Proxied requests have threads of their own.",
                one_per_core(),
            )
            .or("0");
        let queue = s
            .key(
                "queue",
                "Hashes that may wait for a thread; past it: 503 with Retry-After.",
                integer(1..=100_000),
            )
            .or("256");
        if let (Some(min), Some(max)) = (min_length, max_length)
            && min > max
        {
            s.report(
                s.wrong("min_length", "more than `max_length`, so no password would do")
                    .found(min.to_string())
                    .allowed(format!("at most {max}")),
            );
        }
        let argon2 = s.section(
            "argon2",
            "What one Argon2id hash costs. Stored hashes keep the cost that they were made with.",
            Argon2::read,
        );
        Some(Self {
            min_length: min_length?,
            max_length: max_length?,
            change_revokes_others: change_revokes_others?,
            reset_expires_in: reset_expires_in?,
            argon2: argon2?,
            max_concurrent: max_concurrent?.get(),
            queue: queue?,
        })
    }
}

impl Argon2 {
    fn read(s: &mut Section<'_>) -> Option<Self> {
        const KIB: u64 = 1024;
        let memory = s
            .key(
                "memory",
                "Memory per hash: `max_concurrent` times this is in use at once.",
                size(8 * KIB..=4 * KIB * KIB * KIB).check(
                    "a size in whole KiB such as \"19MiB\", from 8 KiB, up to 4 GiB",
                    |size| {
                        if size % KIB == 0 {
                            return Ok(());
                        }
                        Err(Wrong::but(
                            "not a whole number of KiB",
                            format!("{}KiB", size.div_ceil(KIB)),
                        ))
                    },
                ),
            )
            .or("19MiB");
        let iterations = s
            .key("iterations", "Passes over the memory.", integer::<u32>(1..=1000))
            .or("2");
        let parallelism = s
            .key(
                "parallelism",
                "Lanes; each needs at least 8 KiB of memory.",
                integer::<u32>(1..=64),
            )
            .or("1");
        let memory_kib = memory.and_then(|memory| u32::try_from(memory / KIB).ok());
        if let (Some(memory_kib), Some(lanes)) = (memory_kib, parallelism)
            && memory_kib < 8 * lanes
        {
            s.report(
                s.wrong("memory", "too little for so many lanes")
                    .found(format!("{memory_kib} KiB for {lanes} lanes"))
                    .allowed(format!("at least {} KiB", 8 * lanes)),
            );
        }
        Some(Self {
            memory_kib: memory_kib?,
            iterations: iterations?,
            parallelism: parallelism?,
        })
    }
}
