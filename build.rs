//! Migrations are embedded by a macro that reads their folder: a new file there means compiling again.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
