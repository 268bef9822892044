//! The least-privilege role for backups: what it needs on each major, as SQL, and what the role at hand lacks.
//!
//! `GRANT … ON FUNCTION` counts in the database where it is said: the connection's own (`postgres` by default).

use tokio_postgres::types::Type;

use super::session::{QUICK, Session, get};
use crate::error::Result;
use crate::model::PgMajor;

/// Functions that a backup, `check` and the guard call and that are closed to the public.
fn functions(major: PgMajor) -> Vec<&'static str> {
    let mut functions = if major.0 >= 15 {
        vec!["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"]
    } else {
        vec!["pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"]
    };
    functions.extend(["pg_switch_wal()", "pg_create_restore_point(text)"]);
    functions
}

/// Roles that the backup role is a member of.
fn memberships(major: PgMajor) -> Vec<&'static str> {
    let mut roles = vec!["pg_monitor"];
    if major.0 >= 15 {
        roles.push("pg_checkpoint");
    }
    roles
}

/// Statements that make the role and give it what it needs; a superuser runs them, in the connection's database.
pub fn create_role(major: PgMajor, role: &str) -> Vec<String> {
    let name = quote_identifier(role);
    std::iter::once(format!("CREATE ROLE {name} LOGIN")).chain(grants(major, role)).collect()
}

/// The grants alone, for a role that exists.
pub fn grants(major: PgMajor, role: &str) -> Vec<String> {
    let name = quote_identifier(role);
    let memberships = memberships(major).into_iter().map(|m| format!("GRANT {m} TO {name}"));
    let functions =
        functions(major).into_iter().map(|f| format!("GRANT EXECUTE ON FUNCTION pg_catalog.{f} TO {name}"));
    memberships.chain(functions).collect()
}

/// What to do when a right is missing.
pub(super) fn hint(major: PgMajor, role: &str) -> String {
    format!("as a superuser, in the same database: {}", grants(major, role).join("; "))
}

impl Session {
    /// The statements that give the current role what it still lacks; empty when nothing is missing.
    pub async fn missing_grants(&self) -> Result<Vec<String>> {
        let name = quote_identifier(self.user());
        let mut missing = Vec::new();
        for role in memberships(self.major()) {
            let sql = "SELECT pg_catalog.pg_has_role($1, 'USAGE')";
            let row = self.row("look at the role's rights", QUICK, sql, &[(&role, Type::TEXT)]).await?;
            if !get::<bool>(&row, 0)? {
                missing.push(format!("GRANT {role} TO {name}"));
            }
        }
        for function in functions(self.major()) {
            let full = format!("pg_catalog.{function}");
            let sql = "SELECT pg_catalog.has_function_privilege($1, 'EXECUTE')";
            let row = self.row("look at the role's rights", QUICK, sql, &[(&full, Type::TEXT)]).await?;
            if !get::<bool>(&row, 0)? {
                missing.push(format!("GRANT EXECUTE ON FUNCTION {full} TO {name}"));
            }
        }
        Ok(missing)
    }

    pub async fn role_exists(&self, role: &str) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)";
        get(&self.row("look for the role", QUICK, sql, &[(&role, Type::TEXT)]).await?, 0)
    }

    /// Makes the role if it does not exist, and gives it what it needs. For a superuser.
    pub async fn ensure_role(&self, role: &str) -> Result<()> {
        let statements = if self.role_exists(role).await? {
            grants(self.major(), role)
        } else {
            create_role(self.major(), role)
        };
        self.batch("make the role", QUICK, &statements.join(";\n")).await
    }
}

/// `"pg""keep"`, always quoted.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_major_gets_the_functions_that_it_has() {
        assert_eq!(
            create_role(PgMajor(14), "pgkeep"),
            [
                "CREATE ROLE \"pgkeep\" LOGIN",
                "GRANT pg_monitor TO \"pgkeep\"",
                "GRANT EXECUTE ON FUNCTION pg_catalog.pg_start_backup(text, boolean, boolean) TO \"pgkeep\"",
                "GRANT EXECUTE ON FUNCTION pg_catalog.pg_stop_backup(boolean, boolean) TO \"pgkeep\"",
                "GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO \"pgkeep\"",
                "GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO \"pgkeep\"",
            ]
        );
        let newer = create_role(PgMajor(18), "pgkeep");
        assert!(newer.contains(&"GRANT pg_checkpoint TO \"pgkeep\"".to_owned()));
        assert!(newer.iter().any(|s| s.contains("pg_catalog.pg_backup_start(text, boolean)")));
    }

    #[test]
    fn a_roles_name_cannot_become_sql() {
        assert_eq!(quote_identifier("a\"; DROP"), "\"a\"\"; DROP\"");
    }
}
