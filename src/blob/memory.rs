//! stub
/// stub
#[derive(Debug)]
pub struct MemoryBlobs;
