//! stub
/// stub
#[derive(Debug)]
pub struct DiskBlobs;
