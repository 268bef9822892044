//! From S3, beside an optional repository that is there or gone; the host that was backed up is lost.

use pgkeep::model::{Inclusion, Target};

use super::{ends_exactly, ends_exactly_with, host_is_lost};
use crate::support::{EnvOptions, Ledger};

use Inclusion::{After, Before};

#[test]
fn from_s3_a_restore_ends_exactly_at_its_targets_with_and_without_an_optional_repository() {
    let env = EnvOptions::new(17)
        .pg(|pg| pg.segment_mib(1))
        .s3_repository("far", true)
        .dir_repository("near", false)
        .build();
    let mut ledger = Ledger::create(&env.pg);
    ledger.write(&env.pg, 3);
    let writer = ledger.write_in_background(&env.pg, std::time::Duration::from_millis(5));
    env.backup();
    let mut ledger = writer.stop();
    let row = ledger.write(&env.pg, 3);
    ledger.restore_point(&env.pg, "here");
    env.pg.switch_wal();
    ledger.write(&env.pg, 3);
    env.pg.switch_and_archive();
    host_is_lost(&env);
    ends_exactly(&env, &ledger, &Target::Latest, After);
    ends_exactly(&env, &ledger, &Target::Time(row.at), Before);
    // Only the bucket is left.
    std::fs::rename(env.store("near").path(), env.root.join("gone")).unwrap();
    ends_exactly(&env, &ledger, &Target::Name("here".to_owned()), After);
    let far = env.pgkeep.clone().global("--repo").global("far");
    ends_exactly_with(&env, &far, &ledger, &Target::Xid(row.xid), After, &[]);
    ends_exactly_with(&env, &far, &ledger, &Target::Lsn(row.before_commit), Before, &[]);
}
