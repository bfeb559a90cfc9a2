//! Replays `tests/corpus/TARGET/*` through the fuzz targets, each input also cut short and with a byte changed at every
//! place. `cargo +nightly fuzz run TARGET tests/corpus/TARGET` goes on from there.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use tower_upload::fuzzing::TARGETS;

/// Longer inputs are replayed as they are alone.
const SHORT: usize = 1024;

#[test]
fn the_corpus_breaks_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut folders: Vec<_> = fs::read_dir(&corpus)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    folders.sort();
    assert_eq!(folders, TARGETS.map(|(name, _)| name), "a folder for each target");
    for (name, target) in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(corpus.join(name)).unwrap() {
            let input = fs::read(entry.unwrap().path()).unwrap();
            inputs += 1;
            target(&input);
            if input.len() > SHORT {
                continue;
            }
            for at in 0..input.len() {
                target(&input[..at]);
                for byte in [0, b'\r', b'\n', b'"', b'%', b'9', 0xff] {
                    let mut changed = input.clone();
                    changed[at] = byte;
                    target(&changed);
                }
            }
        }
        assert!(inputs >= 3, "{name} has too few inputs");
    }
}
