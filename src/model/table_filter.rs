//! Which rows of which tables: `TABLE=CONDITION`, on the command line and in the configuration.

use super::TablePattern;

/// Only some rows of some tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFilter {
    pub tables: TablePattern,
    /// What stands after `WHERE`.
    pub condition: String,
}

impl TableFilter {
    /// `TABLE=CONDITION`; an equals sign of the table's name stands between quotes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut quoted = false;
        let at = text.find(|c| {
            quoted ^= c == '"';
            c == '=' && !quoted
        })?;
        let condition = text[at + 1..].trim();
        let tables = TablePattern::parse(&text[..at])?;
        (!condition.is_empty()).then(|| Self { tables, condition: condition.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_split_at_the_first_equals_sign_outside_quotes() {
        let parse = |text| TableFilter::parse(text).map(|f| (f.tables.to_string(), f.condition));
        assert_eq!(parse("users=id = 7"), Some(("users".into(), "id = 7".into())));
        assert_eq!(parse("\"a=b\".* = x"), Some(("\"a=b\".*".into(), "x".into())));
        for wrong in ["users", "users=", "=x", "\"a=b"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
