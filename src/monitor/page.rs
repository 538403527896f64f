//! The page at `/`, and the files that it consists of. They are part of the program, and ask for nothing from elsewhere: the policy that
//! is sent along forbids it.

use axum::Router;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::IntoResponse;
use axum::routing::get;

/// What a browser may do for the page: use its own files, ask this monitor, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type and content of each file.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page/index.html")),
    ("/page/page.css", STYLE, include_str!("page/page.css")),
    ("/page/page.js", SCRIPT, include_str!("page/page.js")),
    ("/page/source.js", SCRIPT, include_str!("page/source.js")),
    ("/page/token.js", SCRIPT, include_str!("page/token.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/format.js", SCRIPT, include_str!("page/format.js")),
    ("/page/summary.js", SCRIPT, include_str!("page/summary.js")),
    ("/page/alerts.js", SCRIPT, include_str!("page/alerts.js")),
    ("/page/charts.js", SCRIPT, include_str!("page/charts.js")),
    ("/page/explain.js", SCRIPT, include_str!("page/explain.js")),
    ("/page/fleet.js", SCRIPT, include_str!("page/fleet.js")),
    ("/page/keys.js", SCRIPT, include_str!("page/keys.js")),
    ("/page/advice.js", SCRIPT, include_str!("page/advice.js")),
    ("/page/events.js", SCRIPT, include_str!("page/events.js")),
    ("/page/report.js", SCRIPT, include_str!("page/report.js")),
    ("/page/fields.js", SCRIPT, include_str!("page/fields.js")),
    ("/page/actions.js", SCRIPT, include_str!("page/actions.js")),
    ("/page/uplot.js", SCRIPT, include_str!("page/vendor/uPlot.iife.min.js")),
    ("/page/uplot.css", STYLE, include_str!("page/vendor/uPlot.min.css")),
    ("/page/uplot-licence.txt", "text/plain; charset=utf-8", include_str!("page/vendor/LICENSE")),
];

/// Adds their paths.
pub(super) fn with_page<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    FILES.iter().fold(router, |router, (path, kind, content)| router.route(path, get(async || file(kind, content))))
}

fn file(kind: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // The files belong to one version of the program.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, content)
}
