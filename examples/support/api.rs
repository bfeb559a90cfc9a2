//! The host's own routes below the mount: `create-video/` and `videos/…`. No framework in here: request in, response out.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use serde::Serialize;
use tokio::sync::Semaphore;
use tower_upload::{Caller, State, UploadId, Uploads, http::UrlSigner, metadata::Page};

use super::{
    BoxError,
    auth::User,
    catalogue::{Catalogue, Status, Video},
    content, create_video,
    envelope::{Body, Refusal, success},
    ticket::Tickets,
};

/// How many bodies of `create-video/` may be in memory at once.
const FORMS: usize = 8;
/// How long an address for watching works: longer than the film. Whether its owner may still see it is asked at each request.
const WATCH: Duration = Duration::from_secs(6 * 3600);

/// The catalogue over HTTP. Takes paths below the mount, like the upload service.
#[derive(Clone, Debug)]
pub struct Videos(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    catalogue: Catalogue,
    uploads: Uploads,
    tickets: Tickets,
    mount: String,
    /// Where HLS streams are made.
    streams: Option<UrlSigner>,
    forms: Semaphore,
}

#[derive(Serialize)]
struct Row {
    id: u64,
    title: String,
    video_path: Option<String>,
    processing_status: Status,
}

#[derive(Serialize)]
struct Details {
    id: u64,
    title: String,
    description: String,
    category: Option<i64>,
    thumbnail: Option<String>,
    processing_status: Status,
    video_path: Option<String>,
}

#[derive(Serialize)]
struct Address {
    url: String,
    upload_id: Option<String>,
    /// The master playlist, once the first rendition is finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    hls: Option<String>,
}

impl Videos {
    pub fn new(
        catalogue: Catalogue,
        uploads: Uploads,
        mount: &str,
        tickets: Tickets,
        streams: Option<UrlSigner>,
    ) -> Self {
        Self(Arc::new(Inner {
            catalogue,
            uploads,
            tickets,
            mount: mount.to_owned(),
            streams,
            forms: Semaphore::new(FORMS),
        }))
    }

    /// Whether a path below the mount is the catalogue's.
    pub fn owns(path: &str) -> bool {
        let first = path.trim_start_matches('/').split('/').next();
        matches!(first, Some("create-video" | "videos"))
    }

    /// Answers a request, which [`Tokens::identify`](super::auth::Tokens::identify) has seen.
    pub async fn answer<B>(self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let answer = self.0.dispatch(&parts, body).await;
        answer.unwrap_or_else(Refusal::into_response)
    }
}

impl<B> tower_service::Service<Request<B>> for Videos
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let videos = self.clone();
        Box::pin(async move { Ok(videos.answer(request).await) })
    }
}

