//! Links the program to a fixed address. PostgreSQL starts it for every segment, and relocating tens of thousands of
//! pointers took the loader longer than the work: three milliseconds of four.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}
