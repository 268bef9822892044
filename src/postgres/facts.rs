//! What a server says about itself: version, identity, places, settings, tablespaces.
//!
//! Works with `pg_monitor` (or `pg_read_all_settings`): `pg_control_*` functions are open to everybody, the places
//! of files are not. What is missing is an error that names the `GRANT`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use tokio_postgres::types::Type;

use super::session::{QUICK, Session, get, raw_bytes};
use crate::error::{Code, Error, Result};
use crate::model::{PgMajor, SegmentSize, SystemId, TimelineId};

/// A tablespace besides `pg_default` and `pg_global`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceFact {
    pub oid: u32,
    pub name: String,
    /// Absolute; for an in-place tablespace the relative `pg_tblspc/<oid>`.
    pub location: PathBuf,
}

impl TablespaceFact {
    pub fn is_in_place(&self) -> bool {
        self.location.is_relative()
    }
}

/// A moment's view of one server.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    pub version_num: u32,
    pub major: PgMajor,
    /// As `server_version` prints it, with the packager's words.
    pub version_text: String,
    pub system_identifier: SystemId,
    pub catalog_version: u32,
    pub data_directory: PathBuf,
    pub config_file: PathBuf,
    pub hba_file: PathBuf,
    pub ident_file: PathBuf,
    pub port: u16,
    pub socket_dirs: Vec<PathBuf>,
    pub in_recovery: bool,
    /// The timeline being written (primary) or replayed (standby).
    pub timeline: TimelineId,
    pub wal_segment_size: SegmentSize,
    pub block_bytes: u32,
    /// Blocks in one file of a relation (131072 unless the server was built otherwise).
    pub blocks_per_segment: u32,
    pub wal_block_bytes: u32,
    pub data_checksums: bool,
    pub tablespaces: Vec<TablespaceFact>,
    pub is_superuser: bool,
    pub user: String,
    pub backend_pid: i32,
    /// The address that this session came in at; none through a socket.
    pub server_address: Option<String>,
    /// Every setting that the role may see, as `pg_settings` has it (base unit).
    pub settings: BTreeMap<String, String>,
}

/// The settings that a standby or a recovered copy must not have lower than the primary.
pub const STANDBY_SETTINGS: [&str; 5] = [
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
];

impl ServerFacts {
    /// A setting as `pg_settings.setting` has it; empty when it is unset or hidden.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }
    fn is_on(&self, name: &str) -> bool {
        self.setting(name) == "on"
    }
    /// `off`, `on` or `always`.
    pub fn archive_mode(&self) -> &str {
        self.setting("archive_mode")
    }
    pub fn archive_command(&self) -> &str {
        match self.setting("archive_command") {
            "(disabled)" => "",
            command => command,
        }
    }
    pub fn archive_library(&self) -> &str {
        self.setting("archive_library")
    }
    pub fn archive_timeout_seconds(&self) -> u64 {
        self.setting("archive_timeout").parse().unwrap_or(0)
    }
    pub fn wal_level(&self) -> &str {
        self.setting("wal_level")
    }
    pub fn full_page_writes(&self) -> bool {
        self.is_on("full_page_writes")
    }
    pub fn hot_standby(&self) -> bool {
        self.is_on("hot_standby")
    }
    /// [`STANDBY_SETTINGS`] with their values.
    pub fn standby_settings(&self) -> BTreeMap<String, String> {
        STANDBY_SETTINGS.iter().map(|name| ((*name).to_owned(), self.setting(name).to_owned())).collect()
    }
    /// `PG_18_202506291`: the directory inside each tablespace that belongs to this server.
    pub fn tablespace_version_directory(&self) -> String {
        format!("PG_{}_{}", self.major, self.catalog_version)
    }
}

