//! With TLS the server's certificate is checked.

use std::time::Duration;

use tower_upload::ErrorKind;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_must_be_one_that_is_trusted() {
    let Some(server) = postgres_server::start() else { return };
    let certificate = server.certify();
    let plain = open(&server, "tls").await;
    run(plain.pool(), "ALTER SYSTEM SET ssl = on").await;
    run(plain.pool(), "SELECT pg_reload_conf()").await;
    while ask(plain.pool(), "SHOW ssl").await != "on" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let verified = server.url().replace("sslmode=disable", "sslmode=verify-full");
    let trusted = format!("{verified}&sslrootcert={}", certificate.display());
    let store = options("tls").connect(&trusted).await.unwrap();
    create(&store, 1).await;
    let encrypted = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(ask(store.pool(), encrypted).await, "true");
    assert_eq!(ask(plain.pool(), encrypted).await, "false");

    let error = options("tls").connect(&verified).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("TLS"), "{error:?}");
}
