//! `pg_dump`'s statements, made fit for a transaction of ours. Pure.

/// Without the lines that only `psql` understands, and without the reset of our lock timeout.
///
/// Minor releases since August 2025 write `\restrict KEY` first and `\unrestrict KEY` last; a line of a function's body
/// or a comment that looks alike stays.
pub fn for_transaction(dumped: &str) -> String {
    let key = dumped.lines().find_map(|line| line.strip_prefix("\\restrict "));
    let meta = |line: &str| {
        key.is_some_and(|key| {
            line.strip_prefix("\\restrict ") == Some(key) || line.strip_prefix("\\unrestrict ") == Some(key)
        })
    };
    let mut reset = false;
    let mut kept = String::with_capacity(dumped.len());
    for line in dumped.split_inclusive('\n') {
        let bare = line.trim_end_matches('\n');
        if meta(bare) {
            continue;
        }
        if !reset && bare == "SET lock_timeout = 0;" {
            reset = true;
            continue;
        }
        kept.push_str(line);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_psql_understands_is_left_out_and_nothing_else() {
        let dumped = "--\n\\restrict abc\nSET statement_timeout = 0;\nSET lock_timeout = 0;\n\
            COMMENT ON TABLE a.b IS '\n\\restrict other\nSET lock_timeout = 0;\n';\n\\unrestrict abc\n";
        assert_eq!(
            for_transaction(dumped),
            "--\nSET statement_timeout = 0;\nCOMMENT ON TABLE a.b IS '\n\\restrict other\nSET lock_timeout = 0;\n';\n"
        );
        assert_eq!(for_transaction("CREATE TABLE a ();"), "CREATE TABLE a ();");
    }
}
