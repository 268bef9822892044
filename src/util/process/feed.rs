//! A program whose input is too long to be kept: a blocking thread writes it while the program runs.
//!
//! A program need not read its input to the end: the writer then meets a broken pipe, and what the program says in the
//! end counts. A writer that fails for a reason of its own ends the program: it is killed.
//!
//! Dropping the future kills the program's group; the writer then meets the broken pipe and ends by itself.

use std::fs::File;
use std::io;
use std::process::{ExitStatus, Stdio};

use nix::fcntl::{FcntlArg, fcntl};
use tokio::task::JoinHandle;

use super::stream::PIPE_BYTES;
use super::{Captured, Finished, Group, Keep, LINGER, Run, capture, kill};
use crate::error::{Code, Error, Result};

/// What became of a fed run.
#[derive(Debug)]
pub struct Fed {
    pub finished: Finished,
    /// What the writer says: an error is a reason of its own, never that the program has stopped reading.
    pub written: Result<()>,
}

/// True for an error that only says that the reader at the other end has gone.
pub fn reader_is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

impl Run {
    /// Runs the program and `write`s its input on a blocking thread, which closes it by returning. An error of this
    /// function itself means that the program could not be started or did not end in time.
    pub async fn feed<F>(self, write: F) -> Result<Fed>
    where
        F: FnOnce(File) -> Result<()> + Send + 'static,
    {
        let Self { mut command, program, deadline, limit, .. } = self;
        let name = program.to_string_lossy().into_owned();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| Error::io("cannot start the program", &program, e))?;
        let mut group = Group::new(child);
        let input = group.child.stdin.take().ok_or_else(|| Error::internal("a program without input"))?;
        let input = input.into_owned_fd().map_err(|e| Error::io("cannot feed the program", &program, e))?;
        // Only a matter of speed.
        let _ = fcntl(&input, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let writer = tokio::task::spawn_blocking(move || write(File::from(input)));
        match tokio::time::timeout(deadline, group.attend_fed(writer, limit)).await {
            Err(_) => {
                Err(Error::new(Code::Io, format!("the program did not end within {deadline:?}")).at(name))
            }
            Ok(Err(e)) => Err(Error::io("cannot follow the program", &program, e)),
            Ok(Ok((status, stderr, written))) => {
                let finished = Finished { program: name, status, stdout: Vec::new(), stderr };
                Ok(Fed { finished, written })
            }
        }
    }
}

impl Group {
    async fn attend_fed(
        &mut self,
        writer: JoinHandle<Result<()>>,
        limit: usize,
    ) -> io::Result<(ExitStatus, Vec<u8>, Result<()>)> {
        let mut stderr = Captured::default();
        let leader = self.leader;
        let (status, written) = {
            let err = self.child.stderr.take();
            let child = &mut self.child;
            let ended = async {
                let talk = capture(err, limit, Keep::Tail, &mut stderr);
                tokio::pin!(talk);
                tokio::select! {
                    said = &mut talk => {
                        said?;
                        child.wait().await
                    }
                    status = child.wait() => {
                        // A grandchild may hold the pipe.
                        if let Ok(said) = tokio::time::timeout(LINGER, &mut talk).await {
                            said?;
                        }
                        status
                    }
                }
            };
            let written = async {
                let written = writer.await;
                let written = written
                    .unwrap_or_else(|e| Err(Error::internal("a program's writer panicked").because(e)));
                if written.is_err() {
                    kill(leader);
                }
                written
            };
            let (status, written) = tokio::join!(ended, written);
            (status?, written)
        };
        self.leader = None;
        Ok((status, stderr.bytes, written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Run {
        Run::new("sh", LONG).arg("-c").arg(script)
    }

    fn ten_megabytes(mut to: File) -> Result<()> {
        let piece = [b'x'; 10_000];
        for _ in 0..1000 {
            match to.write_all(&piece) {
                Err(e) if reader_is_gone(&e) => return Ok(()),
                written => written.map_err(|e| Error::internal("write").because(e))?,
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn all_that_is_written_arrives_and_the_last_words_are_kept() {
        let done = sh("test $(wc -c) = 10000000 && echo whole >&2").feed(ten_megabytes).await.unwrap();
        done.written.unwrap();
        assert_eq!((done.finished.status.code(), &*done.finished.stderr_text()), (Some(0), "whole\n"));
    }

    #[tokio::test]
    async fn a_program_may_end_before_its_input() {
        let done = sh("head -c 100 >/dev/null; exit 3").feed(ten_megabytes).await.unwrap();
        done.written.unwrap();
        assert_eq!(done.finished.status.code(), Some(3));
    }

    #[tokio::test]
    async fn a_writer_that_fails_ends_the_program() {
        let watch = crate::util::clock::Stopwatch::start();
        // It holds its input open for as long as the program lives.
        let done = sh("sleep 20").feed(|_| Err(Error::internal("no more"))).await.unwrap();
        assert_eq!(done.written.unwrap_err().what(), "no more");
        assert!(!done.finished.status.success());
        assert!(watch.elapsed() < Duration::from_secs(10));
    }
}
