//! What a role needs for dumps and exports, and the statements that give it.
//!
//! `pg_read_all_data` reads every table, view and sequence, and the roles' passwords; but not past row-level security,
//! and no large objects.

use tokio_postgres::types::Type;

use super::roles::quote_identifier;
use super::session::{QUICK, Session, get};
use super::snapshot::quote_literal;
use crate::error::Result;
use crate::model::PgMajor;

/// Before it, default privileges do not know large objects.
const DEFAULTS_FOR_LARGE_OBJECTS: PgMajor = PgMajor(18);

/// Something that a dump would fail on or leave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingRight {
    /// A clause: "cannot read …".
    pub what: String,
    /// For a superuser.
    pub statement: String,
    /// The database in which it is said; none where that does not matter.
    pub database: Option<String>,
}

impl Session {
    /// What the session's role lacks for dumps, as far as it shows from any database. Empty for a superuser.
    pub async fn missing_for_dumps(&self) -> Result<Vec<MissingRight>> {
        let sql = "SELECT r.rolsuper, r.rolbypassrls, pg_catalog.pg_has_role('pg_read_all_data', 'USAGE') \
                   FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";
        let row = self.row("look at the role's rights", QUICK, sql, &[]).await?;
        let (superuser, bypasses, reads): (bool, bool, bool) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        if superuser {
            return Ok(Vec::new());
        }
        let name = quote_identifier(self.user());
        let mut missing = Vec::new();
        let mut lacks = |what: &str, statement: String| {
            missing.push(MissingRight { what: what.to_owned(), statement, database: None });
        };
        if !reads {
            lacks("the role cannot read every table", format!("GRANT pg_read_all_data TO {name}"));
        }
        if !bypasses {
            lacks("dumps fail on tables with row-level security", format!("ALTER ROLE {name} BYPASSRLS"));
        }
        let sql = "SELECT datname::pg_catalog.text FROM pg_catalog.pg_database \
                   WHERE datallowconn AND NOT datistemplate \
                   AND NOT pg_catalog.has_database_privilege(oid, 'CONNECT') ORDER BY 1";
        for row in self.rows("look at the role's rights", QUICK, sql, &[]).await? {
            let database: String = get(&row, 0)?;
            let statement = format!("GRANT CONNECT ON DATABASE {} TO {name}", quote_identifier(&database));
            lacks(&format!("the role may not connect to database {database}"), statement);
        }
        Ok(missing)
    }

    /// Large objects of this session's database that its role may not read.
    pub async fn unreadable_large_objects(&self, database: &str) -> Result<Option<MissingRight>> {
        let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata m \
                   WHERE NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) \
                   AND NOT pg_catalog.pg_has_role(m.lomowner, 'USAGE') AND NOT EXISTS (\
                     SELECT FROM pg_catalog.aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT' \
                     AND (a.grantee = 0 OR pg_catalog.pg_has_role(a.grantee, 'USAGE')))";
        let row = self.row("look at the large objects", QUICK, sql, &[]).await?;
        let unreadable: i64 = get(&row, 0)?;
        if unreadable == 0 || self.setting("lo_compat_privileges").await?.as_deref() == Some("on") {
            return Ok(None);
        }
        let role = quote_identifier(self.user());
        let mut statement = format!(
            "DO $$ DECLARE o oid; BEGIN FOR o IN SELECT oid FROM pg_catalog.pg_largeobject_metadata LOOP \
             EXECUTE pg_catalog.format('GRANT SELECT ON LARGE OBJECT %s TO %I', o, {}); END LOOP; END $$",
            quote_literal(self.user())
        );
        if self.major() >= DEFAULTS_FOR_LARGE_OBJECTS {
            // Of the role that makes them: whose that is, nobody knows here.
            statement =
                format!("{statement};\nALTER DEFAULT PRIVILEGES GRANT SELECT ON LARGE OBJECTS TO {role}");
        }
        let what = format!("{unreadable} large objects of database {database} cannot be read by the role");
        Ok(Some(MissingRight { what, statement, database: Some(database.to_owned()) }))
    }

    /// Whether this role may read the roles' passwords, as `pg_dumpall` does.
    pub async fn reads_role_passwords(&self) -> Result<bool> {
        let sql = "SELECT pg_catalog.has_table_privilege($1, 'SELECT')";
        let table = "pg_catalog.pg_authid";
        get(&self.row("look at the role's rights", QUICK, sql, &[(&table, Type::TEXT)]).await?, 0)
    }
}
