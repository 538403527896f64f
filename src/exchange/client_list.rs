//! The output of CLIENT LIST and CLIENT INFO for Shortstop's clients, in the format of the Redis server in use.
//!
//! Names and order of the fields are taken from a line that Redis wrote about one of Shortstop's connections, so they fit each
//! version. If a client has a session, Redis's line about that session provides what only Redis knows: flags, subscriptions, the
//! transaction, watched keys. All other fields come from Shortstop. Must not decide who may see the list.

use std::io::Write as _;
use std::mem::discriminant;
use std::net::IpAddr;
use std::time::Instant;

use crate::client_state::client::ClientState;
use crate::net::Address;
use crate::resp::parse_int;
use crate::upstream::Expected;

/// A client's data, in a form that can be sent to another worker.
pub struct Record {
    pub(crate) id: u64,
    addr: Option<Address>,
    local_addr: Option<Address>,
    fd: i32,
    name: Vec<u8>,
    age: u64,
    idle: u64,
    db: u32,
    resp: u8,
    user: Vec<u8>,
    library: [Vec<u8>; 2],
    last: Option<Box<str>>,
    worker: usize,
    unread: usize,
    waiting: usize,
    stalled: bool,
    received: u64,
    sent: u64,
    commands: u64,
    subscribed: bool,
    /// The Redis client id of its session.
    pub(crate) session: Option<u64>,
    /// Shortstop's client id to which its invalidations are redirected.
    redirect: u64,
}

impl Record {
    /// The record of a client of this worker. `last` is the name of its last command.
    pub(crate) fn of<E: Expected>(client: &ClientState<E>, worker: usize, last: Option<&str>) -> Record {
        let now = Instant::now();
        let (info, profile, reply_queue) = (&client.info, &client.profile, &client.reply_queue);
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let session = client.session();
        Record {
            id: info.id,
            addr: info.addr.clone(),
            local_addr: info.local_addr.clone(),
            fd: info.fd,
            name: profile.name.borrow().clone(),
            age: info.since.map_or(0, seconds),
            idle: seconds(reply_queue.active.get()),
            db: profile.db(),
            resp: profile.version().number(),
            user: profile.identity().login.as_ref().map_or_else(|| b"default".to_vec(), |login| login.user().to_vec()),
            library: info.library.borrow().clone(),
            last: last.map(Into::into),
            worker,
            unread: info.unread.get(),
            waiting: reply_queue.len(),
            stalled: reply_queue.stalled.get().is_some(),
            received: info.received.get(),
            sent: info.sent.get(),
            commands: info.commands.get(),
            subscribed: session.as_ref().is_some_and(|session| session.is_subscribed()),
            session: session.as_ref().and_then(|session| session.link.id()),
            redirect: session.map_or(0, |session| session.redirect.get()),
        }
    }
}

/// A line of CLIENT LIST, without its line feed.
#[derive(Clone, Copy)]
pub struct Line<'a>(pub(crate) &'a [u8]);

impl<'a> Line<'a> {
    /// The lines of a reply to CLIENT LIST.
    pub(crate) fn all(list: &'a [u8]) -> impl Iterator<Item = Line<'a>> {
        list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(Line)
    }

    /// The format of Redis 7.0. It is used when Redis has written no line to copy the format from.
    pub(crate) const USUAL: Line<'static> = Line(
        b"id=0 addr= laddr= fd=0 name= age=0 idle=0 flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 \
          multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd=client|list user= redir=-1 resp=2",
    );

    fn fields(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0.split(|byte| *byte == b' ').filter_map(|field| {
            let at = field.iter().position(|byte| *byte == b'=')?;
            Some((&field[..at], &field[at + 1..]))
        })
    }

    fn get(self, name: &[u8]) -> Option<&'a [u8]> {
        self.fields().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    /// The client id in the line.
    pub(crate) fn id(self) -> Option<u64> {
        self.get(b"id").and_then(parse_int).and_then(|id| u64::try_from(id).ok())
    }
}

