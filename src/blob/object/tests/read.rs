//! Blobs are read in steps, and all of them are of one object.

use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStoreExt as _;

use super::{
    fake::{Fake, Fate, Op},
    whole::bytes,
    *,
};

async fn put(fake: &Fake, bytes: &[u8]) -> Key {
    let key = Key::parse("some/blob").unwrap();
    fake.put(&key.as_str().into(), bytes.to_vec().into()).await.unwrap();
    key
}

async fn read(fake: &Fake, key: &Key, range: ByteRange) -> crate::Result<Vec<u8>> {
    let body = on(fake, options(SMALL)).read(key, range).await?;
    Ok(body.try_collect::<Vec<_>>().await?.concat())
}

fn gets(fake: &Fake) -> usize {
    fake.asked().get(&Op::Get).copied().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn no_request_asks_for_more_than_a_step() {
    let whole = bytes(1, 35_000);
    for fake in [Fake::new(SMALL), Fake::new(SMALL).weak()] {
        let key = put(&fake, &whole).await;
        for (range, expected, requests) in [
            (ByteRange::ALL, &whole[..], 4),
            (ByteRange::new(0, Some(35_000)), &whole[..], 4),
            (ByteRange::new(10, Some(10_010)), &whole[10..10_010], 1),
            (ByteRange::new(10, Some(10_011)), &whole[10..10_011], 2),
            (ByteRange::new(20_000, None), &whole[20_000..], 2),
            (ByteRange::new(34_999, Some(u64::MAX)), &whole[34_999..], 1),
        ] {
            let before = gets(&fake);
            assert!(read(&fake, &key, range).await.unwrap() == expected, "{range:?}");
            assert_eq!(gets(&fake) - before, requests, "{range:?}");
        }
        // What is no longer than a step is one request.
        let key = put(&fake, &whole[..10_000]).await;
        let before = gets(&fake);
        assert!(read(&fake, &key, ByteRange::ALL).await.unwrap() == whole[..10_000]);
        assert_eq!(gets(&fake) - before, 1);
        let key = put(&fake, &[]).await;
        assert!(read(&fake, &key, ByteRange::ALL).await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_breaks_off_is_asked_for_from_there_on() {
    let whole = bytes(2, 25_000);
    let calm = Fake::new(SMALL);
    let key = put(&calm, &whole).await;
    // Each answer breaks off, as those of a client without time do; some before their first byte.
    let torn = calm.clone().failing(|op, nth| match (op, nth % 3) {
        (Op::Get, 0) => Fate::Torn(1000),
        (Op::Get, _) => Fate::Torn(0),
        _ => Fate::Fine,
    });
    assert!(read(&torn, &key, ByteRange::ALL).await.unwrap() == whole);
    assert!(read(&torn, &key, ByteRange::new(7, Some(20_001))).await.unwrap() == whole[7..20_001]);

    // What broke off before a step that came whole does not count.
    let now_and_then = calm.clone().failing(|op, nth| match (op, nth % 2) {
        (Op::Get, 0) => Fate::Torn(0),
        _ => Fate::Fine,
    });
    let longer = bytes(5, 65_000);
    let other = put(&calm, &longer).await;
    assert!(read(&now_and_then, &other, ByteRange::ALL).await.unwrap() == longer);
    let key = put(&calm, &whole).await;

    // It ends all the same where nothing comes at all.
    let none = calm
        .clone()
        .failing(|op, _| if op == Op::Get { Fate::Torn(0) } else { Fate::Fine });
    let before = gets(&calm);
    let error = read(&none, &key, ByteRange::ALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(gets(&calm) - before, 3);
}

#[tokio::test(start_paused = true)]
async fn bytes_of_two_objects_are_never_mixed() {
    for fake in [Fake::new(SMALL), Fake::new(SMALL).opaque(), Fake::new(SMALL).weak()] {
        for replaced in [true, false] {
            let key = put(&fake, &bytes(3, 25_000)).await;
            let mut body = on(&fake, options(SMALL)).read(&key, ByteRange::ALL).await.unwrap();
            let first = body.next().await.unwrap().unwrap();
            if replaced {
                put(&fake, &bytes(4, 25_000)).await;
            } else {
                fake.objects.delete(&key.as_str().into()).await.unwrap();
            }
            let mut read = first.len();
            let error = loop {
                match body.next().await.expect("it ends with an error") {
                    Ok(bytes) => read += bytes.len(),
                    Err(error) => break error,
                }
            };
            assert_eq!(read, 10_000, "only the step that was under way");
            assert!(error.message().contains("while it was read"), "{error:?}");
            assert!(body.next().await.is_none());
        }
    }
}
