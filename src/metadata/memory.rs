//! stub
/// stub
#[derive(Debug)]
pub struct MemoryMetadata;
