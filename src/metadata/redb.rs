//! stub
/// stub
#[derive(Debug)]
pub struct RedbMetadata;
/// stub
#[derive(Debug)]
pub struct RedbOptions;