impl Inner {
    async fn dispatch<B>(&self, parts: &Parts, body: B) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let path = parts.uri.path().trim_matches('/');
        let segments: Vec<&str> = path.split('/').collect();
        let method = if parts.method == Method::HEAD {
            &Method::GET
        } else {
            &parts.method
        };
        match (segments.as_slice(), method) {
            (["create-video"], &Method::POST) => self.create(parts, body).await,
            (["videos"], &Method::GET) => self.list(user(parts)?).await,
            (["videos", id], &Method::GET) => {
                let video = self.video(id, user(parts)?).await?;
                Ok(success(StatusCode::OK, Details::from(video)))
            }
            (["videos", id, "ticket"], &Method::POST) => {
                let user = user(parts)?;
                let video = self.video(id, user).await?;
                let ticket = self.tickets.issue(video.id, &user.id, SystemTime::now());
                let url = format!("{}/videos/{}/content?ticket={ticket}", self.mount, video.id);
                let hls = video.upload().and_then(|upload| self.stream(user, upload));
                let upload_id = video.upload().map(|upload| upload.to_string());
                Ok(success(StatusCode::OK, Address { url, upload_id, hls }))
            }
            (["videos", id, "content"], &Method::GET) => self.content(id, parts).await,
            (["create-video"] | ["videos", _, "ticket"], _) => Ok(only("POST")),
            (["videos"] | ["videos", _] | ["videos", _, "content"], _) => Ok(only("GET, HEAD")),
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, "Not found")),
        }
    }

    async fn create<B>(&self, parts: &Parts, body: B) -> Result<Response<Body>, Refusal>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let user = user(parts)?;
        let busy = |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "The server is busy; try again").retry_after(1);
        let _place = self.forms.try_acquire().map_err(busy)?;
        let new = create_video::read(parts, body).await?;
        let video = self.catalogue.create(&user.id, new).await?;
        let location = format!("{}/videos/{}/", self.mount, video.id);
        let mut response = success(StatusCode::CREATED, Details::from(video));
        if let Ok(location) = HeaderValue::from_str(&location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    }

    /// The address of the HLS stream of a file. The signature is part of its path, so that it covers what the playlists name.
    fn stream(&self, user: &User, upload: UploadId) -> Option<String> {
        let path = self.streams.as_ref()?.hls(&Caller::new(&user.id), upload, WATCH);
        Some(format!("{}/media{path}", self.mount))
    }

    async fn list(&self, user: &User) -> Result<Response<Body>, Refusal> {
        self.catch_up(user).await?;
        let rows: Vec<Row> = self.catalogue.of(&user.id).into_iter().map(Row::from).collect();
        Ok(success(StatusCode::OK, rows))
    }

    async fn video(&self, id: &str, user: &User) -> Result<Video, Refusal> {
        let find = || id.parse().ok().and_then(|id| self.catalogue.find(id, &user.id));
        let video = find().ok_or_else(|| unknown(id))?;
        if video.video_path.is_some() {
            return Ok(video);
        }
        self.catch_up(user).await?;
        find().ok_or_else(|| unknown(id))
    }

    /// The event that a file is finished comes a moment after the answer to the client who sent it. Who asks in between shall
    /// see it, too.
    async fn catch_up(&self, user: &User) -> Result<(), Refusal> {
        if self
            .catalogue
            .of(&user.id)
            .iter()
            .all(|video| video.video_path.is_some())
        {
            return Ok(());
        }
        for upload in self
            .uploads
            .list(&Caller::new(&user.id), Page::new(0, 50))
            .await?
            .iter()
            .rev()
        {
            if let (State::Assembled, Some(video)) = (upload.state(), upload.target()) {
                self.catalogue
                    .assembled(video.as_str(), upload.id(), upload.key().as_str())
                    .await?;
            }
        }
        Ok(())
    }

    /// For who has a ticket, or sends a token.
    async fn content(&self, id: &str, parts: &Parts) -> Result<Response<Body>, Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        let ticket = query.split('&').find_map(|pair| pair.strip_prefix("ticket="));
        let owner = match (user(parts), ticket) {
            (Ok(user), _) => user.id.to_string(),
            (Err(_), Some(ticket)) => {
                let owner = id.parse().ok().and_then(|id| Some((id, self.catalogue.owner(id)?)));
                let valid = owner.filter(|(id, owner)| self.tickets.is_valid(ticket, *id, owner, SystemTime::now()));
                let refused = || {
                    Refusal::new(
                        StatusCode::FORBIDDEN,
                        "The ticket is not valid any more; ask for another",
                    )
                };
                valid.ok_or_else(refused)?.1
            }
            (Err(refusal), None) => return Err(refusal),
        };
        let video = self
            .video(
                id,
                &User {
                    id: owner.as_str().into(),
                },
            )
            .await?;
        let none = || Refusal::new(StatusCode::NOT_FOUND, "The video is not uploaded yet");
        let upload = video.upload().ok_or_else(none)?;
        content::answer(&self.uploads, &Caller::new(owner), upload, parts).await
    }
}

fn user(parts: &Parts) -> Result<&User, Refusal> {
    parts.extensions.get().ok_or_else(Refusal::sign_in)
}

fn unknown(id: &str) -> Refusal {
    let shown: String = id.chars().filter(|c| c.is_ascii_alphanumeric()).take(32).collect();
    Refusal::new(StatusCode::NOT_FOUND, format!("Video with id {shown} not found"))
}

fn only(methods: &'static str) -> Response<Body> {
    let mut response = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("Only {methods}")).into_response();
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

impl From<Video> for Row {
    fn from(video: Video) -> Self {
        Self {
            id: video.id,
            title: video.title,
            video_path: video.video_path,
            processing_status: video.processing_status,
        }
    }
}

impl From<Video> for Details {
    fn from(video: Video) -> Self {
        Self {
            id: video.id,
            title: video.title,
            description: video.description,
            category: video.category,
            thumbnail: video.thumbnail,
            processing_status: video.processing_status,
            video_path: video.video_path,
        }
    }
}
