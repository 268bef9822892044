//! `pgkeep restore-test`: what the nightly job of this kind does, at once.

use clap::Args as ClapArgs;

use super::context::{Context, Outcome};
use super::drill::{self, Common, Origin};
use crate::error::Result;
use crate::verify::report::Kind;

/// Restores the newest of everything beside production and checks it: base backup, dump, exports. What the job does.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Which random second the base backup is brought to.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    common: Common,
}

pub fn run(ctx: &Context, args: &Args) -> Result<Outcome> {
    drill::carry_out(ctx, Kind::RestoreTest, drill::random(args.seed), &args.common, Origin::of_host(ctx)?)
}
