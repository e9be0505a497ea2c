//! The middleware in front of `/api/v1`: it turns a token or a cookie into a [`Principal`], and refuses by default.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use orrery_protocol::{Principal, Role};

use super::secret::Kind;
use super::session;
use crate::app::Shared;
use crate::problems::Refusal;

/// How the caller proved who it is.
#[derive(Debug, PartialEq, Eq)]
enum Proof {
    Nothing,
    Bearer,
    /// A browser sends it by itself, also when another site asks it to.
    Cookie,
}

/// Authenticates, authorises, and puts the [`Principal`] into the request for the services behind.
pub async fn gate(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    match admit(&app, &request) {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(refusal) => {
            app.metrics.count_refusal(refusal.problem().status);
            refusal.into_response()
        }
    }
}

fn admit(app: &Shared, request: &Request) -> Result<Principal, Refusal> {
    let (principal, proof) = authenticate(app, request.headers())?;
    if proof == Proof::Cookie && !is_harmless(request) && !app.origins.match_request(request) {
        return Err(Refusal::forbidden(
            "this request carries a browser's session but comes from another site: open the page from its own \
             address, or send `Authorization: Bearer` with a token",
        ));
    }
    authorise(&principal, request.method(), request.uri())?;
    Ok(principal)
}

fn authenticate(app: &Shared, headers: &HeaderMap) -> Result<(Principal, Proof), Refusal> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token =
            token.ok_or_else(|| Refusal::unauthenticated("the Authorization header must read `Bearer` and a token"))?;
        return Ok((by_token(app, token)?, Proof::Bearer));
    }
    match session::cookie(headers) {
        Some(value) if app.trust.is_session(value) => Ok((Principal::operator(), Proof::Cookie)),
        _ => Ok((
            Principal {
                name: "anyone".to_owned(),
                role: Role::Public,
            },
            Proof::Nothing,
        )),
    }
}

fn by_token(app: &Shared, token: &str) -> Result<Principal, Refusal> {
    match Kind::of(token) {
        Some(Kind::Operator) if app.trust.is_operator(token) => Ok(Principal::operator()),
        Some(Kind::Agent) => {
            let agent = app.trust.agent(token).ok_or_else(|| {
                Refusal::unauthenticated(
                    "this agent token is not known here: enrol the agent again with a one-time token",
                )
            })?;
            Ok(Principal {
                name: agent.name,
                role: Role::Agent {
                    devices: agent.devices.to_vec(),
                },
            })
        }
        Some(Kind::Enrolment) => {
            let note = (app.trust.check_enrolment(token, app.clock.wall()))
                .map_err(|refused| Refusal::unauthenticated(refused.to_string()))?;
            Ok(Principal {
                name: enroller_name(&note),
                role: Role::Enroller,
            })
        }
        Some(Kind::Operator) | None => Err(Refusal::unauthenticated(
            "this token is not known here: use the one that `orrery up` prints at its start, or that \
             keys/operator.token in the data folder holds",
        )),
    }
}

/// How the holder of an enrolment token is called in logs and provenance.
pub fn enroller_name(note: &str) -> String {
    if note.is_empty() {
        "enrolment".to_owned()
    } else {
        format!("enrolment {note}")
    }
}

/// What each role may ask for. Whatever is not listed is an operator's.
fn authorise(principal: &Principal, method: &Method, uri: &Uri) -> Result<(), Refusal> {
    let path = uri.path();
    let allowed = match &principal.role {
        Role::Operator => true,
        _ if (method, path) == (&Method::GET, "/openapi.json") => true,
        Role::Agent { .. } => matches!(
            (method.as_str(), path),
            ("POST", "/envelopes" | "/clock/probe") | ("GET", "/control/stream")
        ),
        Role::Enroller => (method, path) == (&Method::POST, "/enrollments"),
        Role::Public => {
            return Err(Refusal::unauthenticated(format!(
                "{path} needs a token: send `Authorization: Bearer` with the one that `orrery up` prints, or open \
                 the URL it prints to sign in a browser"
            )));
        }
    };
    if allowed {
        return Ok(());
    }
    let may = match principal.role {
        Role::Agent { .. } => "an agent may send envelopes, probe the clock and read its commands",
        _ => "an enrolment token opens POST /api/v1/enrollments and nothing else",
    };
    Err(Refusal::forbidden(format!(
        "{} may not {method} {path}: {may}; use the operator's token",
        principal.name
    )))
}

/// Whether the request changes nothing and opens nothing, whoever sends it.
fn is_harmless(request: &Request) -> bool {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    safe && !request.headers().contains_key(header::UPGRADE)
}