/// The timeline being written, or on a standby the one being replayed, as `int8`. A standby's own control file knows the
/// timeline of its minimum recovery point; the checkpoint's may be older.
pub(super) const TIMELINE: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN greatest( \
    (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), \
    (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()))::pg_catalog.int8 \
    ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name( \
    pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::pg_catalog.bit(32)::pg_catalog.int8 END";

impl Session {
    /// Asks the server what it is.
    pub async fn facts(&self) -> Result<ServerFacts> {
        let raw = self.settings().await?;
        let place = |name: &str| -> Result<PathBuf> {
            let bytes = raw.get(name).ok_or_else(|| self.hidden(name))?;
            Ok(PathBuf::from(OsString::from_vec(bytes.clone())))
        };
        let settings: BTreeMap<String, String> =
            raw.iter().map(|(k, v)| (k.clone(), String::from_utf8_lossy(v).into_owned())).collect();
        let identity = self.identity().await?;
        let sockets = place("unix_socket_directories")?.into_os_string().into_vec();
        let socket_dirs =
            split_list(&sockets).into_iter().map(|b| PathBuf::from(OsString::from_vec(b))).collect();
        Ok(ServerFacts {
            version_num: self.version_num(),
            major: self.major(),
            version_text: settings.get("server_version").cloned().unwrap_or_default(),
            system_identifier: self.system_identifier().await?,
            catalog_version: identity.catalog_version,
            data_directory: place("data_directory")?,
            config_file: place("config_file")?,
            hba_file: place("hba_file")?,
            ident_file: place("ident_file")?,
            port: settings.get("port").and_then(|p| p.parse().ok()).unwrap_or(5432),
            socket_dirs,
            in_recovery: identity.in_recovery,
            timeline: self.timeline().await?,
            wal_segment_size: identity.wal_segment_size,
            block_bytes: identity.block_bytes,
            blocks_per_segment: identity.blocks_per_segment,
            wal_block_bytes: identity.wal_block_bytes,
            data_checksums: identity.data_checksums,
            tablespaces: self.tablespaces().await?,
            is_superuser: identity.is_superuser,
            user: self.user().to_owned(),
            backend_pid: self.backend_pid(),
            server_address: identity.server_address,
            settings,
        })
    }

    /// The timeline being written, or on a standby the one being replayed.
    pub async fn timeline(&self) -> Result<TimelineId> {
        let id: i64 = self.value("ask for the timeline", &format!("SELECT {TIMELINE}")).await?;
        u32::try_from(id)
            .ok()
            .filter(|id| *id > 0)
            .map(TimelineId)
            .ok_or_else(|| Error::new(Code::Sql, format!("{id} is no timeline")).at(self.place()))
    }

    /// All tablespaces but the two built-in ones, by oid.
    pub async fn tablespaces(&self) -> Result<Vec<TablespaceFact>> {
        let sql = concat!(
            "SELECT oid, spcname::pg_catalog.text, ",
            raw_bytes!("pg_catalog.pg_tablespace_location(oid)"),
            " FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid"
        );
        let rows = self.rows("list the tablespaces", QUICK, sql, &[]).await?;
        rows.iter()
            .map(|row| {
                let location: Vec<u8> = get(row, 2)?;
                Ok(TablespaceFact {
                    oid: get(row, 0)?,
                    name: get(row, 1)?,
                    location: PathBuf::from(OsString::from_vec(location)),
                })
            })
            .collect()
    }

    async fn settings(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let sql = concat!(
            "SELECT name, ",
            raw_bytes!("setting"),
            " FROM pg_catalog.pg_settings WHERE setting IS NOT NULL"
        );
        let rows = self.rows("read the settings", QUICK, sql, &[]).await?;
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    }

    fn hidden(&self, setting: &str) -> Error {
        Error::new(Code::NotReady, format!("this role may not see the setting `{setting}`"))
            .at(self.place())
            .hint(format!(
                "as a superuser: GRANT pg_read_all_settings TO {} (or pg_monitor, which contains it)",
                super::roles::quote_identifier(self.user())
            ))
    }

    async fn identity(&self) -> Result<Identity> {
        let sql = "SELECT s.catalog_version_no, i.bytes_per_wal_segment, i.database_block_size, i.blocks_per_segment, \
                   i.wal_block_size, i.data_page_checksum_version, pg_catalog.pg_is_in_recovery(), \
                   (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), \
                   pg_catalog.host(pg_catalog.inet_server_addr()) \
                   FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_init() i";
        let row = self.rows("ask the server what it is", QUICK, sql, NO_PARAMETERS).await?.pop();
        let row =
            row.ok_or_else(|| Error::new(Code::Sql, "the server does not say what it is").at(self.place()))?;
        let number = |column: usize| -> Result<u32> {
            let signed: i32 = get(&row, column)?;
            u32::try_from(signed)
                .map_err(|_| Error::new(Code::Sql, "the server says an impossible number").at(self.place()))
        };
        let segment = number(1)?;
        Ok(Identity {
            catalog_version: number(0)?,
            wal_segment_size: SegmentSize::new(segment)
                .ok_or_else(|| Error::new(Code::Sql, format!("{segment} is no WAL segment size")))?,
            block_bytes: number(2)?,
            blocks_per_segment: number(3)?,
            wal_block_bytes: number(4)?,
            data_checksums: number(5)? > 0,
            in_recovery: get(&row, 6)?,
            is_superuser: get(&row, 7)?,
            server_address: get(&row, 8)?,
        })
    }
}

const NO_PARAMETERS: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)] = &[];

struct Identity {
    catalog_version: u32,
    wal_segment_size: SegmentSize,
    block_bytes: u32,
    blocks_per_segment: u32,
    wal_block_bytes: u32,
    data_checksums: bool,
    in_recovery: bool,
    is_superuser: bool,
    server_address: Option<String>,
}

/// `a, "b, c"`: PostgreSQL's lists of directories (`SplitDirectoriesString` in varlena.c).
fn split_list(text: &[u8]) -> Vec<Vec<u8>> {
    let (mut items, mut item, mut quoted) = (Vec::new(), Vec::new(), false);
    let mut bytes = text.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        match b {
            b'"' if quoted && bytes.peek() == Some(&b'"') => {
                item.push(b'"');
                bytes.next();
            }
            b'"' => quoted = !quoted,
            b',' if !quoted => items.push(std::mem::take(&mut item)),
            b => item.push(b),
        }
    }
    items.push(item);
    items.into_iter().map(|i| i.trim_ascii().to_vec()).filter(|i| !i.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_directories_are_split_at_commas_outside_quotes() {
        let split = |text: &str| {
            split_list(text.as_bytes()).into_iter().map(|b| String::from_utf8(b).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(split("/tmp, /var/run/postgresql"), ["/tmp", "/var/run/postgresql"]);
        assert_eq!(split(r#""/a, b",/c"#), ["/a, b", "/c"]);
        assert_eq!(split(""), Vec::<String>::new());
    }
}
