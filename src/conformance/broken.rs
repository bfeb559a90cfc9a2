//! Stores with one planted bug each: the suites must catch every one, and say what is broken.
#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
};

mod blobs;
mod metadata;

/// The sentence with which a suite fails.
fn caught(suite: impl AsyncFnOnce()) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match catch_unwind(AssertUnwindSafe(|| runtime.block_on(suite()))) {
        Ok(()) => "the suite found nothing".to_owned(),
        Err(panic) => match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
        },
    }
}

/// Asserts that each suite failed with its words.
fn all_are_caught<B: std::fmt::Debug + Copy>(bugs: &[(B, &str)], sentence: impl Fn(B) -> String) {
    let missed: HashMap<String, String> = bugs
        .iter()
        .map(|(bug, words)| (format!("{bug:?}"), sentence(*bug), words))
        .filter(|(_, sentence, words)| !sentence.contains(*words))
        .map(|(bug, sentence, _)| (bug, sentence))
        .collect();
    assert!(missed.is_empty(), "not caught as they should be: {missed:#?}");
}
