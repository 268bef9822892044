//! Writing past the page cache (`O_DIRECT`, open(2)): memory, place and length are multiples of a block.

use std::fs::File;
use std::io::{self, Write};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::util::buffers::ALIGNMENT;

/// No file system asks for more.
const BLOCK: usize = ALIGNMENT;
/// Below this the two calls that change the file's mode cost more than the copy.
const WORTH: usize = 256 << 10;

/// How many bytes were written so, at the file's present place; the caller writes the rest in the usual way, all of them
/// where it does not work or the place is not that of a block.
pub(super) fn write(file: &mut File, bytes: &[u8]) -> io::Result<usize> {
    let whole = bytes.len() - bytes.len() % BLOCK;
    if whole < WORTH || !bytes.as_ptr().addr().is_multiple_of(BLOCK) || !switch(file, true) {
        return Ok(0);
    }
    let mut written = 0;
    let outcome = loop {
        match file.write(&bytes[written..whole]) {
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // A file system that takes the flag and not the write.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput => break Ok(written),
            Err(e) => break Err(e),
        }
        if written == whole || !written.is_multiple_of(BLOCK) || written == 0 {
            break Ok(written);
        }
    };
    if !switch(file, false) {
        return Err(io::Error::last_os_error());
    }
    outcome
}

/// False where the file system has no such mode.
fn switch(file: &File, on: bool) -> bool {
    let Ok(flags) = fcntl(file, FcntlArg::F_GETFL) else { return false };
    let mut flags = OFlag::from_bits_retain(flags);
    flags.set(OFlag::O_DIRECT, on);
    fcntl(file, FcntlArg::F_SETFL(flags)).is_ok()
}
