//! What looks at tables from outside and goes away when they are dropped with `CASCADE`: views, publications, others.

use tokio_postgres::types::Type;

use super::links::name;
use crate::error::{Code, Result};
use crate::model::TableName;
use crate::postgres::session::{QUICK, Session, get};

/// Catalogs with very many constraints take their time.
const LOOK: std::time::Duration = QUICK;

/// A view (or a materialised one) that reads a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependent {
    pub name: TableName,
    pub materialised: bool,
    pub reads: TableName,
    /// Its `SELECT`.
    pub definition: String,
}

/// Something else that depends on a table: a policy of another table, a function, a column of its row type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherDependent {
    /// As PostgreSQL names it for people.
    pub description: String,
    /// As `pg_identify_object_as_address` has it: the same in every database.
    kind: String,
    names: Vec<String>,
    arguments: Vec<String>,
}

impl Session {
    /// Views that read these tables directly.
    pub async fn dependent_views(&self, tables: &[u32]) -> Result<Vec<Dependent>> {
        let sql = "SELECT DISTINCT vn.nspname::pg_catalog.text, v.relname::pg_catalog.text, v.relkind = 'm', \
                   tn.nspname::pg_catalog.text, t.relname::pg_catalog.text, pg_catalog.pg_get_viewdef(v.oid) \
                   FROM pg_catalog.pg_depend d \
                   JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid JOIN pg_catalog.pg_class v ON v.oid = r.ev_class \
                   JOIN pg_catalog.pg_namespace vn ON vn.oid = v.relnamespace \
                   JOIN pg_catalog.pg_class t ON t.oid = d.refobjid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
                   WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
                   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND v.relkind IN ('v', 'm') \
                   AND d.refobjid = ANY ($1) ORDER BY 1, 2";
        let rows = self.rows("list the views", LOOK, sql, &[(&tables, Type::OID_ARRAY)]).await?;
        let view = |row| -> Result<Dependent> {
            Ok(Dependent {
                name: name(row, 0)?,
                materialised: get(row, 2)?,
                reads: name(row, 3)?,
                definition: get(row, 5)?,
            })
        };
        rows.iter().map(view).collect()
    }

    /// Publications that carry changes of these tables to other servers.
    pub async fn publications_of(&self, tables: &[u32]) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT p.pubname::pg_catalog.text FROM pg_catalog.pg_publication_tables p \
                   JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname \
                   JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
                   WHERE c.oid = ANY ($1) ORDER BY 1";
        let rows = self.rows("list the publications", LOOK, sql, &[(&tables, Type::OID_ARRAY)]).await?;
        rows.iter().map(|row| get(row, 0)).collect()
    }

    /// Which of these tables are named in which publications (not those of all tables or of a schema).
    pub async fn named_in_publications(&self, tables: &[u32]) -> Result<Vec<(TableName, String)>> {
        let sql = "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, p.pubname::pg_catalog.text \
                   FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid \
                   JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE c.oid = ANY ($1) ORDER BY 1, 2, 3";
        let rows = self.rows("list the publications", LOOK, sql, &[(&tables, Type::OID_ARRAY)]).await?;
        rows.iter().map(|row| Ok((name(row, 0)?, get(row, 2)?))).collect()
    }

    /// True when the publication is there and does not name the table.
    pub async fn left_out_of(&self, publication: &str, table: u32) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_publication p WHERE p.pubname = $1 AND NOT p.puballtables \
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $2))";
        let arguments = [(&publication as _, Type::TEXT), (&table as _, Type::OID)];
        get(&self.row("look at the publication", LOOK, sql, &arguments).await?, 0)
    }

    /// Whatever depends on these tables or on their row types, but views and foreign keys.
    pub async fn other_dependents(&self, tables: &[u32]) -> Result<Vec<OtherDependent>> {
        let sql = "SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), i.type, \
                   i.object_names, i.object_args FROM pg_catalog.pg_depend d CROSS JOIN LATERAL \
                   pg_catalog.pg_identify_object_as_address(d.classid, d.objid, d.objsubid) i \
                   WHERE d.deptype = 'n' AND (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                     AND d.refobjid = ANY ($1) OR d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid IN \
                     (SELECT unnest(ARRAY[t.oid, t.typarray]) FROM pg_catalog.pg_type t WHERE t.typrelid = ANY ($1))) \
                   AND NOT (d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND EXISTS (SELECT FROM \
                     pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm') \
                     WHERE r.oid = d.objid)) \
                   AND NOT (d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND EXISTS (SELECT FROM \
                     pg_catalog.pg_constraint k WHERE k.oid = d.objid AND k.contype = 'f')) ORDER BY 1";
        let rows = self.rows("list the dependents", LOOK, sql, &[(&tables, Type::OID_ARRAY)]).await?;
        let other = |row| -> Result<OtherDependent> {
            Ok(OtherDependent {
                description: get(row, 0)?,
                kind: get(row, 1)?,
                names: get(row, 2)?,
                arguments: get(row, 3)?,
            })
        };
        rows.iter().map(other).collect()
    }

    /// Inside a transaction, which goes on whatever the answer.
    pub async fn object_exists(&self, object: &OtherDependent) -> Result<bool> {
        let sql = "SELECT objid FROM pg_catalog.pg_get_object_address($1, $2, $3)";
        let arguments = [
            (&object.kind as _, Type::TEXT),
            (&object.names as _, Type::TEXT_ARRAY),
            (&object.arguments as _, Type::TEXT_ARRAY),
        ];
        self.batch("set a savepoint", QUICK, "SAVEPOINT pgkeep_look").await?;
        let found = self.row("look for a dependent", LOOK, sql, &arguments).await;
        self.batch("go back to the savepoint", QUICK, "ROLLBACK TO SAVEPOINT pgkeep_look").await?;
        match found {
            Ok(_) => Ok(true),
            // It is an error there to ask for what does not exist.
            Err(e) if matches!(e.code(), Code::Sql | Code::NoTable) && !self.is_lost() => Ok(false),
            Err(e) => Err(e),
        }
    }
}
