//! Through hyper and a socket: what only a connection shows.

use std::{net::SocketAddr, time::Duration};

use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

async fn listen(wire: &Wire) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = wire.service.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service.clone()));
            tokio::spawn(connection);
        }
    });
    address
}

fn head(ask: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("{ask} HTTP/1.1\r\nhost: test\r\nauthorization: Bearer ann\r\ntus-resumable: 1.0.0\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head + "\r\n"
}

/// Sends `text` and reads until the server closes or is silent.
async fn talk(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

async fn ask(address: SocketAddr, text: &str) -> String {
    talk(&mut TcpStream::connect(address).await.unwrap(), text).await
}

const WAIT: (&str, &str) = ("expect", "100-continue");

#[tokio::test]
async fn who_waits_for_100_continue_is_told_before_it_sends() {
    let wire = wire().await;
    let address = listen(&wire).await;
    let id = wire.created(&[("upload-length", "10")], "0123").await;
    let patch = format!("PATCH /files/{id}");
    for (offset, len, status) in [("3", "4", "409"), ("4", "7", "413"), ("x", "4", "400")] {
        let headers = [BYTES, WAIT, ("upload-offset", offset), ("content-length", len)];
        let answer = ask(address, &head(&patch, &headers)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers = [BYTES, WAIT, ("upload-offset", "4"), ("content-length", "6")];
    let answer = talk(&mut stream, &head(&patch, &headers)).await;
    assert_eq!(answer, "HTTP/1.1 100 Continue\r\n\r\n");
    let answer = talk(&mut stream, "456789").await;
    assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    assert_eq!(wire.get(&id).await.text, "0123456789");
}

#[tokio::test]
async fn a_checksum_may_come_after_a_chunked_body() {
    let wire = wire().await;
    let address = listen(&wire).await;
    let id = wire.created(&[("upload-length", "10")], "0123").await;
    for (checksum, status, offset) in [
        ("AAAAAAAAAAAAAAAAAAAAAA==", "460", "4"),
        ("ZWLFwfM9tuBaCCqIzdq16g==", "204", "8"),
    ] {
        let headers = [
            BYTES,
            ("upload-offset", "4"),
            ("transfer-encoding", "chunked"),
            ("trailer", "Upload-Checksum"),
        ];
        let head = head(&format!("PATCH /files/{id}"), &headers);
        let text = format!("{head}2\r\n45\r\n2\r\n67\r\n0\r\nUpload-Checksum: md5 {checksum}\r\n\r\n");
        let answer = ask(address, &text).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(&format!("upload-offset: {offset}\r\n")), "{answer}");
    }
}

#[tokio::test]
async fn a_lost_connection_keeps_what_came() {
    let wire = wire().await;
    let address = listen(&wire).await;
    let id = wire.created(&[("upload-length", "10")], "").await;
    let headers = [BYTES, ("upload-offset", "0"), ("content-length", "10")];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let answer = talk(
        &mut stream,
        &format!("{}01234", head(&format!("PATCH /files/{id}"), &headers)),
    )
    .await;
    assert_eq!(answer, "");
    drop(stream);
    assert_eq!(wire.head(&id).await.header("upload-offset"), "5");

    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers = [BYTES, ("upload-length", "10"), ("content-length", "10")];
    talk(&mut stream, &format!("{}012", head("POST /files", &headers))).await;
    drop(stream);
    let kept = async {
        while wire.all().await[0].2 != 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), kept).await.unwrap();
}

#[tokio::test]
async fn a_method_in_a_header_answers_a_head_without_a_body() {
    let wire = serve(engine().await, Tus::new().method_override());
    let address = listen(&wire).await;
    let id = wire.created(&[("upload-length", "10")], "0123").await;
    let headers = [("x-http-method-override", "HEAD"), ("content-length", "0")];
    let answer = ask(address, &head(&format!("POST /files/{id}"), &headers)).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("upload-offset: 4\r\n") && answer.contains("content-length: 0\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_download_has_its_length() {
    let wire = wire().await;
    let address = listen(&wire).await;
    let id = wire.created(&[("upload-length", "10")], "0123456789").await;
    let answer = ask(address, &head(&format!("GET /files/{id}"), &[("range", "bytes=3-5")])).await;
    assert!(
        answer.starts_with("HTTP/1.1 206 ") && answer.ends_with("\r\n\r\n345"),
        "{answer}"
    );
    assert!(
        answer.contains("content-length: 3\r\n") && !answer.contains("transfer-encoding"),
        "{answer}"
    );
    let answer = ask(address, &head(&format!("HEAD /uploads/{id}/content"), &[])).await;
    assert!(
        answer.contains("content-length: 10\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    let answer = ask(address, &head(&format!("HEAD /files/{id}"), &[])).await;
    assert!(
        answer.contains("upload-offset: 10\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}
