//! Work that may wait gives way to everything else on the host: processor (nice 19) and disk (the idle class).
//!
//! Where the kernel groups sessions (`sched_autogroup_enabled`, and no control group for the processor), a nice value counts
//! within its session only, and each process of PostgreSQL makes one of its own: there the disk's class alone helps.
//!
//! A courtesy, never a condition: what the kernel or a service's filter refuses changes nothing, and the work goes on as it
//! would have. A process that was made so cannot be made ordinary again without rights, so it is for children that end with
//! the work, and for a program that does nothing else.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

/// The last in line.
const NICE: libc::c_int = 19;
/// `IOPRIO_WHO_PROCESS` and `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)` of `linux/ioprio.h`.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_IDLE: libc::c_int = 3 << 13;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// As whoever starts it.
    #[default]
    Usual,
    /// Whatever else runs on the host comes first.
    Low,
}

impl Priority {
    pub fn low_if(low: bool) -> Self {
        if low { Self::Low } else { Self::Usual }
    }

    /// Of a program that is to be started, and of all that it starts.
    pub fn of_child(self, command: &mut Command) {
        if self == Self::Low {
            // SAFETY: between fork and exec only system calls that are async-signal-safe are made; nothing is allocated,
            // locked or dropped there.
            unsafe {
                command.pre_exec(|| {
                    lower();
                    Ok(())
                });
            }
        }
    }

    /// Of this thread, and of all threads and programs that it starts from now on.
    pub fn of_this_thread(self) {
        if self == Self::Low {
            lower();
        }
    }
}

fn lower() {
    // SAFETY: both take plain numbers and change nothing but the calling thread's own priority.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice_of_a_child(priority: Priority) -> String {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "nice"]);
        priority.of_child(&mut command);
        String::from_utf8(command.output().unwrap().stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_child_is_last_in_line_and_this_process_is_as_before() {
        let before = nice_of_a_child(Priority::Usual);
        assert_eq!(nice_of_a_child(Priority::Low), "19");
        assert_eq!(nice_of_a_child(Priority::Usual), before);
    }

    #[test]
    fn a_thread_hands_it_on_to_what_it_starts() {
        let before = nice_of_a_child(Priority::Usual);
        let low = std::thread::spawn(|| {
            Priority::Low.of_this_thread();
            let further = std::thread::spawn(|| nice_of_a_child(Priority::Usual));
            (nice_of_a_child(Priority::Usual), further.join().unwrap())
        });
        assert_eq!(low.join().unwrap(), ("19".to_owned(), "19".to_owned()));
        assert_eq!(nice_of_a_child(Priority::Usual), before);
    }
}
