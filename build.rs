//! What compiling the gateway depends on beside its sources, and how it is linked.

fn main() {
    // Migrations are embedded by a macro that reads their folder: a new file there means compiling again.
    println!("cargo::rerun-if-changed=migrations");
    // Addresses that the loader has to correct take 24 bytes each in the classic table, all of which is read at each
    // start and stays in memory. The relative one takes two bits (RELR: System V ABI, 2022; glibc 2.36).
    let is_for = |what, wanted| std::env::var_os(format!("CARGO_CFG_TARGET_{what}")).is_some_and(|it| it == wanted);
    if is_for("OS", "linux") && is_for("ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
