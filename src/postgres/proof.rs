//! What PostgreSQL's own programs, and the user's own questions, say of an instance that was restored and that nobody
//! else uses. They change it (`pg_amcheck` installs its extension), so they are never asked of production.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::control_file::ControlFile;
use super::privilege::Owner;
use super::roles::quote_identifier;
use super::session::{CopyIn, QUICK, Session, get};
use super::snapshot::quote_literal;
use super::tools::Tools;
use crate::error::{Code, Error, Result};

/// Lines of a program's findings that are kept.
const LINES: usize = 20;
/// A cluster full of damage says a lot.
const LARGEST_OUTPUT: usize = 64 << 20;

/// What a program came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    Sound,
    /// The first lines of what is wrong.
    Damaged(Vec<String>),
    /// It could not be asked, and why.
    Impossible(String),
}

/// `pg_amcheck` of every table and B-tree index in every database, that all rows of a table are in its indexes among it.
pub async fn amcheck(
    tools: &Tools,
    owner: &Owner,
    socket: &Path,
    port: u16,
    superuser: &str,
    within: Duration,
) -> Result<Checked> {
    if tools.optional("pg_amcheck").is_none() {
        return Ok(Checked::Impossible("this build of PostgreSQL has no pg_amcheck".to_owned()));
    }
    let run = tools.run("pg_amcheck", owner, within).limit(LARGEST_OUTPUT);
    let run = run.args(["--all", "--install-missing", "--heapallindexed", "--no-password"]);
    let run =
        run.arg("--host").arg(socket).arg("--port").arg(port.to_string()).arg("--username").arg(superuser);
    let said = run.run().await?;
    if said.status.success() {
        return Ok(Checked::Sound);
    }
    let errors = said.stderr_text().into_owned();
    // 2: damage was found (`pg_amcheck.c`); it is told on standard output.
    if said.status.code() == Some(2) && !said.stdout.is_empty() {
        return Ok(Checked::Damaged(first_lines(&said.stdout_text())));
    }
    if errors.contains("amcheck.control") || errors.contains("extension \"amcheck\" is not available") {
        return Ok(Checked::Impossible("the extension amcheck is not installed on this host".to_owned()));
    }
    Err(Error::new(Code::Tools, format!("pg_amcheck failed ({}): {}", said.status, errors.trim()))
        .at(socket.display()))
}

/// `pg_checksums` over every page of a data directory whose server is down.
pub async fn checksums(tools: &Tools, owner: &Owner, data: &Path, within: Duration) -> Result<Checked> {
    if !ControlFile::read(data)?.data_checksums() {
        return Ok(Checked::Impossible("the cluster has no data checksums".to_owned()));
    }
    if tools.optional("pg_checksums").is_none() {
        return Ok(Checked::Impossible("this build of PostgreSQL has no pg_checksums".to_owned()));
    }
    let run = tools.run("pg_checksums", owner, within).limit(LARGEST_OUTPUT);
    let said = run.arg("--check").arg("-D").arg(data).run().await?;
    if said.status.success() {
        return Ok(Checked::Sound);
    }
    let errors = said.stderr_text();
    let wrong = errors.lines().filter(|line| line.contains("checksum verification failed"));
    let wrong = first_lines(&wrong.collect::<Vec<_>>().join("\n"));
    if wrong.is_empty() {
        let what = format!("pg_checksums failed ({}): {}", said.status, errors.trim());
        return Err(Error::new(Code::Tools, what).at(data.display()));
    }
    Ok(Checked::Damaged(wrong))
}

/// PostgreSQL's own types whose text depends on nothing but the encoding.
const OWN: [&str; 55] = [
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "numeric",
    "boolean",
    "date",
    "time without time zone",
    "time with time zone",
    "timestamp without time zone",
    "timestamp with time zone",
    "text",
    "character varying",
    "character",
    "bpchar",
    "\"char\"",
    "name",
    "uuid",
    "bytea",
    "json",
    "jsonb",
    "jsonpath",
    "tsvector",
    "tsquery",
    "bit",
    "bit varying",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "point",
    "line",
    "lseg",
    "box",
    "path",
    "polygon",
    "circle",
    "oid",
    "xid",
    "xid8",
    "cid",
    "tid",
    "pg_lsn",
    "pg_snapshot",
    "txid_snapshot",
    "oidvector",
    "int2vector",
    "int4range",
    "int8range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "interval",
];
/// Their ranges of ranges.
const MULTI: [&str; 6] =
    ["int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange"];

