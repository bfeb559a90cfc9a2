//! The figures that the servers tell Prometheus.

use crate::{
    client::{Connection, head},
    server::{ALICE, NOBODY, Server, file},
};

/// What is answered at the address for figures.
async fn figures(server: &Server) -> String {
    let output = server.output();
    let address = output
        .lines()
        .find_map(|line| line.strip_prefix("metrics on http://")?.strip_suffix("/metrics"))
        .unwrap();
    let mut connection = Connection::open(address).await;
    connection.write("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let reply = connection.reply().await.unwrap();
    assert_eq!(reply.status, 200);
    reply.text().to_owned()
}

fn value(figures: &str, name: &str) -> f64 {
    let line = figures
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

async fn an_upload_moves_the_figures(which: &'static str) {
    let token = format!("--token={ALICE}=alice");
    let server = Server::with(which, [&*token, "--metrics=127.0.0.1:0"]);
    let name = |name: &str| format!("tower_upload_{name}");
    let before = figures(&server).await;
    assert_eq!(value(&before, &name("received_bytes_total")), 0.0);

    let file = file(250_000);
    let upload = server.session(&file, 100_000, None, "film.mp4").await;
    for (index, chunk) in file.chunks(100_000).enumerate() {
        assert!(server.put(&upload, index, chunk).await.status < 300);
    }
    // Sent again it is compared, and counts as no other chunk.
    assert!(server.put(&upload, 0, &file[..100_000]).await.status < 300);
    let refused = server.get(&format!("uploads/{upload}/"), NOBODY).await;
    assert_eq!(refused.status, 401);
    let done = server
        .ask(&format!("POST uploads/{upload}/assemble/"), ALICE, &[], "")
        .await;
    assert!(done.status < 300, "{done:?}");

    let now = figures(&server).await;
    for (figure, expected) in [
        ("received_bytes_total", 250_000.0),
        ("committed_bytes_total", 250_000.0),
        ("committed_parts_total", 3.0),
        ("uploads_created_total{protocol=\"chunk\"}", 1.0),
        ("uploads_ended_total{state=\"assembled\"}", 1.0),
        ("assembly_duration_seconds_count{outcome=\"assembled\"}", 1.0),
        (
            "request_duration_seconds_count{dialect=\"chunk\",outcome=\"success\"}",
            6.0,
        ),
        (
            "request_duration_seconds_count{dialect=\"chunk\",outcome=\"refused\"}",
            1.0,
        ),
        (
            "store_call_duration_seconds_count{store=\"blob\",operation=\"complete\"}",
            1.0,
        ),
    ] {
        assert_eq!(value(&now, &name(figure)), expected, "{figure}:\n{now}");
    }
    assert!(now.contains("# HELP tower_upload_open_uploads "), "{now}");
    for secret in [ALICE, "alice", "film", &*upload] {
        assert!(!now.contains(secret), "{secret}:\n{now}");
    }

    // They are not told where the application is reached.
    let mut connection = server.connect().await;
    connection
        .write(head("GET /metrics", NOBODY, &[("Content-Length", "0")]))
        .await;
    assert!(!connection.reply().await.unwrap().text().contains("tower_upload_"));
}

#[tokio::test]
async fn an_upload_moves_the_figures_of_axum() {
    an_upload_moves_the_figures("axum").await;
}

#[tokio::test]
async fn an_upload_moves_the_figures_of_hyper() {
    an_upload_moves_the_figures("hyper").await;
}

#[tokio::test]
async fn an_upload_moves_the_figures_of_warp() {
    an_upload_moves_the_figures("warp").await;
}
