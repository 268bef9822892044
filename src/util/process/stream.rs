//! A program whose output is too long to be kept: a blocking thread reads it while the program runs.
//!
//! The end of the output says nothing about success: a program that was killed ends it just so. Whoever reads must
//! therefore hold back what makes its work count until [`Streamed::finished`] has been looked at; the reader's
//! result is handed back for that.
//!
//! Dropping the future kills the program's group; the reader then meets the end of the output and ends by itself.

use std::fs::File;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, fcntl};
use tokio::task::JoinHandle;

use super::{Captured, Finished, Group, Keep, LINGER, Run, capture, kill};
use crate::error::{Code, Error, Result};

/// What the pipe may hold: a program that can go on writing is woken less often. (The kernel may grant less.)
pub(super) const PIPE_BYTES: i32 = 1 << 20;

/// What became of a streamed run.
#[derive(Debug)]
pub struct Streamed<T> {
    /// `stdout` is empty: the reader had it.
    pub finished: Finished,
    /// What the reader made of the output.
    pub read: Result<T>,
}

impl Run {
    /// Runs the program and `read`s its output on a blocking thread. A reader that ends early, with an error, ends the
    /// program too: it is killed. An error of this function itself means that the program could not be started or
    /// did not end in time.
    pub async fn stream<T, F>(self, read: F) -> Result<Streamed<T>>
    where
        T: Send + 'static,
        F: FnOnce(File) -> Result<T> + Send + 'static,
    {
        let Self { mut command, program, deadline, limit, .. } = self;
        let name = program.to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| Error::io("cannot start the program", &program, e))?;
        let mut group = Group::new(child);
        let output = group.child.stdout.take().ok_or_else(|| Error::internal("a program without output"))?;
        let output = output.into_owned_fd().map_err(|e| Error::io("cannot read the program", &program, e))?;
        // Only a matter of speed.
        let _ = fcntl(&output, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let reader = tokio::task::spawn_blocking(move || read(File::from(output)));
        match tokio::time::timeout(deadline, group.attend(reader, limit)).await {
            Err(_) => {
                Err(Error::new(Code::Io, format!("the program did not end within {deadline:?}")).at(name))
            }
            Ok(Err(e)) => Err(Error::io("cannot follow the program", &program, e)),
            Ok(Ok((status, stderr, read))) => {
                let finished = Finished { program: name, status, stdout: Vec::new(), stderr };
                Ok(Streamed { finished, read })
            }
        }
    }
}

impl Group {
    /// Follows the program and its reader to their ends.
    async fn attend<T: Send + 'static>(
        &mut self,
        reader: JoinHandle<Result<T>>,
        limit: usize,
    ) -> std::io::Result<(std::process::ExitStatus, Vec<u8>, Result<T>)> {
        let mut stderr = Captured::default();
        let read = {
            let err = self.child.stderr.take();
            let talk = capture(err, limit, Keep::Tail, &mut stderr);
            let read = async {
                let read = reader.await;
                read.unwrap_or_else(|e| Err(Error::internal("a program's reader panicked").because(e)))
            };
            tokio::pin!(talk, read);
            let mut talking = true;
            let read = loop {
                tokio::select! {
                    read = &mut read => break read,
                    said = &mut talk, if talking => {
                        said?;
                        talking = false;
                    }
                }
            };
            if read.is_err() {
                kill(self.leader);
            }
            if talking {
                tokio::select! {
                    said = &mut talk => said?,
                    ended = self.child.wait() => {
                        ended?;
                        // A grandchild may hold the pipe.
                        if let Ok(said) = tokio::time::timeout(LINGER, &mut talk).await {
                            said?;
                        }
                    }
                }
            }
            read
        };
        let status = self.child.wait().await?;
        self.leader = None;
        Ok((status, stderr.bytes, read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Run {
        Run::new("sh", LONG).arg("-c").arg(script)
    }

    fn count(mut from: File) -> Result<u64> {
        let mut buffer = vec![0; 1 << 16];
        let mut total = 0;
        loop {
            match from.read(&mut buffer).map_err(|e| Error::internal("read").because(e))? {
                0 => return Ok(total),
                n => total += n as u64,
            }
        }
    }

    #[tokio::test]
    async fn endless_output_passes_through_and_the_last_words_are_kept() {
        let done = sh("head -c 30000000 /dev/zero; echo warning: x >&2; exit 3").stream(count).await.unwrap();
        assert_eq!(done.read.unwrap(), 30_000_000);
        assert_eq!(
            (done.finished.status.code(), done.finished.stderr_text().as_ref()),
            (Some(3), "warning: x\n")
        );
    }

    #[tokio::test]
    async fn a_reader_that_fails_ends_the_program() {
        let watch = crate::util::clock::Stopwatch::start();
        let read = |_| Err::<(), _>(Error::internal("no more"));
        let done = sh("sleep 20; echo late").stream(read).await.unwrap();
        assert_eq!(done.read.unwrap_err().what(), "no more");
        assert!(!done.finished.status.success());
        assert!(watch.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn given_up_it_leaves_nobody_behind_and_the_reader_meets_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("alive");
        let (tell, told) = std::sync::mpsc::channel();
        let script = format!("(sleep 1; touch {}) & wait", mark.display());
        let run = sh(&script).stream(move |from| {
            let read = count(from);
            let _ = tell.send(());
            read
        });
        assert!(tokio::time::timeout(Duration::from_millis(200), run).await.is_err());
        tokio::task::spawn_blocking(move || told.recv_timeout(LONG)).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(1300)).await;
        assert!(!mark.exists());
    }
}
