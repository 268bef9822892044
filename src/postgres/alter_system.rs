//! Settings changed through SQL, for superusers.

use super::roles::quote_identifier;
use super::session::{QUICK, Session, get};
use crate::error::Result;

impl Session {
    /// `ALTER SYSTEM SET name = 'value'`; in force after [`Session::reload`] or a restart.
    pub async fn alter_system(&self, name: &str, value: &str) -> Result<()> {
        let sql = format!("ALTER SYSTEM SET {} = {}", quote_identifier(name), quote_literal(value));
        self.batch(&format!("set {name}"), QUICK, &sql).await
    }

    /// Makes the server read its configuration again.
    pub async fn reload(&self) -> Result<()> {
        self.batch("reload the configuration", QUICK, "SELECT pg_catalog.pg_reload_conf()").await
    }

    /// Settings that have been changed and wait for a restart.
    pub async fn pending_restart(&self) -> Result<Vec<String>> {
        let sql = "SELECT name FROM pg_catalog.pg_settings WHERE pending_restart ORDER BY name";
        let rows = self.rows("ask what waits for a restart", QUICK, sql, &[]).await?;
        rows.iter().map(|row| get(row, 0)).collect()
    }
}

/// `E'…'`: means the same whatever `standard_conforming_strings` is.
fn quote_literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_become_sql() {
        assert_eq!(quote_literal(r"a'b\"), r"E'a''b\\'");
    }
}
