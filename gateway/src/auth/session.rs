//! A browser's session: signing in by URL, the cookie, and telling our own page from other sites.

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::app::Shared;
use crate::pages;

const COOKIE: &str = "orrery_session";
const COOKIE_SECONDS: u32 = 30 * 86_400;

/// The query of a sign-in URL.
#[derive(Debug, Deserialize)]
pub struct SignIn {
    /// The operator's token.
    pub token: String,
}

/// `GET /login?token=…` and `GET /?token=…`: sets the session cookie and leads to the page, so that the token does
/// not stay in the address bar.
pub async fn sign_in(State(app): State<Shared>, Query(query): Query<SignIn>) -> Response {
    if !app.trust.is_operator(query.token.trim()) {
        app.metrics.count_refusal(401);
        return pages::sign_in_page(Some(
            "This token is not known here. Use the one that orrery up printed last.",
        ));
    }
    let secure = if app.origins.https { "; Secure" } else { "" };
    let cookie = format!(
        "{COOKIE}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={COOKIE_SECONDS}{secure}",
        app.trust.operator().session()
    );
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, "/")]).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Whether a request for the page comes from a signed-in browser.
pub fn signed_in(app: &Shared, headers: &HeaderMap) -> bool {
    cookie(headers).is_some_and(|value| app.trust.is_session(value))
}

/// The value of the session cookie, if there is one.
pub fn cookie(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// Which sites are our own.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    /// The authority of the public URL, where there is one.
    public: Option<String>,
    /// Whether browsers reach us over TLS.
    pub https: bool,
}

impl Origins {
    /// Reads the public URL of the configuration.
    pub fn new(public_url: Option<&str>) -> Self {
        let uri: Option<Uri> = public_url.and_then(|url| url.parse().ok());
        Self {
            https: uri.as_ref().is_some_and(|uri| uri.scheme_str() == Some("https")),
            public: uri.and_then(|uri| uri.authority().map(|authority| authority.as_str().to_owned())),
        }
    }

    /// Whether a browser says that our own page asked. A request with neither header is not from a page.
    pub fn match_request(&self, request: &Request) -> bool {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        let Some(origin) = text(header::ORIGIN) else {
            return text(header::HeaderName::from_static("sec-fetch-site")) == Some("same-origin");
        };
        let Some((_, authority)) = origin.split_once("://") else {
            return false;
        };
        let asked = text(header::HOST).or_else(|| request.uri().authority().map(|authority| authority.as_str()));
        asked.is_some_and(|host| host.eq_ignore_ascii_case(authority))
            || self
                .public
                .as_deref()
                .is_some_and(|host| host.eq_ignore_ascii_case(authority))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn request(headers: &[(&str, &str)]) -> Request {
        let builder = headers
            .iter()
            .fold(Request::builder().uri("/"), |builder, (k, v)| builder.header(*k, *v));
        builder.body(Body::empty()).unwrap()
    }

    #[test]
    fn only_our_own_page_matches() {
        let plain = Origins::default();
        let behind = Origins::new(Some("https://bench.example"));
        assert!(behind.https && !plain.https);
        let own = request(&[("host", "127.0.0.1:7070"), ("origin", "http://127.0.0.1:7070")]);
        let neighbour = request(&[("host", "127.0.0.1:7070"), ("origin", "http://127.0.0.1:9000")]);
        let proxied = request(&[("host", "10.0.0.1:7070"), ("origin", "https://bench.example")]);
        assert!(plain.match_request(&own));
        assert!(!plain.match_request(&neighbour));
        assert!(!plain.match_request(&proxied) && behind.match_request(&proxied));
        assert!(!plain.match_request(&request(&[("host", "x"), ("origin", "null")])));
        assert!(!plain.match_request(&request(&[("host", "x")])));
        assert!(plain.match_request(&request(&[("sec-fetch-site", "same-origin")])));
        assert!(!plain.match_request(&request(&[("sec-fetch-site", "same-site")])));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let jar = request(&[("cookie", "a=b; orrery_session=xyz"), ("cookie", "orrery_session_2=no")]);
        assert_eq!(cookie(jar.headers()), Some("xyz"));
        assert_eq!(cookie(request(&[("cookie", "xorrery_session=1")]).headers()), None);
    }
}
