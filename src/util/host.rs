//! This host's name, for headers, marks and messages.

/// As the kernel has it; `unknown` where it is no text.
pub fn name() -> String {
    nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok()).unwrap_or_else(|| "unknown".to_owned())
}
