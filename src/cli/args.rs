//! The command line. One enum of commands; each command's own options live in its file.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::model::{ClusterName, RepoName};

/// Backup and point-in-time recovery for PostgreSQL that proves its restores.
#[derive(Debug, Parser)]
#[command(name = "pgkeep", version, propagate_version = false, disable_help_subcommand = true)]
#[command(max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Default, Args)]
pub struct Global {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", env = "PGKEEP_CONFIG", hide_env_values = true, default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Which `[cluster.NAME]` is meant; needed only where several are configured.
    #[arg(long, global = true, value_name = "NAME", value_parser = cluster_name)]
    pub cluster: Option<ClusterName>,
    /// Use only this repository.
    #[arg(long, global = true, value_name = "NAME", value_parser = repo_name)]
    pub repo: Option<RepoName>,
    /// Print one JSON document on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more on standard error; twice for still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/pgkeep/pgkeep.toml";

#[derive(Debug, Subcommand)]
pub enum Command {
    // In the order of `--help`: setting up, backing up, looking, restoring, the rest. A doc comment for the help stands
    // in the command's own file; `cli::dispatch` has a line for each.
    Init(super::init::Args),
    Check(super::check::Args),
    Backup(super::backup::BackupArgs),
    List(super::list::Args),
    Show(super::show::Args),
    Window(super::window::Args),
    Status(super::status::Args),
    Verify(super::verify::Args),
    Restore(super::restore::Args),
    Drill(super::drill::Args),
    RestoreTest(super::restore_test::Args),
    Agent(super::agent::Args),
    Alerts(super::alerts::Args),
    Jobs(super::jobs::Args),
    #[command(subcommand)]
    Wal(super::wal::Command),
    #[command(subcommand)]
    Config(super::config::Command),
    #[command(subcommand)]
    Key(super::key::Command),
    Man(super::man::Args),
    Completions(super::completions::Args),
}

fn cluster_name(text: &str) -> Result<ClusterName, String> {
    ClusterName::parse(text).ok_or_else(|| NAME_RULE.to_owned())
}

fn repo_name(text: &str) -> Result<RepoName, String> {
    RepoName::parse(text).ok_or_else(|| NAME_RULE.to_owned())
}

pub(super) const NAME_RULE: &str = "a name is 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit";

/// True when PostgreSQL calls us as its `restore_command`, whatever else is wrong with the arguments: from then on
/// only 0, 1 and 200 may leave the process (promise 2), so this is decided before the arguments are read in earnest.
pub fn is_wal_fetch<S: AsRef<std::ffi::OsStr>>(argv: &[S]) -> bool {
    let mut words = argv.iter().skip(1).map(AsRef::as_ref).skip_while(|word| *word != "wal");
    words.find(|word| *word == "fetch" || *word == "push").is_some_and(|word| word == "fetch")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_restore_command_is_recognised_before_its_arguments_are_read() {
        let is = |line: &str| is_wal_fetch(&line.split(' ').collect::<Vec<_>>());
        assert!(is("pgkeep wal fetch 000000010000000000000001 pg_wal/RECOVERYXLOG"));
        assert!(is("pgkeep --config /etc/x.toml --cluster main wal fetch %f %p"));
        assert!(is("pgkeep --nonsense wal -v --json fetch"));
        assert!(is("pgkeep --cluster=main wal fetch"));
        assert!(!is("pgkeep wal push pg_wal/fetch"));
        assert!(!is("pgkeep wal push fetch"));
        assert!(!is("pgkeep list"));
        assert!(!is("wal fetch"));
    }

    /// The commands of a text: lines of a shell block, and what stands in backticks.
    fn commands(text: &str) -> Vec<String> {
        let block = |line: &&str| line.trim_start().starts_with("pgkeep ") && !line.contains('`');
        let lines = text.lines().filter(block).map(|line| line.split(" #").next().unwrap_or_default());
        let spans = text.lines().filter(|line| !line.starts_with("```"));
        let spans = spans.flat_map(|line| line.split('`').skip(1).step_by(2));
        let parts = lines.chain(spans);
        let each = parts.flat_map(|part| part.split(';')).map(str::trim).map(str::to_owned);
        each.filter(|command| command.starts_with("pgkeep ")).collect()
    }

    /// Mentioned without all it needs ("`pgkeep show` of this one") is no mistake; what does not exist is.
    fn fault(command: &str) -> Option<String> {
        let words = command.split_whitespace().map(|word| {
            // A placeholder stands for a name.
            let placeholder = word.chars().all(|c| c.is_ascii_uppercase());
            let word = word.trim_matches(|c| c == '\'' || c == '"');
            if placeholder { word.to_lowercase() } else { word.to_owned() }
        });
        let words: Vec<String> = words.collect();
        let known = Cli::command().get_subcommands().any(|c| c.get_name() == words[1]);
        // Comes with the scheduler's commands; checked as soon as it is there.
        if words[1] == "jobs" && !known {
            return None;
        }
        let error = Cli::try_parse_from(words).err()?;
        (error.kind() != clap::error::ErrorKind::MissingRequiredArgument).then(|| error.to_string())
    }

    #[test]
    fn every_command_that_an_alert_or_its_page_names_exists() {
        use crate::agent::alerts::rules::{RULES, tests::every_mend};
        let mut seen = 0;
        for rule in RULES {
            let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("runbooks").join(rule.runbook);
            for command in commands(&std::fs::read_to_string(page).unwrap()) {
                assert_eq!(fault(&command), None, "{}: {command}", rule.runbook);
                seen += 1;
            }
        }
        assert!(seen > 50, "are the pages still read?");
        for mend in every_mend() {
            let other = mend.starts_with("systemctl ") || mend.starts_with("journalctl ");
            let commands = commands(&format!("`{mend}`"));
            let there = other || mend.split(';').any(|part| part.trim().starts_with("pgkeep "));
            assert!(there, "{mend} names no command");
            for command in commands {
                assert_eq!(fault(&command), None, "{mend}");
            }
        }
        assert!(fault("pgkeep no-such-thing").is_some() && fault("pgkeep list --no-such").is_some());
    }
}
