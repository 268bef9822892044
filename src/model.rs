//! Plain words of the domain: values that are right once they exist, parsed at the border and never sliced
//! or guessed afterwards. Nothing here does I/O.

pub mod backup_id;
pub mod digest;
pub mod lsn;
pub mod names;
pub mod pattern;
pub mod segment;
pub mod severity;
mod table_filter;
pub mod table_name;
pub mod target;
pub mod time;

pub use backup_id::{BackupId, BackupKind};
pub use digest::{Digest, ShortDigest};
pub use lsn::{Lsn, SystemId, TimelineId, Xid};
pub use names::{ClusterName, JobName, PgMajor, RepoName};
pub use pattern::{DatabasePattern, TablePattern};
pub use segment::{SegmentName, SegmentSize, WalFileName};
pub use severity::Severity;
pub use table_filter::TableFilter;
pub use table_name::TableName;
pub use target::{Inclusion, Target, TargetTimeline};
pub use time::Timestamp;
