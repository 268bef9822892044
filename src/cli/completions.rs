//! `pgkeep completions SHELL`: what completes the command line, made from the same definitions as `--help`.

use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;

use super::args::Cli;
use super::context::{Context, Outcome};
use crate::error::{Error, Result};

/// Prints the completions for a shell.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Which shell.
    shell: Shell,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    ctx.print(&script(args.shell)?)?;
    Ok(Outcome::Done)
}

fn script(shell: Shell) -> Result<String> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pgkeep", &mut out);
    String::from_utf8(out).map_err(|e| Error::internal("the completions are not UTF-8").because(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_completed_in_every_shell() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }
}
