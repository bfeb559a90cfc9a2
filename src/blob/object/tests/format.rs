//! Objects, marks and receipts as every release writes them: if this fails, a release loses what an older one stored.

use futures_util::TryStreamExt as _;
use object_store::{ObjectStoreExt as _, path::Path as At};

use super::*;
use crate::{Crc64, upload::Receipt};

/// Of the upload whose id is 16 times the byte 7.
const DIR: &str = "BwcHBwcHBwcHBwcHBwcHBw.00000000000000ff0";
const HANDLE: &str = r#"{"dir":"BwcHBwcHBwcHBwcHBwcHBw.00000000000000ff0"}"#;
const PARTS: [(&str, &str, &str); 2] = [
    (
        "00000000000000ff1",
        "012345",
        r#"{"n":0,"l":6,"s":[{"o":"00000000000000ff1","l":6,"c":12107793065839277006}]}b0b9f39084a28ddc"#,
    ),
    (
        "00000000000000ff2",
        "6789",
        r#"{"n":1,"l":4,"s":[{"o":"00000000000000ff2","l":4,"c":16201196698441090871}]}e3a5a4421f290b8b"#,
    ),
];

async fn text(store: &InMemory, at: &str) -> String {
    let found = store.get(&At::from(at)).await.unwrap().bytes().await.unwrap();
    String::from_utf8(found.to_vec()).unwrap()
}

#[tokio::test]
async fn what_an_older_release_stored_is_read() {
    let store = Arc::new(InMemory::new());
    let lay = async |at: String, text: &str| {
        store.put(&At::from(at), text.to_owned().into()).await.unwrap();
    };
    lay("media/videos/originals/123_my_video.mp4".into(), "a film").await;
    lay(format!("media/.uploads/{DIR}/begin"), HANDLE).await;
    for (name, bytes, _) in PARTS {
        lay(format!("media/.uploads/{DIR}/{name}"), bytes).await;
    }

    let options = ObjectOptions::default().with_prefix("media");
    let blobs = options.staged(Arc::clone(&store) as Arc<dyn ObjectStore>).unwrap();
    let film = Key::parse("videos/originals/123_my_video.mp4").unwrap();
    assert_eq!(blobs.head(&film).await.unwrap().unwrap().size, 6);
    let handle = Handle::new(HANDLE);
    let begun = blobs.begun(Duration::ZERO).await.unwrap();
    assert_eq!(begun, [(UploadId::from_bytes([7; 16]), handle.clone())]);
    let parts: Vec<Part> = (0..)
        .zip(PARTS)
        .map(|(number, (_, bytes, receipt))| {
            let crc64 = Crc64::of(bytes.as_bytes());
            Part::new(number, bytes.len() as u64, crc64, Receipt::new(receipt))
        })
        .collect();
    let body = blobs.read_parts(&handle, &parts).await.unwrap().unwrap();
    assert_eq!(body.try_collect::<Vec<_>>().await.unwrap().concat(), b"0123456789");
    let whole = Key::parse("whole").unwrap();
    let completed = blobs.complete(&handle, &whole, &parts).await.unwrap();
    assert!(
        matches!(&completed, Completed::Done(blob) if blob.size == 10),
        "{completed:?}"
    );
    assert_eq!(text(&store, "media/whole").await, "0123456789");
    blobs.discard(&handle).await.unwrap();
    let staging = At::from("media/.uploads");
    let left: Vec<_> = store.list(Some(&staging)).try_collect().await.unwrap();
    assert!(
        left.iter().all(|meta| meta.location.as_ref().ends_with("clock")),
        "{left:?}"
    );
}

#[tokio::test]
async fn it_is_written_as_ever() {
    let store = Arc::new(InMemory::new());
    let options = ObjectOptions::default().with_prefix("media");
    let blobs = options.staged(Arc::clone(&store) as Arc<dyn ObjectStore>).unwrap();
    let (id, plan) = (UploadId::from_bytes([7; 16]), Plan::indexed(2, Some(6), Some(10)));
    let handle = blobs.begin(id, &Key::parse("a").unwrap(), &plan).await.unwrap();
    let dir = handle.as_str().strip_prefix(r#"{"dir":""#).unwrap();
    let dir = dir.strip_suffix(r#""}"#).unwrap();
    assert!(dir.starts_with("BwcHBwcHBwcHBwcHBwcHBw."), "{dir}");
    assert_eq!(
        text(&store, &format!("media/.uploads/{dir}/begin")).await,
        handle.as_str()
    );
    let mut writer = blobs.open(&handle, Slot::at(0, 0, 6)).await.unwrap();
    writer.write(vec![Bytes::from_static(b"012345")]).await.unwrap();
    let receipt = writer.finish().await.unwrap();
    let stored = Stored::parse(&receipt).unwrap();
    let name = &stored.pieces[0].name;
    assert_eq!(text(&store, &format!("media/.uploads/{dir}/{name}")).await, "012345");
    let said = r#"{"n":0,"l":6,"s":[{"o":"NAME","l":6,"c":12107793065839277006}]}"#.replace("NAME", name);
    assert_eq!(receipt.as_str()[..receipt.as_str().len() - 16], said);
}
