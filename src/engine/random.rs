use std::fmt;

use crate::error::{Error, Result};

/// Where ids, epochs and suffixes come from.
pub(crate) trait Random: fmt::Debug + Send + Sync + 'static {
    fn fill(&self, bytes: &mut [u8]) -> Result<()>;
}

impl dyn Random {
    pub(crate) fn u64(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// The operating system's generator.
#[derive(Debug)]
pub(crate) struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        getrandom::fill(bytes).map_err(|error| {
            Error::unavailable("The system gave no random bytes; try again").with_source(std::io::Error::from(error))
        })
    }
}
