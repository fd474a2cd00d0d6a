//! The process's memory, which holds what must not be read: keys, tokens and passwords of requests under way.
//!
//! Unless `server.core_dumps` allows it, the kernel writes none of it to a disk when the process crashes, and lets no other
//! process of the same user look into it: `prctl(2)`, `PR_SET_DUMPABLE`. A limit on the size of dumps would not do, for
//! where a program collects them there is none. Processes of root can look all the same, and so can whoever reads the
//! memory that a system swaps out.

use tracing::warn;

#[cfg(target_os = "linux")]
pub fn keep_to_itself() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};

    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "the process's memory can't be kept from dumps and debuggers");
    }
}

#[cfg(not(target_os = "linux"))]
pub fn keep_to_itself() {
    warn!("this system has no way to keep the process's memory from dumps and debuggers");
}
