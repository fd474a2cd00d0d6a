//! What compiling the gateway depends on beside its sources, and how it is linked.

fn main() {
    // Migrations are embedded by a macro that reads their folder: a new file there means compiling again.
    println!("cargo::rerun-if-changed=migrations");
    // Addresses that the loader has to correct take 24 bytes each in the classic table, all of which is read at each
    // start and stays in memory. The relative one takes two bits (RELR: System V ABI, 2022; glibc 2.36).
    let target = |what| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
