//! Each bug of this store is found by the test that is there for it.

use super::{power, seams};
use crate::planted::{Bug, plant};

#[tokio::test(start_paused = true)]
async fn a_missing_sync_of_a_directory_is_found() {
    let _bug = plant(Bug::NoDirectoryFsync);
    println!("{}", power::every_crash(40).await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_is_tried_again_is_found() {
    let _bug = plant(Bug::FsyncRetriedAfterEio);
    println!("{}", power::every_failed_sync(40).await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_goes_with_its_request_is_found() {
    let _bug = plant(Bug::ClaimFreedOnDrop);
    println!("{}", seams::a_late_job_and_a_newer_claim().await.unwrap_err());
}

#[tokio::test(start_paused = true)]
async fn a_seal_that_waits_for_nobody_is_found() {
    let _bug = plant(Bug::SealWithoutDrainingWriters);
    println!("{}", seams::a_late_job_and_a_seal().await.unwrap_err());
}

#[tokio::test]
async fn a_slot_that_takes_a_byte_too_many_is_found() {
    let _bug = plant(Bug::ChunkSizePlusOneAccepted);
    println!("{}", seams::one_byte_too_many().await.unwrap_err());
}

#[tokio::test]
async fn trust_in_a_key_is_found() {
    let _bug = plant(Bug::CompleteTrustsKey);
    println!("{}", seams::a_strangers_blob().await.unwrap_err());
}
