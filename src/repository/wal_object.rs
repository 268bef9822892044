//! WAL objects as bytes: sealed and written ([`store`]), read back and proved ([`read`]), heads joined ([`join`]).
//!
//! Promises kept here: what is written carries the digest of its plain bytes in its name, and nothing is served whose
//! bytes do not have that digest; a file that changes while it is shipped is never published; a replacement
//! (`.healed-…`) is tried before the object that it replaces.
//!
//! Order: a mark's signature, the mark, the segment: a segment that is known to be damaged is never there without its
//! mark. Cancellation: dropping a future leaves whole objects or none.

pub mod join;
pub mod read;
pub mod store;

pub use join::{Joined, contradictions, join_heads, settle_heads};
pub use read::{ReadBack, Sink, WalObjects};
pub use store::{DamageMark, Placed, Placement, Plain, Sealer, blocking, store, store_mark};
