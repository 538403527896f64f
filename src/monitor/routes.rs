//! The monitor's paths, and what is answered at each.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{Path, Query};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::admin::Admin;
use crate::admin::answer::Answer;
use crate::admin::history::Range;
use crate::admin::subcommands;
use crate::admin::view::View;
use crate::command::ProxySubcommand;
use crate::config::{Config, Live};
use crate::history::unix_time;
use crate::resp::Version;
use crate::worker_state::windows::Asker;

use super::auth;
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

/// Subcommands of PROXY that `/api/<name>` shows as JSON, and the parameters that are their arguments, in order.
const SHOWN: &[(ProxySubcommand, &[&str])] = &[
    (ProxySubcommand::Explain, &["key"]),
    (ProxySubcommand::HotKeys, &["n"]),
    (ProxySubcommand::BigKeys, &["n"]),
    (ProxySubcommand::Report, &["hours"]),
    (ProxySubcommand::Events, &["n"]),
    (ProxySubcommand::SlowLog, &["n"]),
];

/// All paths.
pub(super) fn router(state: State) -> Router {
    page::with_page(Router::new())
        .route("/livez", get(|| async { Json(json!({ "live": true })) }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/info", get(info))
        .route("/api/alerts", get(alerts).put(set_alerts))
        .route("/api/dashboard", get(dashboard))
        .route("/api/history", get(history))
        .route("/api/fields", get(fields))
        .route("/api/stream", get(stream))
        .route("/api/{name}", get(shown))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "there is no such path; / shows what there is") })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method")
        })
        .with_state(state)
}

/// An error as JSON.
fn error(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

/// The answer to a request that may not be served. `None`: it may.
fn refusal(state: &State, headers: &HeaderMap, changes: bool) -> Option<Response> {
    auth::check(&state.config.get(), headers, changes).err().map(|(status, text)| error(status, text))
}

async fn ready(state: axum::extract::State<State>) -> Response {
    let reasons = state.admin.unready();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons }))).into_response()
}

async fn metrics(state: axum::extract::State<State>, headers: HeaderMap) -> Response {
    if let Some(refused) = refusal(&state, &headers, false) {
        return refused;
    }
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    let form = prometheus::Form::accepted(&accepted);
    match prometheus::text(&state.admin.sources(), form) {
        Ok(text) => ([(CONTENT_TYPE, form.content_type())], text).into_response(),
        Err(why) => error(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
    }
}

async fn info(
    state: axum::extract::State<State>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = refusal(&state, &headers, false) {
        return refused;
    }
    let sections: Vec<&[u8]> =
        query.get("section").into_iter().flat_map(|names| names.split(',')).map(str::as_bytes).collect();
    Json(state.admin.info_view(&sections)).into_response()
}

/// The alerts.
async fn alerts(state: axum::extract::State<State>, headers: HeaderMap) -> Response {
    refusal(&state, &headers, false).unwrap_or_else(|| Json(state.admin.alerts_view()).into_response())
}

/// Sets thresholds of alerts: `{"hit_rate_min": 0.8, "response_time_max": "50ms"}`. All or none.
async fn set_alerts(state: axum::extract::State<State>, headers: HeaderMap, body: String) -> Response {
    if let Some(refused) = refusal(&state, &headers, true) {
        return refused;
    }
    let Ok(thresholds) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&body) else {
        return error(StatusCode::BAD_REQUEST, "the body must be a JSON object of thresholds by name");
    };
    let text = |value: serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let thresholds: Vec<_> = thresholds.into_iter().map(|(name, value)| (name, text(value))).collect();
    match state.admin.set_thresholds(&thresholds) {
        Ok(()) => Json(state.admin.alerts_view()).into_response(),
        Err(why) => error(StatusCode::BAD_REQUEST, &why),
    }
}

/// The numbers of a dashboard.
async fn dashboard(state: axum::extract::State<State>, headers: HeaderMap) -> Response {
    refusal(&state, &headers, false).unwrap_or_else(|| Json(state.admin.dashboard_view(unix_time())).into_response())
}

/// The history of a time: `?from=&to=` in seconds of Unix time, `&points=`.
async fn history(
    state: axum::extract::State<State>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Some(refused) = refusal(&state, &headers, false) {
        return refused;
    }
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
async fn fields(state: axum::extract::State<State>, headers: HeaderMap) -> Response {
    if let Some(refused) = refusal(&state, &headers, false) {
        return refused;
    }
    Json(state.admin.fields_view()).into_response()
}

async fn stream(state: axum::extract::State<State>, headers: HeaderMap) -> Response {
    if let Some(refused) = refusal(&state, &headers, false) {
        return refused;
    }
    let full = "as many readers as may be are connected to the stream; ask again, or close one";
    state.readers.join(&state.admin).unwrap_or_else(|| error(StatusCode::SERVICE_UNAVAILABLE, full))
}

/// What a subcommand of PROXY shows.
async fn shown(
    state: axum::extract::State<State>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let Some((subcommand, parameters)) = SHOWN.iter().find(|(subcommand, _)| subcommand.name() == name) else {
        return error(StatusCode::NOT_FOUND, "there is no such path");
    };
    if let Some(refused) = refusal(&state, &headers, false) {
        return refused;
    }
    let given = parameters.iter().map_while(|name| query.get(*name)).map(|value| value.as_bytes());
    let args: Vec<&[u8]> = [&b"proxy"[..], name.as_bytes()].into_iter().chain(given).collect();
    answer(&state.admin, *subcommand, &args).await
}

/// Answers `PROXY …` as JSON. The monitor asks as Shortstop itself, in database 0.
async fn answer(admin: &Arc<Admin>, subcommand: ProxySubcommand, args: &[&[u8]]) -> Response {
    let asker = Asker { version: Version::Resp3, db: 0, user: 0 };
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
