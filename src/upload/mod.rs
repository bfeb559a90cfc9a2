//! The words of the crate as types: ids, names, digests, parts and the record of an upload.
//!
//! Whatever comes from outside (an id, a file name, a digest) is parsed into one of these types
//! at the door; past it, nothing checks again.

mod delivery;
mod derived;
mod digest;
mod event;
mod id;
mod name;
mod part;
mod plan;
mod record;
mod time;

pub use delivery::{DeadLetter, Delivery, Outcome, Outgoing, Progress};
pub use derived::DerivedName;
pub use digest::{Algorithm, Digest};
pub use event::{Event, EventId, EventKind};
pub use id::UploadId;
pub use name::{FileName, Key, Owner, Target};
pub use part::{Blob, Handle, HashState, Part, Receipt, Tally};
pub use plan::{Concat, Layout, Plan};
pub use record::{Intent, Protocol, Record, Snapshot, State, Version, Wake};
pub use time::Timestamp;
