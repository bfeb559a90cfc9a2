use super::Fault;
use crate::{error::Error, http::number::field_u32, upload::UploadId};

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    UploadChunk,
    AssembleChunks,
    Uploads,
    Upload(UploadId),
    Chunk(UploadId, u32),
    Assemble(UploadId),
    Events(UploadId),
    Content(UploadId),
}

impl Route {
    pub(super) fn of(segments: &[&str]) -> Result<Self, Fault> {
        let id = |text: &str| text.parse::<UploadId>().map_err(|_| Error::not_found());
        Ok(match segments {
            ["upload-chunk"] => Self::UploadChunk,
            ["assemble-chunks"] => Self::AssembleChunks,
            ["uploads"] => Self::Uploads,
            ["uploads", upload] => Self::Upload(id(upload)?),
            ["uploads", upload, "chunks", index] => Self::Chunk(id(upload)?, field_u32("chunkIndex", index)?),
            ["uploads", upload, "assemble"] => Self::Assemble(id(upload)?),
            ["uploads", upload, "events"] => Self::Events(id(upload)?),
            ["uploads", upload, "content"] => Self::Content(id(upload)?),
            _ => return Err(Fault::NoRoute),
        })
    }

    /// For `Allow`.
    pub(super) const fn methods(self) -> &'static str {
        match self {
            Self::UploadChunk | Self::AssembleChunks | Self::Assemble(_) => "POST",
            Self::Uploads => "GET, HEAD, POST",
            Self::Upload(_) => "GET, HEAD, DELETE",
            Self::Chunk(..) => "PUT",
            Self::Events(_) | Self::Content(_) => "GET, HEAD",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_routes() {
        let id = UploadId::from_bytes([7; 16]);
        let text = id.to_string();
        let of = |path: &str| Route::of(&path.split('/').collect::<Vec<_>>()).ok();
        for (path, route) in [
            ("upload-chunk".to_owned(), Some(Route::UploadChunk)),
            (format!("uploads/{text}"), Some(Route::Upload(id))),
            (format!("uploads/{text}/chunks/12"), Some(Route::Chunk(id, 12))),
            (format!("uploads/{text}/events"), Some(Route::Events(id))),
            (format!("uploads/{text}/content"), Some(Route::Content(id))),
            (format!("uploads/{text}/chunks/-1"), None),
            (format!("uploads/{text}/chunks/4294967296"), None),
            (format!("uploads/{text}/chunks"), None),
            ("uploads/..".to_owned(), None),
            ("Uploads".to_owned(), None),
            ("files".to_owned(), None),
        ] {
            assert_eq!(of(&path), route, "{path}");
        }
    }
}
