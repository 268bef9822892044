//! Patterns that choose databases and tables by name: `*` is any number of characters, `?` is one.
//!
//! Text between double quotes is taken as it is. Of tables, what is not quoted is folded to lower case, as SQL does;
//! databases are named as `psql -l` shows them.

use std::fmt;

/// Chooses databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabasePattern {
    text: String,
    name: Glob,
}

/// Chooses tables; without a schema, in any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePattern {
    text: String,
    schema: Option<Glob>,
    name: Glob,
}

/// What one name must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob(Vec<Piece>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Char(char),
    /// `?`
    One,
    /// `*`
    Any,
}

impl Glob {
    fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // Where to go on when what follows the last `*` does not fit: one character later.
        let (mut at, mut piece, mut again) = (0, 0, None);
        while at < name.len() {
            match self.0.get(piece) {
                Some(Piece::Any) => {
                    again = Some((at, piece));
                    piece += 1;
                    continue;
                }
                Some(Piece::One) => {}
                Some(Piece::Char(c)) if *c == name[at] => {}
                _ => {
                    let Some((from, star)) = again else { return false };
                    again = Some((from + 1, star));
                    (at, piece) = (from + 1, star + 1);
                    continue;
                }
            }
            at += 1;
            piece += 1;
        }
        self.0[piece.min(self.0.len())..].iter().all(|rest| *rest == Piece::Any)
    }

    fn is_exact(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Char(_)))
    }
}

/// Splits at dots outside quotes; None for an unfinished quote or an empty part.
fn parts(text: &str, fold: bool, dots: bool) -> Option<Vec<Glob>> {
    let mut parts = vec![Vec::new()];
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = parts.last_mut()?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                last.push(Piece::Char('"'));
            }
            '"' => quoted = !quoted,
            c if quoted => last.push(Piece::Char(c)),
            '*' => last.push(Piece::Any),
            '?' => last.push(Piece::One),
            '.' if dots => parts.push(Vec::new()),
            // PostgreSQL folds ASCII alone where a character may have several bytes.
            c => last.push(Piece::Char(if fold { c.to_ascii_lowercase() } else { c })),
        }
    }
    let whole = !quoted && parts.iter().all(|part| !part.is_empty());
    whole.then(|| parts.into_iter().map(Glob).collect())
}

impl DatabasePattern {
    pub fn parse(text: &str) -> Option<Self> {
        let name = parts(text, false, false)?.pop()?;
        Some(Self { text: text.to_owned(), name })
    }
    pub fn matches(&self, database: &str) -> bool {
        self.name.matches(database)
    }
    /// It can choose no more than one.
    pub fn is_exact(&self) -> bool {
        self.name.is_exact()
    }
}

impl TablePattern {
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = parts(text.trim(), true, true)?;
        let name = parts.pop()?;
        let schema = parts.pop();
        parts.is_empty().then(|| Self { text: text.trim().to_owned(), schema, name })
    }
    pub fn matches(&self, schema: &str, name: &str) -> bool {
        self.schema.as_ref().is_none_or(|s| s.matches(schema)) && self.name.matches(name)
    }
    /// No wildcard in the table's own name: what it chooses was meant.
    pub fn is_exact(&self) -> bool {
        self.name.is_exact()
    }
}

/// As it was given.
impl fmt::Display for DatabasePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// As it was given.
impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(pattern: &str, schema: &str, name: &str) -> bool {
        TablePattern::parse(pattern).unwrap().matches(schema, name)
    }

    #[test]
    fn a_table_is_chosen_as_sql_would_read_its_name() {
        assert!(table("users", "public", "users") && table("Users", "app", "users"));
        assert!(!table("\"Users\"", "app", "users") && table("\"Users\"", "app", "Users"));
        assert!(table("app.*", "app", "x") && !table("app.*", "other", "x"));
        assert!(table("audit_20??", "public", "audit_2026") && !table("audit_20??", "public", "audit_206"));
        assert!(table("\"a.b\".\"c\"\"*\"", "a.b", "c\"*") && !table("\"a.b\".\"c*\"", "a.b", "cd"));
        assert!(table("*o*o", "public", "foo") && !table("*o*o", "public", "fo"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", ".", "a.", ".a", "a.b.c", "\"a", "\"\""] {
            assert!(TablePattern::parse(text).is_none(), "{text}");
        }
        assert!(DatabasePattern::parse("").is_none());
    }

    #[test]
    fn databases_are_named_as_they_are() {
        let pattern = |text| DatabasePattern::parse(text).unwrap();
        assert!(pattern("App.*").matches("App.1") && !pattern("app*").matches("App"));
        assert!(pattern("\"a*\"").matches("a*") && !pattern("\"a*\"").matches("ab"));
        assert!(pattern("a").is_exact() && pattern("\"*\"").is_exact() && !pattern("a?").is_exact());
    }

    proptest! {
        #[test]
        fn a_quoted_name_chooses_itself_alone(name in "[a-zA-Z.\"*? ü]{1,12}", other in "[a-zA-Z.\"*? ü]{1,12}") {
            let pattern = TablePattern::parse(&format!("\"{}\"", name.replace('"', "\"\""))).unwrap();
            prop_assert!(pattern.matches("s", &name));
            prop_assert_eq!(pattern.matches("s", &other), name == other);
        }
    }
}
