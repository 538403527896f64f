//! The monitor's paths, and what is answered at each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query, Request};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::json;

use crate::admin::Admin;
use crate::admin::answer::Answer;
use crate::admin::history::Range;
use crate::admin::subcommands;
use crate::admin::view::View;
use crate::admin::warm::Keys;
use crate::command::ProxySubcommand;
use crate::config::{Config, Live};
use crate::history::unix_time;
use crate::resp::Version;
use crate::worker_state::windows::Asker;

use super::auth;
use super::host;
use super::page;
use super::prometheus;
use super::stream::Readers;

/// What the paths show.
#[derive(Clone)]
pub struct State {
    /// The state of the rest.
    pub admin: Arc<Admin>,
    /// What is configured now.
    pub config: Live<Arc<Config>>,
    /// The readers of the stream.
    pub readers: Readers,
}

/// A subcommand of PROXY that `/api/<name>` shows as JSON.
struct Shown {
    subcommand: ProxySubcommand,
    /// What is asked of it, if it can do other things too. A reader must not be able to choose those.
    does: Option<&'static str>,
    /// The parameter that is its last argument. Empty: it takes none.
    parameter: &'static str,
}

const SHOWN: &[Shown] = &[
    Shown { subcommand: ProxySubcommand::Advice, does: None, parameter: "" },
    Shown { subcommand: ProxySubcommand::Explain, does: None, parameter: "key" },
    Shown { subcommand: ProxySubcommand::HotKeys, does: None, parameter: "n" },
    Shown { subcommand: ProxySubcommand::BigKeys, does: None, parameter: "n" },
    Shown { subcommand: ProxySubcommand::Rules, does: None, parameter: "" },
    Shown { subcommand: ProxySubcommand::Report, does: None, parameter: "hours" },
    Shown { subcommand: ProxySubcommand::Fleet, does: None, parameter: "" },
    Shown { subcommand: ProxySubcommand::Events, does: None, parameter: "n" },
    Shown { subcommand: ProxySubcommand::SlowLog, does: Some("get"), parameter: "n" },
];

/// All paths.
pub(super) fn router(state: State) -> Router {
    let paths = Paths::default()
        .route("/livez", get(|| async { Json(json!({ "live": true })) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/info", get(info))
        .route("/api/alerts", get(alerts).put(set_alerts))
        .route("/api/config", get(settings).patch(change_settings))
        .route("/api/config/reload", post(reload))
        .route("/api/config/rewrite", post(rewrite))
        .route("/api/flush", post(flush))
        .route("/api/compress", post(try_compression))
        .route("/api/decompress", get(decompressed).post(start_decompressing).delete(cancel_decompressing))
        .route("/api/warm", get(warm_up).post(start_warm_up).delete(cancel_warm_up))
        .route("/api/dashboard", get(dashboard))
        .route("/api/history", get(history))
        .route("/api/fields", get(fields))
        .route("/api/stream", get(stream))
        .list_at("/api");
    page::with_page(paths.router)
        .route("/api/{name}", get(shown))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "there is no such path; / shows what there is") })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .layer(middleware::from_fn_with_state(state.clone(), known_host))
        .layer(middleware::from_fn(in_time))
        .with_state(state)
}

/// Paths as they are added, so that one of them can list them all.
#[derive(Default)]
struct Paths {
    router: Router<State>,
    names: Vec<String>,
}

impl Paths {
    fn route(mut self, path: &'static str, methods: MethodRouter<State>) -> Self {
        self.names.push(path.to_owned());
        self.router = self.router.route(path, methods);
        self
    }

    /// Adds a path that lists those below it, and whether a token is configured, without which nothing can be changed.
    fn list_at(mut self, path: &'static str) -> Self {
        let shown = SHOWN.iter().map(|shown| format!("/api/{}", shown.subcommand.name()));
        let mut paths: Vec<String> =
            self.names.into_iter().chain(shown).filter(|name| name.starts_with(path)).collect();
        paths.sort_unstable();
        // No async closure: with one, the compiler finds a cycle in the types.
        let list = move |_: MayRead, state: axum::extract::State<State>| async move {
            let has_token = auth::Token::is_set(&state.config.get());
            Json(json!({ "paths": paths, "has_token": has_token }))
        };
        self.router = self.router.route(path, get(list));
        self.names = Vec::new();
        self
    }
}

/// An error as JSON.
fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

/// How long a request may take until its answer begins, its body included.
const PATIENCE: Duration = Duration::from_secs(30);

/// Refuses a request whose body does not come.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => error(StatusCode::REQUEST_TIMEOUT, "the request has taken too long"),
    }
}

/// Refuses a request under a name that is not known.
async fn known_host(state: axum::extract::State<State>, request: Request, next: Next) -> Response {
    let allowed = host::check(request.uri().path(), request.headers(), &state.config.get().monitor_hosts);
    match allowed {
        Ok(()) => next.run(request).await,
        Err((status, text)) => error(status, text),
    }
}