/// The fields that are taken from Redis's line about the client's session.
const OF_THE_SESSION: &[&[u8]] =
    &[b"flags", b"db", b"sub", b"psub", b"ssub", b"multi", b"watch", b"multi-mem", b"capa"];

/// Writes a client's line with the fields of `form`. `own` is Redis's line about the client's session.
pub(crate) fn write_line(out: &mut Vec<u8>, form: Line<'_>, client: &Record, own: Option<Line<'_>>) {
    // Redis before 7 shows no subcommands.
    let whole_names = form.get(b"cmd").is_none_or(|cmd| cmd == b"NULL" || cmd.contains(&b'|'));
    for (at, (name, shown)) in form.fields().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        if let Some(value) = own.filter(|_| OF_THE_SESSION.contains(&name)).and_then(|own| own.get(name)) {
            out.extend_from_slice(value);
            continue;
        }
        // Writing to memory does not fail.
        let _ = match name {
            b"id" => write!(out, "{}", client.id),
            b"addr" => out.write_all(address(client.addr.as_ref()).as_bytes()),
            b"laddr" => out.write_all(address(client.local_addr.as_ref()).as_bytes()),
            b"fd" => write!(out, "{}", client.fd),
            b"name" => out.write_all(&client.name),
            b"age" => write!(out, "{}", client.age),
            b"idle" => write!(out, "{}", client.idle),
            b"flags" => out.write_all(b"N"),
            b"db" => write!(out, "{}", client.db),
            b"multi" => out.write_all(b"-1"),
            b"qbuf" => write!(out, "{}", client.unread),
            b"omem" => write!(out, "{}", client.waiting),
            b"tot-mem" => write!(out, "{}", client.waiting + client.unread),
            b"events" => out.write_all(if client.stalled { b"rw" } else { b"r" }),
            b"cmd" => {
                let name = client.last.as_deref().unwrap_or("NULL");
                out.write_all(if whole_names { name } else { name.split('|').next().unwrap_or(name) }.as_bytes())
            }
            b"user" => out.write_all(&client.user),
            b"redir" => match own.and_then(|own| own.get(b"redir")).and_then(parse_int) {
                Some(1..) => write!(out, "{}", client.redirect),
                redirect => write!(out, "{}", redirect.unwrap_or(-1)),
            },
            b"resp" => write!(out, "{}", client.resp),
            b"lib-name" => out.write_all(&client.library[0]),
            b"lib-ver" => out.write_all(&client.library[1]),
            b"io-thread" => write!(out, "{}", client.worker),
            b"tot-net-in" => write!(out, "{}", client.received),
            b"tot-net-out" => write!(out, "{}", client.sent),
            b"tot-cmds" => write!(out, "{}", client.commands),
            // Fields that Shortstop cannot fill: numbers become 0, words stay empty.
            _ if parse_int(shown).is_some() => out.write_all(b"0"),
            _ => Ok(()),
        };
    }
    out.push(b'\n');
}

/// An address in Redis's notation.
fn address(address: Option<&Address>) -> String {
    match address {
        None => "?:0".to_owned(),
        Some(Address::Tcp(address)) => address.to_string(),
        Some(Address::Unix(path)) => format!("{}:0", path.display()),
    }
}

/// The client types that Shortstop has. Redis's other types do not occur here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientKind {
    Normal,
    PubSub,
    Other,
}

#[derive(Debug)]
enum Test {
    Ids(Vec<i64>),
    Addr(Vec<u8>),
    LocalAddr(Vec<u8>),
    Kind(ClientKind),
    User(Vec<u8>),
    MaxAge(u64),
    Idle(u64),
    Name(Vec<u8>),
    Library(usize, Vec<u8>),
    Db(u32),
    Ip(Option<IpAddr>),
}

/// Which clients CLIENT LIST or CLIENT KILL selects.
#[derive(Debug, Default)]
pub struct Filter {
    /// The tests. The flag is false for an inverted test.
    tests: Vec<(Test, bool)>,
    /// Exclude the client that asks.
    pub(crate) skip_me: bool,
}

