//! What a call changes at a real server, against what the command table says that it may change: no key is changed that is not
//! named, in any database.

use std::collections::BTreeMap;

use shortstop::command::{Class, Keys, Table, Verb};
use smallvec::SmallVec;

use super::common::{Client, command, show};
use super::frame::Frame;

/// All keys of all databases, each with a digest of its value and the end of its life.
const LOOK: &str = "local all = {} for db = 0, 15 do redis.call('SELECT', db) for _, key in ipairs(redis.call('KEYS', '*')) do \
    local ends = redis.call('PEXPIRETIME', key) \
    all[#all + 1] = {tostring(db), key, redis.sha1hex(redis.call('DUMP', key)), tostring(ends)} end end return all";

/// A database and a key.
pub type Place = (u32, Vec<u8>);

/// What is at a place: its value's digest, and whether its life ends by itself.
type Contents = BTreeMap<Place, (Vec<u8>, Vec<u8>)>;

/// What is there now.
pub fn look(client: &mut Client) -> Contents {
    let reply = client.call(&[b"EVAL", LOOK.as_bytes(), b"0"]);
    let Some(Frame::Many(_, Some(rows))) = Frame::of(&reply) else { panic!("{}", show(&reply)) };
    let text = |frame: &Frame| frame.text().expect("a text").to_vec();
    rows.iter()
        .map(|row| {
            let Frame::Many(_, Some(parts)) = row else { panic!("a row") };
            let db = String::from_utf8_lossy(&text(&parts[0])).parse().expect("a database");
            ((db, text(&parts[1])), (text(&parts[2]), text(&parts[3])))
        })
        .collect()
}

/// The places where something is another thing than before. What only came to the end of its life is none.
pub fn changed(before: &Contents, after: &Contents) -> Vec<Place> {
    let mut places: Vec<Place> = before
        .iter()
        .filter(|(place, was)| match after.get(*place) {
            Some(is) => is != *was,
            None => was.1 == b"-1",
        })
        .map(|(place, _)| place.clone())
        .collect();
    places.extend(after.keys().filter(|place| !before.contains_key(*place)).cloned());
    places
}

/// What a call may change by the table, sent in database 0; none: anything, or it is no call for this test.
pub fn named(table: &Table, args: &[&[u8]]) -> Option<Vec<Place>> {
    let row = table.resolve(args);
    let ours = matches!(row.class_for(args), Class::Stateless | Class::Blocking);
    if !ours || row.verb == Verb::Script || row.name.is_empty() || !row.arity_ok(args.len()) {
        return None;
    }
    if !row.is_write() {
        return Some(Vec::new());
    }
    let mut keys = SmallVec::new();
    if row.keys(args, &mut keys) == Keys::Unknown {
        return None;
    }
    let mut dbs = vec![0];
    dbs.extend(row.other_databases(args));
    Some(dbs.iter().flat_map(|db| keys.iter().map(|at| (*db, args[*at as usize].to_vec()))).collect())
}

/// Sends a call, and tells what it changed.
pub fn effect(client: &mut Client, args: &[&[u8]]) -> (Vec<u8>, Vec<Place>) {
    let before = look(client);
    client.send(&command(args));
    let reply = client.reply();
    (reply, changed(&before, &look(client)))
}