/// The request may read. Each path but `/livez`, `/readyz` and the page wants this, or [`MayChange`].
struct MayRead;

impl FromRequestParts<State> for MayRead {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Response> {
        let allowed = auth::check(&state.config.get(), &parts.headers, false);
        allowed.map(|()| MayRead).map_err(|(status, text)| error(status, text))
    }
}

/// The request may change something.
struct MayChange;

impl FromRequestParts<State> for MayChange {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Response> {
        let allowed = auth::check(&state.config.get(), &parts.headers, true);
        allowed.map(|()| MayChange).map_err(|(status, text)| error(status, text))
    }
}

async fn ready(state: axum::extract::State<State>) -> Response {
    let reasons = state.admin.unready();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn metrics(_: MayRead, state: axum::extract::State<State>, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    let form = prometheus::Form::accepted(&accepted);
    match prometheus::text(&state.admin.sources(), form) {
        Ok(text) => ([(CONTENT_TYPE, form.content_type())], text).into_response(),
        Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
    }
}

async fn info(
    _: MayRead,
    state: axum::extract::State<State>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let sections: Vec<&[u8]> =
        query.get("section").into_iter().flat_map(|names| names.split(',')).map(str::as_bytes).collect();
    Json(state.admin.info_view(&sections)).into_response()
}

/// The alerts.
async fn alerts(_: MayRead, state: axum::extract::State<State>) -> Response {
    Json(state.admin.alerts_view()).into_response()
}

/// Sets thresholds of alerts: `{"hit_rate_min": 0.8, "response_time_max": "50ms"}`. All or none.
async fn set_alerts(_: MayChange, state: axum::extract::State<State>, body: String) -> Response {
    let Some(thresholds) = texts(&body) else {
        return error(StatusCode::BAD_REQUEST, "the body must be a JSON object of thresholds by name");
    };
    match state.admin.set_thresholds(thresholds).await {
        Ok(()) => Json(state.admin.alerts_view()).into_response(),
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
    }
}

/// Drops keys from L1: `?pattern=` those that match, `?fleet=true` in every Shortstop of the fleet.
async fn flush(
    _: MayChange,
    state: axum::extract::State<State>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    // A misspelt pattern would drop everything.
    if query.keys().any(|name| !["pattern", "fleet"].contains(&name.as_str())) {
        return error(StatusCode::BAD_REQUEST, "this takes pattern and fleet");
    }
    let pattern = query.get("pattern").map_or("*", String::as_str);
    let fleet = match query.get("fleet").map(String::as_str) {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return error(StatusCode::BAD_REQUEST, "fleet is true or false"),
    };
    view_or_error(state.admin.flush(pattern.as_bytes().to_vec(), fleet).await.map(|()| View::Ok))
}

/// What each codec and level would save: `?pattern=`, on `?count=` values.
async fn try_compression(
    _: MayChange,
    state: axum::extract::State<State>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let (pattern, count) = match pattern_and_count(&query) {
        Ok(asked) => asked,
        Err(why) => return error(StatusCode::BAD_REQUEST, why),
    };
    view_or_error(state.admin.try_compression(pattern, count, OWN).await)
}

/// The parameters pattern and count.
fn pattern_and_count(query: &HashMap<String, String>) -> Result<(Vec<u8>, Option<usize>), &'static str> {
    let Some(pattern) = query.get("pattern") else {
        return Err("say which keys: ?pattern=user:*");
    };
    let count = query.get("count").map(|count| count.parse().ok().filter(|count| *count > 0));
    if count == Some(None) {
        return Err("count must be a number, 1 or more");
    }
    Ok((pattern.clone().into_bytes(), count.flatten()))
}

/// How far the conversion of stored values to plain is.
async fn decompressed(_: MayRead, state: axum::extract::State<State>) -> Response {
    Json(state.admin.decompressor.view()).into_response()
}

/// Begins to turn stored values to plain: `?pattern=`, in database `?db=`.
async fn start_decompressing(
    _: MayChange,
    state: axum::extract::State<State>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let Some(pattern) = query.get("pattern") else {
        return error(StatusCode::BAD_REQUEST, "say which keys: ?pattern=user:*");
    };
    let Ok(db) = query.get("db").map_or(Ok(0), |db| db.parse()) else {
        return error(StatusCode::BAD_REQUEST, "db must be the number of a database");
    };
    let started = state.admin.decompress(pattern.clone().into_bytes(), Asker { db, ..OWN });
    view_or_error(started.map(|()| state.admin.decompressor.view()))
}

/// Ends the conversion.
async fn cancel_decompressing(_: MayChange, state: axum::extract::State<State>) -> Response {
    state.admin.decompressor.cancel();
    Json(state.admin.decompressor.view()).into_response()
}

/// How far the warm-up of L1 is.
async fn warm_up(_: MayRead, state: axum::extract::State<State>) -> Response {
    Json(state.admin.warmer.view()).into_response()
}

