//! The dashboard, out of the binary.

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::app::Shared;
use crate::auth::{SignIn, sign_in, signed_in};
use crate::problems::unknown_route;

#[derive(RustEmbed)]
#[folder = "../dashboards/dist"]
struct Dist;

const INDEX: &str = "index.html";
/// Vite puts a hash of the content into the names of files here: they never change.
const HASHED: &str = "assets/";

/// Serves everything that is not the API: files as they are, and the page itself to whoever is signed in.
pub async fn page(State(app): State<Shared>, request: Request) -> Response {
    let path = request.uri().path();
    if path == "/api" || path.starts_with("/api/") {
        return unknown_route(axum::extract::OriginalUri(request.uri().clone()))
            .await
            .into_response();
    }
    if path == "/"
        && let Ok(token) = Query::<SignIn>::try_from_uri(request.uri())
    {
        return sign_in(State(app), token).await;
    }
    let name = path.trim_start_matches('/');
    let headers = request.headers();
    if !name.is_empty()
        && name != INDEX
        && let Some(response) = file(name, headers)
    {
        return response;
    }
    let last = name.rsplit('/').next().unwrap_or_default();
    if last.contains('.') && name != INDEX {
        return (StatusCode::NOT_FOUND, "There is no such file.\n").into_response();
    }
    if !signed_in(&app, headers) {
        return sign_in_page(None);
    }
    file(INDEX, headers).unwrap_or_else(unbuilt_page)
}

fn file(name: &str, headers: &HeaderMap) -> Option<Response> {
    let plain = Dist::get(name)?;
    let tag = format!("W/\"{}\"", hex::encode(&plain.metadata.sha256_hash()[..12]));
    let caching = if name.starts_with(HASHED) {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let kind = mime_guess::from_path(name).first_or_octet_stream();
    let mut response = if knows(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match packed(name, headers) {
            Some((coding, file)) => ([(header::CONTENT_ENCODING, coding)], body(file)).into_response(),
            None => body(plain).into_response(),
        }
    };
    let kind = match kind.type_() {
        mime_guess::mime::TEXT => format!("{kind}; charset=utf-8"),
        _ => kind.to_string(),
    };
    for (name, value) in [
        (header::CONTENT_TYPE, kind.as_str()),
        (header::CACHE_CONTROL, caching),
        (header::ETAG, tag.as_str()),
        (header::VARY, "accept-encoding"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    }
    Some(response)
}

fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    known.is_some_and(|list| list.split(',').any(|known| known.trim() == tag))
}

/// A file that the front end's build compressed already, if it did and the browser takes it.
fn packed(name: &str, headers: &HeaderMap) -> Option<(&'static str, EmbeddedFile)> {
    let accepted = headers.get(header::ACCEPT_ENCODING)?.to_str().ok()?;
    let takes = |coding: &str| {
        accepted.split(',').any(|item| {
            let (name, quality) = item.split_once(';').unwrap_or((item, ""));
            name.trim() == coding && quality.replace(' ', "") != "q=0"
        })
    };
    [("br", "br"), ("gzip", "gz")]
        .into_iter()
        .filter(|(coding, _)| takes(coding))
        .find_map(|(coding, ending)| Some((coding, Dist::get(&format!("{name}.{ending}"))?)))
}

fn body(file: EmbeddedFile) -> axum::body::Body {
    match file.data {
        std::borrow::Cow::Borrowed(bytes) => bytes.into(),
        std::borrow::Cow::Owned(bytes) => bytes.into(),
    }
}

/// What a browser without a session sees.
pub fn sign_in_page(refusal: Option<&str>) -> Response {
    let refusal = refusal
        .map(|text| format!("<p role=\"alert\"><strong>{text}</strong></p>"))
        .unwrap_or_default();
    let page = plain_page(
        "Sign in",
        &format!(
            "{refusal}<p>Open the URL that <code>orrery up</code> printed last, or paste its token here.</p>\
             <form action=\"/login\" method=\"get\"><label for=\"token\">Token</label> \
             <input id=\"token\" name=\"token\" type=\"password\" autocomplete=\"current-password\" required autofocus> \
             <button>Sign in</button></form>\
             <p>The token also stands in the data folder, in <code>keys/operator.token</code>.</p>"
        ),
    );
    (StatusCode::UNAUTHORIZED, [(header::CACHE_CONTROL, "no-store")], page).into_response()
}

fn unbuilt_page() -> Response {
    let page = plain_page(
        "The dashboard is not in this binary",
        "<p>It was compiled before the dashboard was built. Build both with</p><pre>make demo</pre>\
         <p>or the dashboard alone with <code>npm ci &amp;&amp; npm run build</code> in <code>dashboards/</code>, and \
         compile again. The API works: <a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>.</p>",
    );
    (StatusCode::OK, [(header::CACHE_CONTROL, "no-store")], page).into_response()
}

fn plain_page(title: &str, body: &str) -> Html<String> {
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} · Orrery</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <style>:root{{color-scheme:light dark;--page:#d9dcdb;--ink:#121817;--edge:#6d7776}}\
         @media(prefers-color-scheme:dark){{:root{{--page:#121516;--ink:#ecefee;--edge:#7d8888}}}}\
         body{{font:13px/18px B612,system-ui,sans-serif;background:var(--page);color:var(--ink);\
         max-width:34rem;margin:64px auto;padding:0 16px}}h1{{font-size:16px}}a{{color:inherit}}\
         input,button{{font:inherit;color:inherit;background:transparent;border:1px solid var(--edge);\
         border-radius:2px;padding:8px;min-height:32px}}</style></head>\
         <body><main><h1>{title}</h1>{body}</main></body></html>"
    ))
}

/// What every answer says to browsers. Styles may be inline because charts position by style; scripts may not, and
/// WebAssembly may run because proofs are checked in the page.
const SECURITY: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; \
         img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; worker-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Puts the security headers on every answer that does not set its own.
pub async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in SECURITY {
        response
            .headers_mut()
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}
