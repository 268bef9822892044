//! A runbook's own commands, run as they stand on the page, so that the page cannot rot.

use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use super::root::{Ids, Root};

/// The `sh` blocks of a page, each under the number of its heading (`## 3. …`). The first block sets variables and
/// nothing else; a test gives them values of its own.
pub struct Runbook {
    variables: Vec<String>,
    blocks: Vec<(u32, String)>,
}

impl Runbook {
    #[track_caller]
    pub fn named(name: &str) -> Self {
        let path = format!("{}/runbooks/{name}.md", env!("CARGO_MANIFEST_DIR"));
        Self::parse(&std::fs::read_to_string(path).unwrap())
    }
    #[track_caller]
    pub fn parse(page: &str) -> Self {
        let (mut blocks, mut open, mut step) = (Vec::new(), None::<String>, 0);
        for line in page.lines() {
            match &mut open {
                Some(block) if line == "```" => {
                    blocks.push((step, std::mem::take(block)));
                    open = None;
                }
                Some(block) => writeln!(block, "{line}").unwrap(),
                None if line == "```sh" => open = Some(String::new()),
                None => {
                    let number =
                        line.strip_prefix("## ").and_then(|rest| rest.split('.').next()?.parse().ok());
                    step = number.unwrap_or(step);
                }
            }
        }
        assert!(open.is_none(), "a block without an end");
        let (_, settings) = blocks.remove(0);
        let name = |line: &str| {
            let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("no variable: {line}"));
            assert!(!value.is_empty());
            name.to_owned()
        };
        Self { variables: settings.lines().map(name).collect(), blocks }
    }

    /// The commands of these steps, with these values for all the variables that the page asks for.
    #[track_caller]
    pub fn script(&self, values: &[(&str, String)], steps: &[u32]) -> String {
        let given: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
        assert_eq!(given, self.variables, "the variables of the page");
        let mut script = String::new();
        for (name, value) in values {
            assert!(!value.contains('\''));
            writeln!(script, "{name}='{value}'").unwrap();
        }
        for step in steps {
            let mut commands = self.blocks.iter().filter(|(at, _)| at == step).peekable();
            assert!(commands.peek().is_some(), "no commands in step {step}");
            commands.for_each(|(_, block)| writeln!(script, "{block}").unwrap());
        }
        script
    }
}

/// Runs a script with bash as the servers' user.
pub fn bash(root: &Root, script: &str) -> Output {
    let file = root.file("runbook.sh", 0o755, script);
    let mut command = Command::new("/bin/bash");
    command.arg(file).current_dir("/").env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("HOME", root.path()).env("TZ", "UTC").stdin(Stdio::null());
    if nix::unistd::geteuid().is_root() {
        let ids = Ids::server();
        command.uid(ids.uid).gid(ids.gid);
    }
    command.output().unwrap()
}

/// What a script said, for messages.
pub fn described(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr))
}
