//! Under which names the monitor may be asked. A web site can make its own name lead to a loopback address, and then its scripts may
//! read whatever the browser gets there. They cannot choose the name in the request, so an unknown name is refused.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};

/// What probes and Prometheus ask for, under any name of the machine. These show no key, no value and no address.
const FREE: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Whether a request may be served by the name that it asks for; if not, what it is answered. `names` are those of the configuration.
pub(super) fn check(path: &str, headers: &HeaderMap, names: &[String]) -> Result<(), (StatusCode, &'static str)> {
    if FREE.contains(&path) || is_known(headers, names) {
        return Ok(());
    }
    let why =
        "the monitor is not known under this name; ask for it by its IP address, or add the name to monitor_hosts";
    Err((StatusCode::MISDIRECTED_REQUEST, why))
}

/// Every browser names the host; whoever names none is no browser.
fn is_known(headers: &HeaderMap, names: &[String]) -> bool {
    headers.get_all(HOST).iter().all(|host| host.to_str().is_ok_and(|host| is_host_known(host, names)))
}

fn is_host_known(host: &str, names: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let is_address = match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<Ipv4Addr>().is_ok(),
    };
    is_address || name.eq_ignore_ascii_case("localhost") || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::is_host_known;

    #[test]
    fn addresses_localhost_and_configured_names_are_known() {
        let names = ["cache.internal".to_owned()];
        for host in
            ["127.0.0.1", "127.0.0.1:8083", "10.1.2.3:80", "[::1]:8083", "[fe80::1]", "localhost", "LocalHost:1"]
        {
            assert!(is_host_known(host, &[]), "{host}");
        }
        for host in ["cache.internal", "Cache.Internal:8083", "cache.internal."] {
            assert!(is_host_known(host, &names) && !is_host_known(host, &[]), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "127.0.0.1.evil.example:8083",
            "localhost.evil.example",
            "x@127.0.0.1",
            "[::1",
            "cache.internal.evil",
        ] {
            assert!(!is_host_known(host, &names), "{host}");
        }
    }
}
