//! Single tables: what they are, what hangs on them, and their rows on the way from one server to another.
//!
//! Every statement names its objects in full and quoted; the search path is empty. Nothing here decides: the facts go
//! to who restores a table, and the statements come from there one by one.

mod copy;
mod dependents;
mod facts;
mod links;
mod statements;

pub use copy::{Copied, copy_csv_in, copy_rows};
pub use dependents::{Dependent, OtherDependent};
pub use facts::{TableFacts, TableKind};
pub use links::{Attachment, ForeignKey, Trigger};
