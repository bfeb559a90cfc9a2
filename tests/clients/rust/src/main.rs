//! The crate tusc: `rust-clients ENDPOINT TOKEN create FILE` prints the upload's URL, `… resume FILE URL` where it goes on.
use std::{error::Error, path::Path};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tusc::{TusClient, Url};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, token, command, file, rest @ ..] = &args[..] else {
        return Err("ENDPOINT TOKEN create|resume FILE [URL]".into());
    };
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}"))?);
    let client = TusClient::new(endpoint)?.with_headers(headers);
    let file = Path::new(file);
    let url = match (command.as_str(), rest) {
        ("create", []) => {
            let info = client.server_info().await?;
            if !info.has_extension("creation") {
                return Err("the server has no extension creation".into());
            }
            let len = file.metadata()?.len();
            let url = client.create(len, Some(&[("filename", "talk.mp4")])).await?;
            println!("url {url}");
            url
        }
        ("resume", [url]) => {
            let url = Url::parse(url)?;
            println!("resumed {}", client.get_offset(&url).await?.offset);
            url
        }
        _ => return Err("create FILE, or resume FILE URL".into()),
    };
    client.upload(&url, file).await?;
    println!("done {url}");
    Ok(())
}