impl Filter {
    /// Selects the clients from one address: the old form of CLIENT KILL.
    pub(crate) fn address(address: &[u8]) -> Filter {
        Filter { tests: vec![(Test::Addr(address.to_vec()), true)], skip_me: false }
    }

    /// The filter for options that Redis has accepted. `None` if Shortstop does not know one of them.
    pub(crate) fn of(options: &[&[u8]], skip_me: bool) -> Option<Filter> {
        let mut filter = Filter { tests: Vec::new(), skip_me };
        let mut rest = options;
        while let [option, value, after @ ..] = rest {
            rest = after;
            let option = option.to_ascii_lowercase();
            // Valkey's inverted options.
            let (option, wanted) = option.strip_prefix(b"not-").map_or((&option[..], true), |option| (option, false));
            let number = || parse_int(value).and_then(|number| u64::try_from(number).ok());
            let test = match option {
                b"id" => {
                    let mut ids = vec![parse_int(value)?];
                    // Valkey accepts several ids.
                    while let [more, after @ ..] = rest
                        && let Some(id) = parse_int(more)
                    {
                        ids.push(id);
                        rest = after;
                    }
                    // Redis 6.2 ignores the id 0.
                    if ids == [0] {
                        continue;
                    }
                    Test::Ids(ids)
                }
                b"addr" => Test::Addr(value.to_vec()),
                b"laddr" => Test::LocalAddr(value.to_vec()),
                b"type" => Test::Kind(match &value.to_ascii_lowercase()[..] {
                    b"normal" => ClientKind::Normal,
                    b"pubsub" => ClientKind::PubSub,
                    b"master" | b"primary" | b"slave" | b"replica" => ClientKind::Other,
                    _ => return None,
                }),
                b"user" => Test::User(value.to_vec()),
                b"maxage" => Test::MaxAge(number()?),
                b"idle" => Test::Idle(number()?),
                b"name" => Test::Name(value.to_vec()),
                b"lib-name" => Test::Library(0, value.to_vec()),
                b"lib-ver" => Test::Library(1, value.to_vec()),
                b"db" => Test::Db(number().and_then(|db| u32::try_from(db).ok())?),
                b"ip" => Test::Ip(std::str::from_utf8(value).ok().and_then(|ip| ip.parse().ok())),
                b"skipme" if wanted => {
                    filter.skip_me = value.eq_ignore_ascii_case(b"yes");
                    continue;
                }
                _ => return None,
            };
            // If an option is repeated, Redis uses the last one.
            let same = |known: &Test| match (known, &test) {
                (Test::Library(a, _), Test::Library(b, _)) => a == b,
                (known, test) => discriminant(known) == discriminant(test),
            };
            filter.tests.retain(|(known, is_wanted)| !(same(known) && *is_wanted == wanted));
            filter.tests.push((test, wanted));
        }
        rest.is_empty().then_some(filter)
    }

    /// The ids of `CLIENT LIST ID …`, in the order of the request. The reply has the same order.
    pub(crate) fn only_ids(&self) -> Option<&[i64]> {
        match &self.tests[..] {
            [(Test::Ids(ids), true)] => Some(ids),
            _ => None,
        }
    }

