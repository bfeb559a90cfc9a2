//! What every [`MetadataStore`] must do.
//!
//! ```
//! # #[tokio::main] async fn main() {
//! use std::sync::Arc;
//! use tower_upload::{conformance::metadata, metadata::MemoryMetadata};
//!
//! metadata::run(async || MemoryMetadata::new()).await;
//! // one test alone:
//! metadata::names_are_unique_under_a_race(Arc::new(MemoryMetadata::new())).await;
//! # }
//! ```

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::bounded;
use crate::{
    error::Result,
    metadata::{Committed, Created, Guard, Lookup, MetadataStore, PartRange, PartsEdit, Quota, Updated},
    upload::{
        FileName, Handle, Key, Owner, Part, Plan, Receipt, Record, Snapshot, State, Tally, Target, UploadId, Wake,
    },
};

mod commit;
mod create;
mod due;
mod durable;
mod quota;
mod read;
mod update;

pub use commit::*;
pub use create::*;
pub use due::*;
pub use durable::durability;
pub use quota::*;
pub use read::*;
pub use update::*;

/// The store under test.
pub type Store = Arc<dyn MetadataStore>;

macro_rules! suite {
    ($($test:ident),+ $(,)?) => {
        /// Runs every test, each on a fresh, empty store of `make`.
        ///
        /// # Panics
        /// If a clause of the contract is broken; the message says which.
        pub async fn run<S: MetadataStore>(make: impl AsyncFn() -> S) {
            $(bounded(stringify!($test), $test(Arc::new(make().await))).await;)+
        }
    };
}

suite![
    a_new_upload_is_as_it_was_given,
    names_are_unique_under_a_race,
    keys_are_unique_under_a_race,
    ids_are_unique,
    names_are_of_owner_target_and_file,
    odd_names_are_kept_apart,
    first_parts_come_with_the_upload,
    quota_is_exact_on_create,
    quota_is_exact_on_commit,
    quota_is_given_back,
    what_is_unfinished_is_counted,
    a_part_is_inserted_once_under_a_race,
    parts_of_one_commit_come_together,
    guard_is_checked_in_order,
    guard_end_lets_one_of_many_pass,
    guard_pins_chunk_size_and_size,
    guard_sets_the_hash,
    versions_and_revisions_grow,
    expiry_slides_with_commits,
    many_parts_are_counted_and_found,
    no_commit_after_leaving_open,
    an_update_needs_the_present_version,
    an_update_takes_no_name_or_key_of_another,
    creation_keeps_its_time,
    publication_is_stamped_once,
    names_and_keys_are_released,
    edits_of_parts_keep_the_tally_exact,
    due_comes_in_order_and_moves_on,
    due_gives_a_record_to_one_alone,
    due_follows_wake,
    list_is_the_owners_newest_first,
    load_gives_the_parts_asked_for,
    reads_are_of_one_moment,
    remove_needs_the_present_version,
    dropped_futures_leave_all_or_nothing,
    guard_seals_in_the_same_step,
];

fn upload_id(number: u32) -> UploadId {
    let mut bytes = *b"conformance-\0\0\0\0";
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    UploadId::from_bytes(bytes)
}

fn file_name(text: &str) -> FileName {
    FileName::parse(text).expect("the suite's own file names are sound")
}

fn key(text: &str) -> Key {
    Key::parse(text).expect("the suite's own keys are sound")
}

fn target(text: &str) -> Target {
    Target::parse(text).expect("the suite's own targets are sound")
}

/// An open upload with a name and a key of its own, without size, pin or expiry.
fn draft(number: u32) -> Record {
    let mut record = Record::new(
        upload_id(number),
        Owner::new("owner"),
        file_name(&format!("file-{number}.mp4")),
        key(&format!("videos/{number}.mp4")),
        Plan::indexed(10_000, None, None),
        Handle::new(format!("handle-{number}")),
    );
    record.named = true;
    record
}

/// The same without a name.
fn nameless(number: u32) -> Record {
    let mut record = draft(number);
    record.named = false;
    record
}

fn part(number: u32, len: u64) -> Part {
    part_by(number, len, "first")
}

fn part_by(number: u32, len: u64, who: &str) -> Part {
    Part::new(
        number,
        len,
        u64::from(number) ^ 0xC0FF_EE00,
        Receipt::new(format!("{who}-{number}")),
    )
}

fn answered<T>(answer: Result<T>) -> T {
    answer.unwrap_or_else(|error| panic!("A healthy store failed: {error:?}"))
}

async fn create(store: &Store, new: &Record) -> Record {
    match answered(store.create(new, &[], &Quota::UNLIMITED, Wake::AtExpiry).await) {
        Created::New(record) => record,
        other => panic!("An upload with an id, a name and a key of its own must be created, got {other:?}"),
    }
}

async fn created(store: &Store, number: u32) -> Record {
    create(store, &draft(number)).await
}

async fn commit(store: &Store, id: UploadId, parts: &[Part]) -> Tally {
    match answered(store.commit(id, &Guard::new(1), parts).await) {
        Committed::Done(tally) => tally,
        other => panic!("New parts of an open upload must be committed, got {other:?}"),
    }
}

async fn update(store: &Store, next: &Record, edit: PartsEdit, wake: Wake) -> Record {
    match answered(store.update(next, edit, wake).await) {
        Updated::Done(record) => record,
        other => panic!("An update from the present version must be done, got {other:?}"),
    }
}

async fn into_state(store: &Store, record: &Record, state: State) -> Record {
    let mut next = record.clone();
    next.state = state;
    update(store, &next, PartsEdit::Keep, Wake::Keep).await
}

async fn find(store: &Store, id: UploadId) -> Option<Snapshot> {
    let snapshot = answered(store.load(Lookup::Id(id), PartRange::ALL).await);
    snapshot.inspect(exact)
}

async fn load(store: &Store, id: UploadId) -> Snapshot {
    find(store, id)
        .await
        .expect("An upload must be found by its id while it is remembered")
}

async fn by_name(store: &Store, record: &Record) -> Option<UploadId> {
    let name = Lookup::Name(&record.owner, record.target.as_ref(), &record.file_name);
    answered(store.load(name, PartRange::NONE).await).map(|snapshot| snapshot.record.id)
}

/// The tally must be that of the parts.
fn exact(snapshot: &Snapshot) {
    let bytes: u64 = snapshot.parts.iter().map(|part| part.len).sum();
    assert_eq!(
        (snapshot.tally.parts as usize, snapshot.tally.bytes),
        (snapshot.parts.len(), bytes),
        "The tally must say exactly what the stored parts add up to (parts, bytes)"
    );
    assert!(
        snapshot.parts.is_sorted_by_key(|part| part.number) && distinct(&snapshot.parts),
        "Parts must be loaded sorted by number, each once"
    );
}

fn distinct(parts: &[Part]) -> bool {
    parts.iter().map(|part| part.number).collect::<BTreeSet<_>>().len() == parts.len()
}
