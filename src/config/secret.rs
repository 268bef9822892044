//! A secret's whereabouts. The configuration says where it is; the value is read when it is needed, held in memory
//! that is wiped, and printed nowhere.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::error::{Code, Error, Result};
use crate::util::process::Run;

/// `{ env = "NAME" }`, `{ file = "/path" }` or `{ command = "program args" }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// The value of an environment variable.
    Env(String),
    /// The content of a file, without the line's end.
    File(PathBuf),
    /// What a shell command prints, without the line's end.
    Command(String),
}

impl Secret {
    /// Reads the value; an empty one is an error.
    pub fn resolve(&self) -> Result<Zeroizing<String>> {
        let value = match self {
            Self::Env(name) => Zeroizing::new(
                std::env::var(name)
                    .map_err(|e| self.wrong("the environment variable of a secret is not set").because(e))?,
            ),
            Self::File(path) => Zeroizing::new(
                std::fs::read_to_string(path)
                    .map_err(|e| self.wrong("cannot read the file of a secret").because(e))?,
            ),
            Self::Command(command) => {
                let output = Command::new("/bin/sh")
                    .args(["-c", command])
                    .stdin(Stdio::null())
                    .stderr(Stdio::inherit())
                    .output()
                    .map_err(|e| self.wrong("cannot run the command of a secret").because(e))?;
                return self.printed(output.status, output.stdout);
            }
        };
        self.trimmed(&value)
    }

    /// What a command printed, if it succeeded and printed a text.
    fn printed(&self, status: ExitStatus, output: Vec<u8>) -> Result<Zeroizing<String>> {
        let bytes = Zeroizing::new(output);
        if !status.success() {
            let status = std::io::Error::other(status.to_string());
            return Err(self.wrong("the command of a secret failed").because(status));
        }
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| self.wrong("the command of a secret printed something that is no text"))?;
        self.trimmed(text)
    }
    /// Without the line's end; an empty value is an error.
    fn trimmed(&self, value: &str) -> Result<Zeroizing<String>> {
        let trimmed = value.trim_end_matches(['\n', '\r']);
        if trimmed.is_empty() {
            return Err(self.wrong("a secret is empty"));
        }
        Ok(Zeroizing::new(trimmed.to_owned()))
    }
    fn wrong(&self, what: &str) -> Error {
        Error::new(Code::Key, what).at(self.place())
    }

    /// Where the value comes from, for messages.
    fn place(&self) -> String {
        match self {
            Self::Env(name) => format!("environment variable {name}"),
            Self::File(path) => path.display().to_string(),
            Self::Command(command) => format!("command `{command}`"),
        }
    }

    /// As `resolve` for a task that must not wait: the command has until the deadline, and is then killed.
    pub async fn resolve_within(&self, deadline: Duration) -> Result<Zeroizing<String>> {
        let Self::Command(command) = self else { return self.resolve() };
        let ended = Run::new("/bin/sh", deadline).args(["-c", command]).run().await;
        let ended = ended.map_err(|e| self.wrong("cannot run the command of a secret").because(e))?;
        self.printed(ended.status, ended.stdout)
    }
}

/// A value that may stand in the file when knowing it lets nobody in, and is a secret otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarded {
    Text(String),
    Secret(Secret),
}

impl Guarded {
    pub async fn resolve_within(&self, deadline: Duration) -> Result<Zeroizing<String>> {
        match self {
            Self::Text(text) => Ok(Zeroizing::new(text.clone())),
            Self::Secret(secret) => secret.resolve_within(deadline).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_comes_from_a_file_or_a_command_without_its_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(*Secret::File(file).resolve().unwrap(), "s3cret");
        assert_eq!(*Secret::Command("echo s3cret".into()).resolve().unwrap(), "s3cret");
    }

    #[tokio::test]
    async fn a_command_of_a_secret_that_hangs_is_killed_at_its_deadline() {
        let hung = Secret::Command("sleep 30".into()).resolve_within(Duration::from_millis(100)).await;
        assert_eq!(hung.unwrap_err().code(), Code::Key);
        let patience = Duration::from_secs(20);
        assert_eq!(*Secret::Command("echo s3cret".into()).resolve_within(patience).await.unwrap(), "s3cret");
        assert!(Secret::Command("true".into()).resolve_within(patience).await.is_err());
        assert_eq!(*Guarded::Text("open".into()).resolve_within(patience).await.unwrap(), "open");
    }

    #[test]
    fn a_secret_that_cannot_be_had_is_an_error_that_says_where() {
        for (secret, place) in [
            (Secret::File("/nonexistent/secret".into()), "/nonexistent/secret"),
            (Secret::Env("PGKEEP_NO_SUCH_VARIABLE".into()), "PGKEEP_NO_SUCH_VARIABLE"),
            (Secret::Command("exit 3".into()), "exit 3"),
            (Secret::Command("true".into()), "true"),
        ] {
            let error = secret.resolve().unwrap_err();
            assert_eq!(error.code(), Code::Key);
            assert!(error.place().unwrap().contains(place), "{error}");
        }
    }
}
