//! Compares the keys that a call changes in a real server with the command table: no unnamed key is changed, in any database.

use std::collections::BTreeMap;

use shortstop::command::{Class, Keys, Table, Verb};
use smallvec::SmallVec;

use super::common::{Client, command, show};
use super::frame::Frame;

/// All keys of all databases, each with the time at which it expires (-1: never).
const LOOK: &str = "local all = {} for db = 0, 15 do redis.call('SELECT', db) for _, key in ipairs(redis.call('KEYS', '*')) do \
                    all[#all + 1] = {tostring(db), key, tostring(redis.call('PEXPIRETIME', key))} end end return all";

/// A database and a key.
pub type Place = (u32, Vec<u8>);

/// What is at a place: the value's digest, and when the key expires (-1: never).
type Contents = BTreeMap<Place, (Vec<u8>, Vec<u8>)>;

/// What is there now. A digest does not depend on the order in which a value is stored.
pub fn look(client: &mut Client) -> Contents {
    let rows = parts(&client.call(&[b"EVAL", LOOK.as_bytes(), b"0"]));
    let mut contents = Contents::new();
    for row in rows {
        let Frame::Many(_, Some(row)) = row else { panic!("a row") };
        let db: u32 = String::from_utf8_lossy(&text(&row[0])).parse().expect("a database");
        let key = text(&row[1]);
        client.cmd(&format!("SELECT {db}"));
        let digest = parts(&client.call(&[b"DEBUG", b"DIGEST-VALUE", &key]));
        contents.insert((db, key), (text(&digest[0]), text(&row[2])));
    }
    client.cmd("SELECT 0");
    contents
}

fn parts(reply: &[u8]) -> Vec<Frame> {
    match Frame::of(reply) {
        Some(Frame::Many(_, Some(parts))) => parts,
        _ => panic!("{}", show(reply)),
    }
}

fn text(frame: &Frame) -> Vec<u8> {
    frame.text().expect("a text").to_vec()
}

/// The places where something has changed. A key that only expired does not count.
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

/// The places that a call may change according to the table, sent in database 0. `None`: anything, or the call does not suit this
/// test.
pub fn named(table: &Table, args: &[&[u8]]) -> Option<Vec<Place>> {
    let row = table.resolve(args);
    let ours = matches!(row.class_for(args), Class::Stateless | Class::Blocking);
    if !ours || matches!(row.verb, Verb::Script(_) | Verb::ScriptRo(_)) || row.is_unknown() || !row.arity_ok(args.len())
    {
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

/// Sends a call, and returns what it changed.
pub fn effect(client: &mut Client, args: &[&[u8]]) -> (Vec<u8>, Vec<Place>) {
    let before = look(client);
    client.send(&command(args));
    let reply = client.reply();
    (reply, changed(&before, &look(client)))
}
