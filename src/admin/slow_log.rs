//! PROXY SLOWLOG: the last requests that took long.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::metrics::slow_log::SlowRequest;
use crate::resp::parse_int;

use super::Admin;
use super::answer::{Answer, Asked};
use super::view::View;

/// Number of requests that are shown if nobody says how many, as in Redis.
const USUAL: usize = 10;

/// PROXY SLOWLOG.
pub(super) fn slow_log(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let slow_log = &admin.stats.shared.slow_log;
    let sees_values = asked.asker.sees_values;
    let words: Vec<Vec<u8>> = asked.words.iter().map(|word| word.to_ascii_lowercase()).collect();
    match words.iter().map(Vec::as_slice).collect::<Vec<_>>()[..] {
        [b"len"] => Answer::View(View::count(slow_log.len())),
        [b"reset"] => {
            slow_log.reset();
            Answer::Frame(b"+OK\r\n".to_vec())
        }
        [] | [b"get"] => Answer::View(get(admin, USUAL, sees_values)),
        [count] | [b"get", count] => match parse_int(count) {
            Some(-1) => Answer::View(get(admin, usize::MAX, sees_values)),
            Some(count @ 0..) => Answer::View(get(admin, usize::try_from(count).unwrap_or(usize::MAX), sees_values)),
            _ => Answer::Error("ERR count should be greater than or equal to -1".to_owned()),
        },
        _ => Answer::Error("ERR PROXY SLOWLOG takes GET [count], LEN or RESET".to_owned()),
    }
}

fn get(admin: &Admin, count: usize, sees_values: bool) -> View {
    // Behind the command's name usually comes a key.
    let keys = usize::from(!admin.config.get().redact_keys);
    let shown = if sees_values && keys > 0 { usize::MAX } else { keys };
    let requests = admin.stats.shared.slow_log.last(count);
    View::List(requests.iter().map(|(number, request)| view(*number, request, shown)).collect())
}

/// `shown`: so many arguments.
fn view(number: u64, request: &SlowRequest, shown: usize) -> View {
    let named = 1 + usize::from(request.command.contains('|'));
    let arguments =
        request.arguments.iter().enumerate().map(|(at, argument)| match at >= named.saturating_add(shown) {
            true => View::text("(redacted)"),
            false => View::Bytes(argument.clone()),
        });
    // In whole microseconds, so that the parts are the whole.
    let (took, upstream) = (request.took.as_micros(), request.upstream.as_micros());
    let seconds = request.date.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    View::Record(vec![
        ("id", View::count(number)),
        ("time", View::count(seconds)),
        ("took_usec", View::count(took)),
        ("command", View::List(arguments.collect())),
        ("address", View::text(request.address.as_str())),
        ("name", View::Bytes(request.name.clone())),
        ("upstream_usec", View::count(upstream)),
        ("here_usec", View::count(took.saturating_sub(upstream))),
    ])
}
