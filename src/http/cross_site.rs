//! Requests that a page of another site has a browser send, with its user's cookies: a form needs nobody's leave for that (the Fetch
//! standard's simple requests, which no preflight announces), and an upload that it begins or ends is its user's.
//!
//! What browsers say of themselves decides, in this order: the `Origin` that the host allows; `Sec-Fetch-Site` (W3C Fetch Metadata); of
//! browsers that do not send that, and over plain HTTP none does, whether `Origin` is an address of this service. Clients
//! that are no browsers send neither, carry nobody else's cookies, and are not concerned.

use http::{HeaderMap, HeaderValue, Method, header, request::Parts};

use super::{cors, settings::Settings};
use crate::error::{Error, ErrorKind};

/// What the host said of pages of other sites, its [`Cors`](super::Cors) aside.
#[derive(Clone, Debug, Default)]
pub(super) struct CrossSite {
    pub(super) allow: bool,
    trusted: Vec<HeaderValue>,
}

impl CrossSite {
    pub(super) fn trust(&mut self, origin: &str) {
        self.trusted.extend(cors::origin(origin));
    }
}

/// Refuses what changes something if a page asks for it that may not.
pub(super) fn refuse_cross_site(settings: &Settings, parts: &Parts) -> Result<(), Error> {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method);
    if is_safe || settings.cross_site.allow {
        return Ok(());
    }
    let headers = &parts.headers;
    let origin = Said::by(headers, header::ORIGIN.as_str());
    if let Said::One(origin) = origin
        && (settings.cross_site.trusted.contains(origin)
            || settings.cors.as_ref().is_some_and(|cors| cors.lets_in(origin, headers)))
    {
        return Ok(());
    }
    let is_own = match (Said::by(headers, "sec-fetch-site"), origin) {
        // `none`: no page at all, but its user.
        (Said::One(site), _) => site == "same-origin" || site == "none",
        (Said::Nothing, Said::One(origin)) => is_address_of(settings, parts, origin),
        (Said::Nothing, Said::Nothing) => true,
        (Said::Many, _) | (_, Said::Many) => false,
    };
    if is_own {
        return Ok(());
    }
    let message = "Pages of other sites may not change anything here, unless the server allows their origin";
    Err(Error::new(ErrorKind::Forbidden, message))
}

/// How often a header is there that is there once.
#[derive(Clone, Copy)]
enum Said<'a> {
    Nothing,
    One(&'a HeaderValue),
    Many,
}

impl<'a> Said<'a> {
    fn by(headers: &'a HeaderMap, name: &str) -> Self {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Self::Nothing,
            (Some(value), None) => Self::One(value),
            (Some(_), Some(_)) => Self::Many,
        }
    }
}

/// Whether `origin` is one under which this request may have been sent. The scheme is not compared: behind a proxy that ends TLS
/// nothing says which it was.
fn is_address_of(settings: &Settings, parts: &Parts, origin: &HeaderValue) -> bool {
    let Some((scheme, host)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    let named = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    let host = named(host);
    !host.is_empty() && settings.hosts(parts).any(|own| named(&own) == host)
}

#[cfg(test)]
mod tests;