/// Whether a fresh database of the same encoding reads a column's text exactly as production does: PostgreSQL's own types
/// whose text depends on nothing else. Not those of the user or of an extension, `money` (the locale), `xml` (a choice of
/// who built the server), `reg…` (objects that are not there).
pub fn checkable(type_name: &str) -> bool {
    let name = type_name.strip_suffix("[]").unwrap_or(type_name);
    // Its length, precision or fields.
    let plain = match (name.split_once('('), name.split_once(')')) {
        (Some((head, _)), Some((_, tail))) => format!("{head}{tail}"),
        _ => name.to_owned(),
    };
    let plain = plain.trim();
    plain.starts_with("interval ") || OWN.contains(&plain) || MULTI.contains(&plain)
}

fn first_lines(text: &str) -> Vec<String> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut kept: Vec<String> = lines.by_ref().take(LINES).map(str::to_owned).collect();
    match lines.count() {
        0 => {}
        more => kept.push(format!("… and {more} more lines")),
    }
    kept
}

impl Session {
    /// `committed`, `aborted` or `in progress`; none for a transaction that the server knows nothing of. A number is that of
    /// the newest transaction that has it.
    pub async fn transaction_status(&self, xid: u32) -> Result<Option<String>> {
        let sql = "SELECT pg_catalog.pg_xact_status((newest - newest % 4294967296 + $1 \
                   - CASE WHEN $1 > newest % 4294967296 THEN 4294967296 ELSE 0 END)::pg_catalog.text::pg_catalog.xid8) \
                   FROM (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::pg_catalog.text::pg_catalog.int8 \
                   AS newest) AS snapshot WHERE newest >= $1";
        let rows = self.rows("ask for a transaction", QUICK, sql, &[(&i64::from(xid), Type::INT8)]).await?;
        rows.first().map_or(Ok(None), |row| get(row, 0))
    }

    /// Begins to load a CSV with a header into a table that only this session sees. `columns`: names, and types as
    /// `format_type` says them; PostgreSQL reads each value as its type where it is [`checkable`], else as text.
    pub async fn copy_of_columns(&self, columns: &[(&str, &str)], encoding: &str) -> Result<CopyIn<'_>> {
        let column = |(name, type_name): &(&str, &str)| {
            let type_name = if checkable(type_name) { type_name } else { "text" };
            format!("{} {type_name}", quote_identifier(name))
        };
        let all: Vec<String> = columns.iter().map(column).collect();
        let make = format!(
            "DROP TABLE IF EXISTS pg_temp.loaded; CREATE TEMPORARY TABLE loaded ({})",
            all.join(", ")
        );
        self.batch("make a table for the export", QUICK, &make).await?;
        let encoding = quote_literal(encoding);
        let copy = format!("COPY pg_temp.loaded FROM STDIN (FORMAT csv, HEADER, ENCODING {encoding})");
        self.copy_in("load the export", &copy, QUICK).await
    }

    /// What a statement of the user's says: one row, one value, of type boolean. `None` is SQL's null.
    pub async fn assertion(&self, sql: &str, within: Duration) -> Result<Option<bool>> {
        // As anybody else who connects to this database would ask it: our own sessions see no schema by themselves.
        let own = "RESET search_path; RESET \"TimeZone\"; RESET \"DateStyle\"";
        self.batch("take the database's own settings", QUICK, own).await?;
        let rows = self.rows("ask the assertion", within, sql, &[]).await?;
        let [row] = rows.as_slice() else {
            return Err(not_one_truth(format!("it gave {} rows", rows.len())));
        };
        match row.columns() {
            [column] if *column.type_() == Type::BOOL => get(row, 0),
            [column] => Err(not_one_truth(format!("it gave a value of type {}", column.type_()))),
            columns => Err(not_one_truth(format!("it gave {} values", columns.len()))),
        }
    }
}

fn not_one_truth(what: String) -> Error {
    Error::new(Code::Sql, what)
        .hint("`sql` of an [[assertion]] is one statement that gives one boolean, such as select count(*) > 0 from users")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_themselves_where_nothing_else_matters_to_their_text() {
        for own in [
            "integer",
            "integer[]",
            "character varying(10)",
            "character varying(10)[]",
            "numeric(10,2)",
            "timestamp(3) with time zone",
            "interval day to second(3)",
            "\"char\"",
            "jsonb",
            "bit(8)",
            "nummultirange",
        ] {
            assert!(checkable(own), "{own}");
        }
        for other in [
            "money",
            "xml",
            "regclass",
            "mood",
            "app.mood[]",
            "\"text \"",
            "postgis.geometry(Point,4326)",
            "",
        ] {
            assert!(!checkable(other), "{other}");
        }
    }

    #[test]
    fn the_first_lines_say_how_many_follow() {
        let lines: Vec<String> = (0..LINES + 3).map(|n| format!("  line {n}")).collect();
        let text = lines.join("\n\n");
        let kept = first_lines(&text);
        assert_eq!((kept.len(), kept[0].as_str()), (LINES + 1, "line 0"));
        assert_eq!(kept[LINES], "… and 3 more lines");
        assert_eq!(first_lines("\n \n"), Vec::<String>::new());
    }
}
