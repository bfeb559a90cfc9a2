#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::sync::Arc;

use object_store::memory::InMemory;

use self::fake::Fake;
use super::*;
use crate::conformance::blob;

mod fake;
mod format;

/// Parts as small as the suite's chunks.
const SMALL: PartBounds = PartBounds::new(1000, 1 << 20, 10_000);

fn options(bounds: PartBounds) -> ObjectOptions {
    let mut options = ObjectOptions::default().with_parts(bounds).with_part_size(4096);
    options.read_step = 10_000;
    options
}

fn on(fake: &Fake, options: ObjectOptions) -> ObjectBlobs {
    let store = Arc::new(fake.clone());
    let mut backend = Backend::new(store.clone(), Some(store.clone()), &options);
    backend.lister = Some(store.clone());
    backend.copier = Some(store);
    ObjectBlobs::over(backend, options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_where_chunks_are_parts() {
    blob::run(async || on(&Fake::new(SMALL), options(SMALL))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_with_tags_that_say_nothing_and_no_lists() {
    blob::run(async || options(SMALL).native(Fake::new(SMALL).opaque()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_where_the_tag_of_an_object_is_not_told() {
    blob::run(async || on(&Fake::new(SMALL).silent(), options(SMALL))).await;
    blob::run(async || on(&Fake::new(SMALL).silent().opaque(), options(SMALL))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_with_checksums_of_parts() {
    blob::run(async || on(&Fake::new(SMALL).sums(), options(SMALL))).await;
    blob::run(async || on(&Fake::new(SMALL).opaque().sums(), options(SMALL))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_where_chunks_are_too_small_for_parts() {
    let strict = PartBounds::new(20_000, 1 << 20, 10_000).equal();
    blob::run(async || on(&Fake::new(strict), options(strict).with_part_size(20_000))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_where_all_is_staged() {
    blob::run(async || ObjectBlobs::new(Arc::new(InMemory::new())).unwrap()).await;
    blob::run(async || options(SMALL).staged(Arc::new(InMemory::new())).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_with_little_memory() {
    blob::run(async || on(&Fake::new(SMALL), options(SMALL).with_memory(8192))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_on_files() {
    macro_rules! each {
        ($($test:ident),* $(,)?) => {$(
            let root = tempfile::tempdir().unwrap();
            let files = object_store::local::LocalFileSystem::new_with_prefix(root.path()).unwrap();
            let files = Arc::new(files.with_automatic_cleanup(true));
            blob::$test(Arc::new(options(SMALL).staged(files).unwrap())).await;
        )*};
    }
    // Not `keys_nest`: it writes files under longer names first than they get.
    each!(
        parts_make_one_blob_in_any_order,
        parts_are_written_in_parallel,
        parts_aside_are_put_in_place,
        parts_of_any_length_follow_each_other,
        appends_follow_what_is_committed,
        nothing_makes_an_empty_blob,
        dropped_futures_can_be_tried_again,
        an_older_attempt_changes_no_byte,
        the_newest_of_many_claims_wins,
        complete_is_idempotent,
        complete_names_lost_parts,
        nothing_changes_after_complete,
        a_taken_key_is_never_written_over,
        one_key_goes_to_one_upload,
        discard_removes_everything,
        discard_leaves_what_was_published,
        begun_lists_what_was_not_discarded,
        parts_are_read_before_they_are_published,
        ranges_are_read,
        delete_removes_one_blob,
        joined_parts_make_one_part,
        a_join_names_lost_parts,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_is_there_for_the_next_process() {
    let fake = Fake::new(SMALL);
    blob::durability(async || on(&fake, options(SMALL).with_prefix("some/where"))).await;
    let staged = Arc::new(InMemory::new());
    blob::durability(async || ObjectBlobs::new(staged.clone()).unwrap()).await;
}

mod faults;
mod read;
mod refused;
mod rot;
mod scanned;
mod whole;
