//! Roles and tablespaces: which ones a dump needs, which of them the server lacks, and the statements that make those
//! alone. What exists is never altered.

use std::collections::BTreeSet;
use std::io::Read;

use crate::codec::from_io;
use crate::error::{Code, Error, Result};
use crate::postgres::archive_format::Toc;
use crate::postgres::sql_text::{self, About};
use crate::restore::logical::StoredStream;

/// No cluster has more roles than fit into this.
const LARGEST: u64 = 256 << 20;

/// What a database refers to outside itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    pub roles: BTreeSet<String>,
    pub tablespaces: BTreeSet<String>,
}

impl Needs {
    /// Of the entries of an archive. Roles that only own things or are granted something do not count where owners
    /// and grants are left out; those of policies do.
    pub fn of(toc: &Toc, no_owner: bool, no_tablespaces: bool) -> Self {
        let mut needs = Self::default();
        for entry in &toc.entries {
            let granted = matches!(entry.description.as_str(), "ACL" | "DEFAULT ACL");
            if !no_owner {
                needs.roles.extend(Some(entry.owner.clone()).filter(|owner| !owner.is_empty()));
            }
            if let Some(definition) = entry.definition.as_ref().filter(|_| !(granted && no_owner)) {
                needs.roles.extend(sql_text::roles(definition));
            }
            if !no_tablespaces {
                needs.tablespaces.extend(entry.tablespace.clone());
            }
        }
        needs
    }

    /// Without what is there.
    pub fn missing(&self, roles: &BTreeSet<String>, tablespaces: &BTreeSet<String>) -> Self {
        Self {
            roles: self.roles.difference(roles).cloned().collect(),
            tablespaces: self.tablespaces.difference(tablespaces).cloned().collect(),
        }
    }
    pub fn is_empty(&self) -> bool {
        self.roles.is_empty() && self.tablespaces.is_empty()
    }
    /// `roles a, b; tablespaces c`
    pub fn text(&self) -> String {
        let part = |kind: &str, names: &BTreeSet<String>| {
            let all: Vec<&str> = names.iter().map(String::as_str).collect();
            (!all.is_empty()).then(|| format!("{kind} {}", all.join(", ")))
        };
        let parts = [part("roles", &self.roles), part("tablespaces", &self.tablespaces)];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// What makes the missing roles and tablespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Making {
    pub roles: Vec<String>,
    pub tablespaces: Vec<String>,
    /// One transaction.
    pub role_statements: Vec<String>,
    /// Each alone: no transaction may hold them.
    pub tablespace_statements: Vec<String>,
}

impl Making {
    /// From the text of `pg_dumpall --globals-only`. All roles that are missing are made, not only those that this database
    /// needs: one may be a member of another. Of the tablespaces only the needed ones.
    pub fn of(script: &str, roles: &BTreeSet<String>, missing: &Needs) -> Self {
        let statements = sql_text::statements(script);
        let created = |statement: &str| statement.starts_with("CREATE ");
        let about: Vec<(Option<About>, &String)> =
            statements.iter().map(|s| (sql_text::about(s), s)).collect();
        let mut making = Self::default();
        for (about, statement) in &about {
            match about {
                Some(About::Role(name)) if created(statement) && !roles.contains(name) => {
                    making.roles.push(name.clone());
                }
                Some(About::Tablespace(name)) if created(statement) && missing.tablespaces.contains(name) => {
                    making.tablespaces.push(name.clone());
                }
                _ => {}
            }
        }
        for (about, statement) in about {
            match about {
                Some(About::Role(name)) if making.roles.contains(&name) => {
                    making.role_statements.push(statement.clone());
                }
                Some(About::Tablespace(name)) if making.tablespaces.contains(&name) => {
                    making.tablespace_statements.push(statement.clone());
                }
                _ => {}
            }
        }
        making
    }

    /// Without what has come to be there meanwhile: it is somebody else's.
    pub fn without(&mut self, roles: &BTreeSet<String>, tablespaces: &BTreeSet<String>) {
        self.roles.retain(|name| !roles.contains(name));
        self.tablespaces.retain(|name| !tablespaces.contains(name));
        let (roles, tablespaces) = (&self.roles, &self.tablespaces);
        let ours = |statement: &String| match sql_text::about(statement) {
            Some(About::Role(name)) => roles.contains(&name),
            Some(About::Tablespace(name)) => tablespaces.contains(&name),
            None => false,
        };
        self.role_statements.retain(ours);
        self.tablespace_statements.retain(ours);
    }

    /// What is still missing after it.
    pub fn lacks(&self, missing: &Needs) -> Needs {
        let made = |all: &[String]| all.iter().cloned().collect::<BTreeSet<_>>();
        missing.missing(&made(&self.roles), &made(&self.tablespaces))
    }
}

/// The whole text. On a blocking thread.
pub fn read(stream: &StoredStream) -> Result<String> {
    let place = stream.place();
    let mut text = String::new();
    let read = stream.open()?.take(LARGEST + 1).read_to_string(&mut text);
    let read = read.map_err(|e| from_io("the roles of the dump cannot be read", &place, e))?;
    if read as u64 > LARGEST {
        return Err(Error::new(Code::Damaged, "the roles of the dump are impossibly long").at(place));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    const SCRIPT: &str = "SET client_encoding = 'UTF8';\nCREATE ROLE app;\nALTER ROLE app WITH LOGIN PASSWORD 'x;y';\n\
                          CREATE ROLE postgres;\nALTER ROLE postgres WITH SUPERUSER;\nCREATE ROLE readers;\n\
                          ALTER ROLE app SET work_mem TO '1MB';\nGRANT readers TO app GRANTED BY postgres;\n\
                          GRANT readers TO postgres;\nCREATE TABLESPACE fast OWNER app LOCATION '/srv/fast';\n\
                          GRANT ALL ON TABLESPACE fast TO readers;\nCREATE TABLESPACE slow LOCATION '/srv/slow';\n";

    #[test]
    fn only_what_is_missing_is_made_and_what_exists_is_never_altered() {
        let missing = Needs { roles: names(&["app", "gone"]), tablespaces: names(&["fast"]) };
        let making = Making::of(SCRIPT, &names(&["postgres"]), &missing);
        assert_eq!(
            (making.roles.join(","), making.tablespaces.join(",")),
            ("app,readers".into(), "fast".into())
        );
        assert_eq!(making.role_statements.len(), 5);
        assert!(
            making.role_statements.iter().all(|s| !s.contains("TO postgres") && !s.contains("postgres WITH"))
        );
        assert_eq!(making.tablespace_statements.len(), 2);
        assert_eq!(making.lacks(&missing).text(), "roles gone");
        let mut less = making.clone();
        less.without(&names(&["readers", "postgres"]), &names(&["fast"]));
        assert_eq!((less.roles.join(","), less.role_statements.len()), ("app".into(), 4));
        assert!(less.tablespace_statements.is_empty());
        let nothing = Making::of(SCRIPT, &names(&["postgres", "app", "readers"]), &Needs::default());
        assert_eq!(nothing, Making::default());
    }
}
