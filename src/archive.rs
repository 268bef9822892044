//! L3: WAL into the archive and out of it again: what PostgreSQL's `archive_command` and `restore_command` call.
//!
//! Promises kept here: [`push`] says 0 only when every required repository has confirmed the file durable (1), and no
//! damaged segment stops archiving (11); [`fetch`] never lets a recovery end where the archive does not (2); nothing is
//! overwritten (4); no plaintext leaves (5); a killed push or fetch leaves nothing that the next one cannot carry on
//! with (9).
//!
//! [`ship`] is the push of who stays: the same answer, from repositories that are kept open. Both others work by
//! themselves, without an agent; under one, [`tail`] ships what no finished segment holds yet. While `restore` runs a
//! recovery, [`serve`] answers the fetches from a spool that is filled ahead of the replay; for a standby that follows the
//! archive the agent does the same ([`ahead`]).

pub mod ahead;
pub mod fetch;
pub mod fork;
mod prefetch;
pub mod push;
pub mod serve;
pub mod ship;
pub mod source;
pub mod spool;
pub mod tail;
