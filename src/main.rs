//! The program: all of it is in the library. Only this file ends the process.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(pgkeep::cli::run(std::env::args_os(), end_now))
}

/// For the second Ctrl-C: nothing is waited for.
#[allow(clippy::exit)]
fn end_now(status: u8) -> ! {
    std::process::exit(i32::from(status))
}
