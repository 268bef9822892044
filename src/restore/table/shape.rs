//! Do rows of then fit into the table of now? Pure.

use crate::postgres::tables::TableFacts;
use crate::postgres::user_tables::Column;

/// What stands in the way, and what does not but must be said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Values of then have no place now.
    pub fatal: Vec<String>,
    /// Columns of now that had no values then, and that fill themselves.
    pub new_columns: Vec<String>,
}

pub fn compare(then: &TableFacts, now: &TableFacts) -> Differences {
    let mut differences = Differences::default();
    for column in then.copied() {
        match now.columns.iter().find(|c| c.name == column.name) {
            None => differences.fatal.push(format!("column {} ({}) is gone", column.name, column.type_name)),
            Some(found) if found.type_name != column.type_name => {
                let what =
                    format!("column {} was {} and is {}", column.name, column.type_name, found.type_name);
                differences.fatal.push(what);
            }
            Some(found) if found.generated => {
                differences.fatal.push(format!("column {} is generated now", column.name));
            }
            Some(_) => {}
        }
    }
    let new = now.copied().filter(|c| !then.columns.iter().any(|t| t.name == c.name && !t.generated));
    for column in new {
        if fills_itself(column) {
            differences.new_columns.push(format!("{} ({})", column.name, column.type_name));
        } else {
            differences.fatal.push(format!("column {} is new, without a default and NOT NULL", column.name));
        }
    }
    differences
}

fn fills_itself(column: &Column) -> bool {
    column.filled || !column.not_null
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableName;
    use crate::postgres::tables::TableKind;

    fn column(name: &str, kind: &str) -> Column {
        Column {
            name: name.into(),
            type_name: kind.into(),
            identity: false,
            generated: false,
            not_null: true,
            filled: false,
        }
    }
    fn table(columns: Vec<Column>) -> TableFacts {
        TableFacts {
            oid: 1,
            name: TableName::new("app", "t"),
            kind: TableKind::Plain,
            unlogged: false,
            owner: "app".into(),
            columns,
            parents: Vec::new(),
            is_partition: false,
            forces_row_security: false,
        }
    }

    #[test]
    fn the_order_of_columns_and_generated_ones_do_not_matter() {
        let sum = Column { generated: true, ..column("sum", "integer") };
        let then = table(vec![column("id", "integer"), column("note", "text"), sum]);
        let now = table(vec![column("note", "text"), column("id", "integer")]);
        assert_eq!(compare(&then, &now), Differences::default());
    }

    #[test]
    fn a_value_without_a_place_is_fatal() {
        let then = table(vec![column("id", "integer"), column("note", "text"), column("gone", "text")]);
        let now = table(vec![
            column("id", "bigint"),
            Column { generated: true, ..column("note", "text") },
            column("new", "text"),
        ]);
        assert_eq!(compare(&then, &now).fatal.len(), 4);
    }

    #[test]
    fn a_new_column_that_fills_itself_is_said_and_no_more() {
        let then = table(vec![column("id", "integer")]);
        let now = table(vec![
            column("id", "integer"),
            Column { filled: true, ..column("at", "timestamp with time zone") },
            Column { not_null: false, ..column("note", "text") },
        ]);
        let found = compare(&then, &now);
        assert!(found.fatal.is_empty());
        assert_eq!(found.new_columns, ["at (timestamp with time zone)", "note (text)"]);
    }
}
