use std::{fmt, sync::Arc};

use super::Workload;

/// How much is done.
#[derive(Clone)]
pub struct Options {
    pub(super) large: u64,
    pub(super) chunk: u64,
    pub(super) small: u64,
    pub(super) parts: u32,
    pub(super) open_uploads: u32,
    pub(super) samples: u32,
    progress: Arc<dyn Fn(&Progress) + Send + Sync>,
}

/// How far the run is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What it is at.
    pub workload: Workload,
    /// Which part of that.
    pub step: String,
    /// Operations done in this step.
    pub done: u64,
    /// Operations in this step.
    pub total: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}/{}", self.workload, self.step, self.done, self.total)
    }
}

impl Options {
    /// Seconds on a local disk: whether it works, and a rough idea.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            large: 32 << 20,
            chunk: 2 << 20,
            small: 64,
            parts: 1_000,
            open_uploads: 1_000,
            samples: 40,
            ..Self::default()
        }
    }

    /// Minutes, and some GiB: for figures to be told to others.
    #[must_use]
    pub fn full() -> Self {
        Self {
            large: 2 << 30,
            small: 5_000,
            open_uploads: 100_000,
            samples: 400,
            ..Self::default()
        }
    }

    /// Size of a large file, in bytes. It lies in the blob store twice at most. 512 MiB unless said otherwise.
    #[must_use]
    pub fn with_large(mut self, bytes: u64) -> Self {
        self.large = bytes.max(1);
        self
    }

    /// Size of a large file's chunks, in bytes, as far as the store allows it. 8 MiB unless said otherwise.
    #[must_use]
    pub fn with_chunk(mut self, bytes: u64) -> Self {
        self.chunk = bytes.clamp(1, 128 << 20);
        self
    }

    /// How many small files. 1,000 unless said otherwise.
    #[must_use]
    pub fn with_small(mut self, files: u64) -> Self {
        self.small = files.max(1);
        self
    }

    /// The most parts of an upload, 100 at least; fewer are measured at a tenth and a hundredth of it. 10,000 unless said
    /// otherwise.
    #[must_use]
    pub fn with_parts(mut self, parts: u32) -> Self {
        self.parts = parts.clamp(100, 50_000);
        self
    }

    /// The most uploads that are open at once in the metadata store, 100 at least; fewer are measured at a tenth and a
    /// hundredth of it. 10,000 unless said otherwise.
    #[must_use]
    pub fn with_open_uploads(mut self, uploads: u32) -> Self {
        self.open_uploads = uploads.max(100);
        self
    }

    /// How often a single operation is timed. 200 times unless said otherwise.
    #[must_use]
    pub fn with_samples(mut self, samples: u32) -> Self {
        self.samples = samples.max(1);
        self
    }

    /// Is told after each operation, from whatever thread did it.
    #[must_use]
    pub fn with_progress(mut self, tell: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(tell);
        self
    }

    pub(super) fn tell(&self, progress: &Progress) {
        (self.progress)(progress);
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            large: 512 << 20,
            chunk: 8 << 20,
            small: 1_000,
            parts: 10_000,
            open_uploads: 10_000,
            samples: 200,
            progress: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("large", &self.large)
            .field("chunk", &self.chunk)
            .field("small", &self.small)
            .field("parts", &self.parts)
            .field("open_uploads", &self.open_uploads)
            .field("samples", &self.samples)
            .finish_non_exhaustive()
    }
}

/// A hundredth, a tenth and all of `most`.
pub(super) fn decades(most: u32) -> Vec<u32> {
    let mut levels = vec![most / 100, most / 10, most];
    levels.retain(|level| *level > 0);
    levels.dedup();
    levels
}
