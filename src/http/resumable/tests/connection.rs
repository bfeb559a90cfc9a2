//! Over a real connection, byte by byte.

use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

/// A connection to a server of `wire`'s uploads.
async fn connect(wire: &Wire) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = TowerToHyperService::new(wire.service.clone());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    });
    TcpStream::connect(address).await.unwrap()
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// What comes until `end` is seen.
async fn hear(stream: &mut TcpStream, end: &str) -> String {
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(end) {
        let byte = stream.read_u8().await.unwrap();
        heard.push(byte);
    }
    String::from_utf8(heard).unwrap()
}

const HEAD: &str =
    "Host: a\r\nAuthorization: Bearer ann\r\nUpload-Draft-Interop-Version: 10\r\nExpect: 100-continue\r\n";

#[tokio::test]
async fn who_waits_for_100_continue_is_told_to_go_on_or_why_not() {
    let wire = Wire::new().await;
    // 4.12
    let mut stream = connect(&wire).await;
    say(
        &mut stream,
        &format!("POST /files HTTP/1.1\r\n{HEAD}Upload-Complete: ?0\r\nContent-Length: 5\r\n\r\n"),
    )
    .await;
    assert_eq!(hear(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    say(&mut stream, "01234").await;
    let created = hear(&mut stream, "\r\n\r\n").await;
    assert!(created.starts_with("HTTP/1.1 201 Created\r\n"), "{created}");
    assert!(created.contains("upload-offset: 5\r\n"), "{created}");

    let mut stream = connect(&wire).await;
    say(
        &mut stream,
        &format!("POST /files HTTP/1.1\r\n{HEAD}Upload-Complete: ?1\r\nContent-Length: 101\r\n\r\n"),
    )
    .await;
    let refused = hear(&mut stream, "\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert!(refused.contains("upload-limit: max-size=100\r\n"), "{refused}");
    assert_eq!(wire.count().await, 1);
}

#[tokio::test]
async fn what_came_before_the_connection_broke_is_kept() {
    for at in 0..5 {
        let wire = Wire::new().await;
        let path = wire.prepared("open").await;
        let mut stream = connect(&wire).await;
        let media = "Content-Type: application/partial-upload\r\nUpload-Offset: 5\r\nUpload-Complete: ?1\r\n";
        say(
            &mut stream,
            &format!("PATCH {path} HTTP/1.1\r\n{HEAD}{media}Content-Length: 5\r\n\r\n"),
        )
        .await;
        hear(&mut stream, "100 Continue\r\n\r\n").await;
        say(&mut stream, &"56789"[..at]).await;
        drop(stream);
        // The offset is asked of the engine until all is there: HEAD would stop the request before.
        let all_came = async {
            while wire.upload(&path).await.offset() < 5 + at as u64 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), all_came)
            .await
            .unwrap();
        assert_eq!(wire.now(&path).await, format!("{} ?0", 5 + at));
        let offset = (5 + at).to_string();
        let headers = [MEDIA, LAST, ("upload-offset", offset.as_str())];
        let last = wire
            .ask(Some(10), &format!("PATCH {path}"), &headers, &"56789"[at..])
            .await;
        assert_eq!(last.status, 200, "{}", last.text);
        assert_eq!(wire.file(&path).await, "0123456789");
    }
}
