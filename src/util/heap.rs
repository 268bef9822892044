//! What glibc's heap keeps of memory that was freed. Left to itself it gives threads heaps of their own and keeps tens of
//! MiB at the end of each: after a backlog of WAL the agent stood at 160 MiB and used one of them. Taking large blocks
//! from the system each time instead costs an eighth of the work in page faults. So: one heap, from which the next block is
//! taken warm, and which gives back what it does not use when asked.

#![allow(unsafe_code)]

/// One heap for all threads. For a process that stays; to be called before it has threads.
pub fn share() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two numbers and no pointer. It is not safe beside other threads' allocations (mallopt(3):
    // `init`), and there are none yet.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Returns the pages that hold nothing. Takes some milliseconds where there is much.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` takes no pointer and touches only what is free; it may be called at any time from any thread
    // (malloc_trim(3): MT-Safe).
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
