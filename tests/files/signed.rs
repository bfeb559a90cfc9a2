//! Addresses that need no sign-in.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::Value;
use tower_upload::{
    Caller,
    http::{CachePolicy, Caching, UrlSigner},
};

use crate::house::{ANN, EVE, House, KEY, Reply};

const HOUR: Duration = Duration::from_secs(3600);

fn refused(reply: &Reply) -> String {
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (403, "application/problem+json")
    );
    let problem: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(problem["status"], 403);
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_address_stands_for_its_callers_sign_in_and_for_nothing_more() {
    let house = House::new(|files| files).await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    let other = house.file("b.mp4", "video/mp4", b"abcdefghij").await;
    let (ann, eve) = (Caller::new("ann"), Caller::new("eve"));
    let path = house.signer.file(&ann, id, HOUR);

    // Whoever has it reads, signed in as another or not at all, also a range.
    for who in [&[][..], &[EVE], &[ANN]] {
        let reply = house.ask(&format!("GET /media{path}"), who).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "0123456789"), "{who:?}");
        assert_eq!(reply.header("cache-control"), "private, max-age=3600, immutable");
    }
    let range = house.ask(&format!("GET /media{path}"), &[("range", "bytes=1-2")]).await;
    assert_eq!((range.status, range.text().as_str()), (206, "12"));
    assert_eq!(house.ask(&format!("HEAD /media{path}"), &[]).await.status, 200);
    assert_eq!(house.ask(&format!("DELETE /media{path}"), &[]).await.status, 405);

    // It is for this file and no other, and not for what was made of it.
    let elsewhere = path.replace(&id.to_string(), &other.to_string());
    assert!(refused(&house.ask(&format!("GET /media{elsewhere}"), &[ANN]).await).contains("not for this"));
    refused(&house.ask(&format!("GET /media{path}/hls/master.m3u8"), &[ANN]).await);

    // What is signed for somebody who may not read is worth nothing.
    let theirs = house.signer.file(&eve, id, HOUR);
    assert_eq!(house.ask(&format!("GET /media{theirs}"), &[ANN]).await.status, 404);
    let nobodys = house.signer.file(&Caller::anonymous(), id, HOUR);
    assert_eq!(house.ask(&format!("GET /media{nobodys}"), &[ANN]).await.status, 401);

    // Nor is what was signed for somebody who may not any more, nor for what is gone.
    house.locked_out.store(true, Ordering::SeqCst);
    assert_eq!(house.ask(&format!("GET /media{path}"), &[]).await.status, 403);
    house.locked_out.store(false, Ordering::SeqCst);
    assert_eq!(house.ask(&format!("GET /media{path}"), &[]).await.status, 200);
    house.uploads.delete(&ann, id).await.unwrap();
    assert_eq!(house.ask(&format!("GET /media{path}"), &[]).await.status, 404);
}

#[tokio::test]
async fn what_is_forged_or_expired_is_refused_and_says_so() {
    let house = House::new(|files| files).await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    let path = house.signer.file(&Caller::new("ann"), id, HOUR);
    let token = path.split('/').nth(2).unwrap();
    let [expires, who, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let later = expires.parse::<u64>().unwrap() + 1;
    for forged in [
        format!("{later}.{who}.{signature}"),
        format!("{expires}.uZXZl.{signature}"),
        format!("{expires}.{who}.{}", signature.to_lowercase()),
        format!("{expires}.{who}."),
        "x".to_owned(),
    ] {
        let reply = house.ask(&format!("GET /media/s/{forged}/{id}"), &[ANN]).await;
        assert!(refused(&reply).contains("not made here"), "{forged}");
        assert!(!reply.text().contains(&forged), "{forged}");
    }
    house.hands.0.fetch_add(3_599_000, Ordering::SeqCst);
    let reply = house.ask(&format!("GET /media{path}"), &[]).await;
    assert_eq!(
        (reply.status, reply.header("cache-control")),
        (200, "private, max-age=1, immutable")
    );
    house.hands.0.fetch_add(1000, Ordering::SeqCst);
    assert!(refused(&house.ask(&format!("GET /media{path}"), &[]).await).contains("expired"));
}

#[tokio::test]
async fn keys_are_changed_while_addresses_are_about() {
    let old = House::new(|files| files).await;
    let hands = old.hands.clone();
    let id = old.file("a.mp4", "video/mp4", b"0123456789").await;
    let path = old.signer.file(&Caller::new("ann"), id, HOUR);
    let fresh = UrlSigner::new([8; 32]).unwrap().with_clock(hands);
    let both = fresh.clone().accept(KEY).unwrap();
    // The same uploads behind another service.
    for (signer, status) in [(fresh, 403), (both, 200)] {
        let mut service = old.uploads.files(|_| None).signed(signer);
        let request = http::Request::get(path.as_str()).body(()).unwrap();
        let Ok(response) = tower_service::Service::call(&mut service, request).await;
        assert_eq!(response.status(), status);
    }
    // Where there is no signer, there are no such addresses.
    let request = http::Request::get(path.as_str()).body(()).unwrap();
    let mut service = old.uploads.files(|_| Some(Caller::new("ann")));
    let Ok(response) = tower_service::Service::call(&mut service, request).await;
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn shared_caches_keep_what_the_host_lets_them() {
    let policy = CachePolicy::new()
        .files(Caching::Never)
        .signed(Caching::Public(HOUR / 2));
    let house = House::new(|files| files.caching(policy)).await;
    let id = house.file("a.mp4", "video/mp4", b"0123456789").await;
    assert_eq!(house.get(id, &[]).await.header("cache-control"), "no-store");
    for (lifetime, seconds) in [(HOUR, 1800), (HOUR / 6, 600)] {
        let path = house.signer.file(&Caller::new("ann"), id, lifetime);
        let reply = house.ask(&format!("GET /media{path}"), &[]).await;
        let told = format!("public, max-age={seconds}, immutable");
        assert_eq!(reply.header("cache-control"), told);
    }
}