    pub(crate) fn admits(&self, client: &Record, asker: u64) -> bool {
        let shape = |test: &Test| match test {
            Test::Ids(ids) => ids.iter().any(|id| u64::try_from(*id) == Ok(client.id)),
            Test::Addr(wanted) => address(client.addr.as_ref()).as_bytes() == wanted,
            Test::LocalAddr(wanted) => address(client.local_addr.as_ref()).as_bytes() == wanted,
            Test::Kind(kind) => *kind == if client.subscribed { ClientKind::PubSub } else { ClientKind::Normal },
            Test::User(user) => client.user == *user,
            Test::MaxAge(age) => client.age >= *age,
            Test::Idle(idle) => client.idle >= *idle,
            Test::Name(name) => client.name == *name,
            Test::Library(which, value) => client.library[*which] == *value,
            Test::Db(db) => client.db == *db,
            Test::Ip(ip) => {
                ip.is_some() && client.addr.as_ref().and_then(Address::ip).map(|address| address.ip()) == *ip
            }
        };
        !(self.skip_me && client.id == asker) && self.tests.iter().all(|(test, wanted)| shape(test) == *wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Filter, Line, Record, write_line};

    fn client() -> Record {
        Record {
            id: 7,
            addr: "127.0.0.1:5000".parse::<SocketAddr>().ok().map(Into::into),
            local_addr: "[::1]:6380".parse::<SocketAddr>().ok().map(Into::into),
            fd: 9,
            name: b"me".to_vec(),
            age: 60,
            idle: 3,
            db: 2,
            resp: 3,
            user: b"default".to_vec(),
            library: [b"lib".to_vec(), b"1.0".to_vec()],
            last: Some("client|list".into()),
            worker: 1,
            unread: 5,
            waiting: 6,
            stalled: false,
            received: 100,
            sent: 200,
            commands: 4,
            subscribed: false,
            session: Some(55),
            redirect: 8,
        }
    }

    fn line(form: &str, own: Option<&str>) -> String {
        let mut out = Vec::new();
        write_line(&mut out, Line(form.as_bytes()), &client(), own.map(|own| Line(own.as_bytes())));
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_line_has_the_fields_of_its_form_in_their_order() {
        let form =
            "id=3 addr=1.2.3.4:5 fd=8 laddr=x name= resp=2 lib-name=a b=word lib-ver= flags=N c=12 multi=-1 cmd=get|x";
        assert_eq!(
            line(form, None),
            "id=7 addr=127.0.0.1:5000 fd=9 laddr=[::1]:6380 name=me resp=3 lib-name=lib b= lib-ver=1.0 flags=N c=0 multi=-1 \
             cmd=client|list\n"
        );
    }

    #[test]
    fn fields_that_only_redis_knows_come_from_its_line() {
        let form = "id=3 flags=N db=0 sub=0 multi=-1 watch=0 redir=-1 cmd=client";
        let own = "id=55 flags=xt db=4 sub=2 multi=3 watch=1 redir=66 cmd=exec";
        assert_eq!(line(form, Some(own)), "id=7 flags=xt db=4 sub=2 multi=3 watch=1 redir=8 cmd=client\n");
        assert_eq!(line(form, None), "id=7 flags=N db=2 sub=0 multi=-1 watch=0 redir=-1 cmd=client\n");
    }

    fn admits(options: &str) -> Option<bool> {
        let words: Vec<&[u8]> = options.split_ascii_whitespace().map(str::as_bytes).collect();
        Filter::of(&words, true).map(|filter| filter.admits(&client(), 1))
    }

    #[test]
    fn filters_select_by_every_option() {
        for (options, expected) in [
            ("", Some(true)),
            ("ID 7", Some(true)),
            ("id 8", Some(false)),
            ("ID 8 ID 7", Some(true)),
            ("ID 7 ID 8", Some(false)),
            ("ID 8 7 9 TYPE normal", Some(true)),
            ("ID 0", Some(true)),
            ("NOT-ID 7", Some(false)),
            ("NOT-ID 8 9", Some(true)),
            ("ADDR 127.0.0.1:5000", Some(true)),
            ("ADDR 127.0.0.1:5001", Some(false)),
            ("LADDR [::1]:6380 USER default", Some(true)),
            ("USER other", Some(false)),
            ("TYPE pubsub", Some(false)),
            ("TYPE replica", Some(false)),
            ("MAXAGE 60", Some(true)),
            ("MAXAGE 61", Some(false)),
            ("NAME me LIB-NAME lib LIB-VER 1.0 DB 2 IP 127.0.0.1 IDLE 3", Some(true)),
            ("LIB-NAME lib LIB-VER 2", Some(false)),
            ("SKIPME no", Some(true)),
            ("CAPA r", None),
            ("ID", None),
            ("FLAGS N", None),
        ] {
            assert_eq!(admits(options), expected, "{options}");
        }
        let of = |skip_me| Filter::of(&[], skip_me).expect("nothing is well formed");
        assert_eq!((of(true).admits(&client(), 7), of(false).admits(&client(), 7)), (false, true));
    }
}
