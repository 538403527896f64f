//! Which values of a command are announced to services (`announce_values`): the whole value that a key gets, how long it lives, and how the
//! reply will say that it has got it.

use std::time::Duration;

use bytes::Bytes;

use crate::bus::Update;
use crate::command::Verb;
use crate::exchange::announced::{Announced, Effect};
use crate::proxy::call::Call;
use crate::proxy::client::Client;
use crate::resp::parse_int;

/// Size of the largest value that is announced.
const MAX_VALUE: usize = 256 << 10;

/// Bytes of values of one worker that may wait for replies.
const MAX_WAITING: usize = 16 << 20;

impl Client {
    /// Adds a value to those that are announced if the command takes effect.
    pub(super) fn announce(&self, announced: &mut Option<Announced>, call: Call<'_>, key: &[u8], value: &[u8]) {
        let Some(updates) = &self.context.shared.updates else { return };
        if value.len() > MAX_VALUE {
            return updates.too_large();
        }
        let args = call.args;
        let announced =
            announced.get_or_insert_with(|| Announced::new(effect(call.row.verb, args), &self.context.announced));
        let ttl = ttl(call.row.verb, args);
        let update = Update { key: key.into(), value: Bytes::copy_from_slice(value), ttl };
        if !announced.add(update, MAX_WAITING) {
            updates.dropped();
        }
    }
}

/// The options behind the values.
fn options<'a, 'b>(verb: Verb, args: &'a [&'b [u8]]) -> &'a [&'b [u8]] {
    let begins = match verb {
        Verb::Set => 3,
        Verb::MSetEx => {
            let pairs = args.get(1).and_then(|count| parse_int(count)).and_then(|count| usize::try_from(count).ok());
            pairs.and_then(|pairs| pairs.checked_mul(2)).map_or(usize::MAX, |words| words.saturating_add(2))
        }
        _ => usize::MAX,
    };
    args.get(begins..).unwrap_or_default()
}

fn effect(verb: Verb, args: &[&[u8]]) -> Effect {
    let has = |word: &[u8]| options(verb, args).iter().any(|option| option.eq_ignore_ascii_case(word));
    match verb {
        Verb::Set if !has(b"get") => Effect::Ok,
        Verb::Set if has(b"nx") => Effect::Nil,
        Verb::Set if has(b"xx") => Effect::Value,
        Verb::SetNx | Verb::MSetNx | Verb::MSetEx => Effect::One,
        _ => Effect::Anything,
    }
}

/// How long the keys live. `None`: for ever, or it is not known.
fn ttl(verb: Verb, args: &[&[u8]]) -> Option<Duration> {
    let seconds = |word: &[u8]| parse_int(word).and_then(|number| u64::try_from(number).ok()).map(Duration::from_secs);
    let millis = |word: &[u8]| parse_int(word).and_then(|number| u64::try_from(number).ok()).map(Duration::from_millis);
    match verb {
        Verb::SetEx => seconds(args.get(2)?),
        Verb::PSetEx => millis(args.get(2)?),
        _ => options(verb, args).windows(2).find_map(|pair| match pair {
            [unit, time] if unit.eq_ignore_ascii_case(b"ex") => seconds(time),
            [unit, time] if unit.eq_ignore_ascii_case(b"px") => millis(time),
            _ => None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Effect, effect, ttl};
    use crate::command::Table;

    #[test]
    fn options_say_how_long_a_value_lives_and_what_the_reply_means() {
        let table = Table::builtin();
        let cases = [
            ("SET k v", Effect::Ok, None),
            ("SET ex 10", Effect::Ok, None),
            ("SET k get EX 10 NX", Effect::Ok, Some(10_000)),
            ("SET k v px 1500 GET", Effect::Anything, Some(1500)),
            ("SET k v GET NX", Effect::Nil, None),
            ("SET k v XX get", Effect::Value, None),
            ("SET k v KEEPTTL", Effect::Ok, None),
            ("SET k v EXAT 99999999999", Effect::Ok, None),
            ("SET k v EX -1", Effect::Ok, None),
            ("SETEX k 10 v", Effect::Anything, Some(10_000)),
            ("PSETEX k 10 v", Effect::Anything, Some(10)),
            ("SETNX k v", Effect::One, None),
            ("GETSET k v", Effect::Anything, None),
            ("MSET k v ex 5", Effect::Anything, None),
            ("MSETNX k v l w", Effect::One, None),
        ];
        for (line, how, millis) in cases {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let verb = table.resolve(&args).verb;
            assert_eq!((effect(verb, &args), ttl(verb, &args)), (how, millis.map(Duration::from_millis)), "{line}");
        }
    }
}
