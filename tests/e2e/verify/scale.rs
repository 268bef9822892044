//! Memory and time with many objects: `PGKEEP_TEST_WAL_OBJECTS=20000` asks for a measure, `--nocapture` shows it.

use super::{fill, options, verify};
use crate::support::forge;

const SEGMENT: usize = 1 << 20;

#[test]
fn memory_hardly_grows_with_the_number_of_wal_objects() {
    let count: u64 = std::env::var("PGKEEP_TEST_WAL_OBJECTS").map_or(200, |text| text.parse().unwrap());
    let env = options(18).build();
    fill(&env);
    let first = env.pg.one("select pg_walfile_name(pg_current_wal_lsn())");
    let number = |from: usize| u64::from_str_radix(&first[from..from + 8], 16).unwrap();
    let per_log = (1 << 32) / SEGMENT as u64;
    let begin = number(8) * per_log + number(16);
    for n in begin..begin + count {
        let mut bytes = vec![0; SEGMENT];
        bytes[SEGMENT / 2..SEGMENT / 2 + 8].copy_from_slice(&n.to_le_bytes());
        forge::whole(&env, &format!("{}{:08X}{:08X}", &first[..8], n / per_log, n % per_log), &bytes);
    }
    let measure = std::path::Path::new("/usr/bin/time").exists();
    let timed = if measure { env.pgkeep.clone().under(["/usr/bin/time", "-v"]) } else { env.pgkeep.clone() };
    let began = std::time::Instant::now();
    let said = verify(&timed, &[]).assert_clean();
    let took = began.elapsed();
    let label = "Maximum resident set size (kbytes): ";
    let peak = said
        .stderr
        .lines()
        .find_map(|line| line.trim().strip_prefix(label))
        .map(|text| text.parse::<u64>().unwrap());
    assert_eq!(peak.is_some(), measure, "{}", said.stderr);
    eprintln!("{count} WAL objects: {took:?}, {peak:?} KiB at the most");
    assert!(peak.is_none_or(|peak| peak < 256 << 10), "{peak:?} KiB");
}