/// Begins to read keys into L1: `?pattern=`, and at most `?count=` of them.
async fn start_warm_up(
    _: MayChange,
    state: axum::extract::State<State>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let (pattern, count) = match pattern_and_count(&query) {
        Ok(asked) => asked,
        Err(why) => return error(StatusCode::BAD_REQUEST, why),
    };
    let started = state.admin.warm(Keys::Matching(pattern), count.map(|count| count as u64), OWN);
    view_or_error(started.map(|()| state.admin.warmer.view()))
}

/// Ends the warm-up.
async fn cancel_warm_up(_: MayChange, state: axum::extract::State<State>) -> Response {
    state.admin.warmer.cancel();
    Json(state.admin.warmer.view()).into_response()
}

/// The settings in force; `?pattern=` gives those whose keys match.
async fn settings(
    _: MayRead,
    state: axum::extract::State<State>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let patterns: Vec<&[u8]> = query.get("pattern").into_iter().map(String::as_bytes).collect();
    Json(state.admin.settings_view(&patterns)).into_response()
}

/// Changes settings: `{"l1.max_memory": "1gb", "max_staleness": "10s"}`. All or none.
async fn change_settings(_: MayChange, state: axum::extract::State<State>, body: String) -> Response {
    match texts(&body) {
        Some(settings) => view_or_error(state.admin.set(settings).await),
        None => error(StatusCode::BAD_REQUEST, "the body must be a JSON object of settings by key"),
    }
}

/// Reads the configuration again.
async fn reload(_: MayChange, state: axum::extract::State<State>) -> Response {
    view_or_error(state.admin.reload().await)
}

/// Writes changed settings into the file.
async fn rewrite(_: MayChange, state: axum::extract::State<State>) -> Response {
    view_or_error(state.admin.rewrite().await)
}

/// The values of a JSON object by their names, as they would be typed. `None`: it is none.
fn texts(body: &str) -> Option<Vec<(String, String)>> {
    let values = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(body).ok()?;
    let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Some(values.into_iter().map(|(name, value)| (name, text(value))).collect())
}

/// What a change has done, or why it was refused.
fn view_or_error(done: Result<View, String>) -> Response {
    match done {
        Ok(view) => Json(view).into_response(),
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
    }
}

/// The numbers of a dashboard.
async fn dashboard(_: MayRead, state: axum::extract::State<State>) -> Response {
    Json(state.admin.dashboard_view(unix_time())).into_response()
}

/// The history of a time: `?from=&to=` in seconds of Unix time, `&points=`.
async fn history(
    _: MayRead,
    state: axum::extract::State<State>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let number = |name: &str| match query.get(name).map(|text| text.parse::<u64>()) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(()),
    };
    match (number("from"), number("to"), number("points")) {
        (Ok(from), Ok(to), Ok(points)) => {
            Json(state.admin.history_view(Range { from, to, points }, unix_time())).into_response()
        }
        _ => error(StatusCode::BAD_REQUEST, "from, to and points are whole numbers"),
    }
}

/// What the fields of INFO mean.
async fn fields(_: MayRead, state: axum::extract::State<State>) -> Response {
    Json(state.admin.fields_view()).into_response()
}

async fn stream(_: MayRead, state: axum::extract::State<State>) -> Response {
    let full = "as many readers as may be are connected to the stream; ask again, or close one";
    state.readers.join(&state.admin).unwrap_or_else(|| error(StatusCode::SERVICE_UNAVAILABLE, full))
}

/// What a subcommand of PROXY shows.
async fn shown(
    _: MayRead,
    state: axum::extract::State<State>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let Some(Shown { subcommand, does, parameter }) = SHOWN.iter().find(|shown| shown.subcommand.name() == name) else {
        return error(StatusCode::NOT_FOUND, "there is no such path");
    };
    let words = [Some("proxy"), Some(name.as_str()), *does, query.get(*parameter).map(String::as_str)];
    let args: Vec<&[u8]> = words.into_iter().flatten().map(str::as_bytes).collect();
    // Values of clients are for those who show the token.
    let sees_values = auth::check(&state.config.get(), &headers, true).is_ok();
    answer(&state.admin, *subcommand, &args, Asker { sees_values, ..OWN }).await
}

/// Who asks when the monitor does: a client that has just connected, in database 0.
const OWN: Asker = Asker { version: Version::Resp3, db: 0, user: 0, sees_values: false };

/// Answers `PROXY …` as JSON.
async fn answer(admin: &Arc<Admin>, subcommand: ProxySubcommand, args: &[&[u8]], asker: Asker) -> Response {
    let answer: Result<View, String> = match subcommands::answer(admin, subcommand, args, asker) {
        Answer::View(view) => Ok(view),
        Answer::Later(view) => view.await,
        Answer::Error(text) => Err(text),
        Answer::Frame(_) => Err("ERR this subcommand has no JSON form".to_owned()),
    };
    match answer {
        Ok(view) => Json(view).into_response(),
        Err(text) => error(StatusCode::BAD_REQUEST, text.strip_prefix("ERR ").unwrap_or(&text)),
    }
}
