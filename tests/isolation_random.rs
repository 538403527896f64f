//! Random sequences of all commands that change a connection, with every ending; afterwards the next clients of the worker find
//! nothing of them.
//!
//! `ISOLATION_SEED` sets the seed of the first round, and `ISOLATION_ROUNDS` how many there are; a failure names the seed of its
//! round.

#[path = "differential/chance.rs"]
#[allow(dead_code, reason = "the comparison uses all of it")]
mod chance;
mod common;

use std::time::{Duration, Instant};

use chance::Chance;
use common::{Client, PATIENCE, Redis, Shortstop, assert_reply, bulk, pipeline_of, show};

const ROUNDS: u64 = 400;

/// No more time than this is spent on rounds, however slow the machine is.
const TIME: Duration = Duration::from_secs(12);

/// How long the answer to one step is waited for before the next: it may be one that never comes.
const PACE: Duration = Duration::from_millis(2);

/// The name of the test's own connection to Redis.
const OWN: &str = "mine";

const USERS: &[&str] = &[
    "ACL SETUSER admin on >pa ~* &* +@all",
    "ACL SETUSER lim on >pl ~r:* &* +@all",
    "ACL SETUSER deaf on >pd ~* resetchannels +@all",
    "ACL SETUSER stays on >ps ~* &* +@all -discard -exec -client|no-evict",
    "ACL SETUSER watches on >pw ~* &* +@all -unwatch -multi",
];

/// The clients' logins; the first: none.
const LOGINS: &[&str] = &["", "lim pl", "deaf pd", "stays ps", "watches pw"];

/// What a client does. `$other` is the number of another client.
const LINES: &[&str] = &[
    "MULTI",
    "MULTI",
    "MULTI",
    "MULTI x",
    "EXEC",
    "EXEC",
    "EXEC x",
    "DISCARD",
    "DISCARD",
    "DISCARD x",
    "WATCH r:k",
    "WATCH r:k",
    "WATCH secret",
    "WATCH",
    "UNWATCH",
    "UNWATCH",
    "SUBSCRIBE c",
    "SUBSCRIBE c d c",
    "PSUBSCRIBE c*",
    "SSUBSCRIBE c",
    "UNSUBSCRIBE c",
    "UNSUBSCRIBE",
    "PUNSUBSCRIBE",
    "PUNSUBSCRIBE c* x",
    "SUNSUBSCRIBE",
    "SELECT 0",
    "SELECT 3",
    "SELECT 77",
    "SELECT x",
    "AUTH lim pl",
    "AUTH admin pa",
    "AUTH lim wrong",
    "AUTH x y z",
    "HELLO",
    "HELLO 2",
    "HELLO 3",
    "HELLO 9",
    "HELLO 3 AUTH admin pa",
    "HELLO 2 AUTH admin wrong",
    "HELLO 3 AUTH admin pa AUTH lim wrong",
    "HELLO 2 AUTH admin pa FOO",
    "HELLO 3 AUTH admin pa SETNAME me",
    "HELLO 3 SETNAME me FOO",
    "CLIENT SETNAME me",
    "CLIENT SETINFO LIB-NAME x",
    "CLIENT TRACKING ON",
    "CLIENT TRACKING ON BCAST",
    "CLIENT TRACKING ON OPTIN",
    "CLIENT TRACKING ON REDIRECT $other",
    "CLIENT TRACKING ON REDIRECT 987654321",
    "CLIENT TRACKING OFF",
    "CLIENT CACHING YES",
    "CLIENT NO-EVICT ON",
    "CLIENT NO-EVICT OFF",
    "CLIENT REPLY OFF",
    "CLIENT REPLY SKIP",
    "CLIENT REPLY ON",
    "CLIENT REPLY what",
    "CLIENT GETREDIR",
    "CLIENT INFO",
    "CLIENT UNBLOCK $other",
    "RESET",
    "QUIT",
    "MONITOR",
    "BLPOP r:none 0.01",
    "BLPOP r:none 0",
    "WAIT 0 1",
    "XREAD BLOCK 5 STREAMS r:stream $",
    "GET r:k",
    "GET r:big",
    "GET",
    "INCR r:k",
    "PUBLISH c m",
    "EVAL return(1) 0",
    "SCRIPT DEBUG NO",
    "NOSUCH command",
    "PING",
];

/// How a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Quit,
    Reset,
    Close,
    /// Large replies are on their way.
    CloseInMidReply,
    /// Says that nothing more comes, and reads on.
    HalfClose,
    Kill,
    /// It is still there when the next ones come.
    Stays,
}

const ENDINGS: &[Ending] = &[
    Ending::Quit,
    Ending::Quit,
    Ending::Reset,
    Ending::Close,
    Ending::CloseInMidReply,
    Ending::HalfClose,
    Ending::Kill,
    Ending::Stays,
];

/// One client of a round: what it sends, and how.
struct Player {
    client: Client,
    id: u64,
    lines: Vec<String>,
    piped: bool,
    ending: Ending,
}

/// A client in this state. Nothing needs a private connection yet.
fn client(proxy: &Shortstop, login: &str, db: u32, version: u8) -> Client {
    let mut client = proxy.client();
    let mut lines = vec![format!("HELLO {version}"), format!("SELECT {db}")];
    if !login.is_empty() {
        lines.insert(0, format!("AUTH {login}"));
    }
    for line in &lines {
        let reply = client.cmd(line);
        assert!(!reply.starts_with(b"-"), "{line}: {}", show(&reply));
    }
    client
}

fn number(reply: &[u8]) -> u64 {
    String::from_utf8_lossy(reply).trim_start_matches(':').trim_end().parse().expect("a number")
}

/// Reads what comes within a moment. `false`: the connection has ended.
fn drain(client: &mut Client, pace: Duration) -> bool {
    client.set_patience(pace);
    loop {
        match client.try_reply() {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(error) => {
                return matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            }
        }
    }
}

impl Player {
    fn new(proxy: &Shortstop, chance: &mut Chance, login: &str, db: u32, version: u8) -> Player {
        let mut client = client(proxy, login, db, version);
        let id = number(&client.cmd("CLIENT ID"));
        let lines = (0..chance.between(1, 7)).map(|_| (*chance.pick(LINES)).to_owned()).collect();
        Player { client, id, lines, piped: chance.percent(50), ending: *chance.pick(ENDINGS) }
    }

    fn play(&mut self, admin: &mut Client) {
        let last: &[&str] = match self.ending {
            Ending::Quit => &["QUIT"],
            Ending::Reset => &["RESET"],
            Ending::CloseInMidReply => &["GET r:big", "MULTI", "GET r:big", "GET r:big", "EXEC"],
            _ => &[],
        };
        let lines: Vec<&str> = self.lines.iter().map(String::as_str).chain(last.iter().copied()).collect();
        if self.piped {
            // It may have been closed already.
            let _ = self.client.try_send(&pipeline_of(&lines));
        } else {
            for line in lines {
                if self.client.try_send(&pipeline_of(&[line])).is_err() || !drain(&mut self.client, PACE) {
                    break;
                }
            }
        }
        match self.ending {
            Ending::Kill => drop(admin.cmd(&format!("CLIENT KILL ID {}", self.id))),
            Ending::HalfClose => {
                // It may have been closed already.
                let _ = self.client.stream().shutdown(std::net::Shutdown::Write);
                drain(&mut self.client, PACE * 5);
            }
            Ending::Stays | Ending::Quit | Ending::Reset => drop(drain(&mut self.client, PACE * 2)),
            Ending::Close | Ending::CloseInMidReply => {}
        }
    }
}

/// The line of a connection that Redis has from Shortstop and that is not as new, as far as CLIENT LIST tells.
fn not_as_new(direct: &mut Client) -> Option<String> {
    let list = direct.cmd("CLIENT LIST");
    let list = String::from_utf8_lossy(&list).into_owned();
    let as_new = |line: &str| {
        let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        // Older servers have fewer fields.
        let is = |name: &str, value: &str| field(name).is_none_or(|found| found == value);
        let name = field("name").unwrap_or_default();
        let counts = ["sub", "psub", "ssub", "watch"].iter().all(|count| is(count, "0"));
        name == OWN
            || (is("flags", "N") && is("multi", "-1") && is("redir", "-1") && counts && name.starts_with("shortstop"))
    };
    list.lines().filter(|line| line.starts_with("id=")).find(|line| !as_new(line)).map(str::to_owned)
}

/// What the next clients find: as many at once as a worker keeps connections for.
fn look(proxy: &Shortstop, direct: &mut Client, login: &str, db: u32, version: u8, chance: &mut Chance, context: &str) {
    let context = format!("{context}\nnext: login {login:?}, db {db}, RESP{version}");
    let user = login.split(' ').next().filter(|user| !user.is_empty()).unwrap_or("default");
    let may_multi = user != "watches" && user != "stays";
    let mut clients: Vec<Client> = (0..4).map(|_| client(proxy, login, db, version)).collect();
    for client in &mut clients {
        let (first, expected): (&str, &[u8]) = match (chance.below(3), version) {
            (0, 2) => ("BLPOP r:none 0.001", b"*-1\r\n"),
            (0, _) => ("BLPOP r:none 0.001", b"_\r\n"),
            (1, _) => ("WATCH r:untouched", b"+OK\r\n"),
            _ => ("PING", b"+PONG\r\n"),
        };
        assert_reply(&client.cmd(first), expected, &format!("{context}: {first}"));
        if may_multi {
            assert_reply(&client.cmd("MULTI"), "+OK\r\n", &format!("{context}: MULTI"));
        } else {
            assert_reply(&client.cmd("WATCH r:untouched"), "+OK\r\n", &format!("{context}: WATCH"));
        }
    }
    assert_reply(&direct.cmd(&format!("SELECT {db}")), "+OK\r\n", "select");
    // Who still watched it would see it, as would who is still told what changes.
    direct.cmd("INCR r:k");
    for (at, client) in clients.iter_mut().enumerate() {
        let token = format!("{db}-{version}-{at}");
        let lines = ["ACL WHOAMI".to_owned(), format!("SET r:here {token}"), "HGETALL r:hash".to_owned()];
        let hash: &[u8] = if version == 3 { b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n" } else { b"*2\r\n$1\r\nf\r\n$1\r\nv\r\n" };
        let whoami = bulk(user.as_bytes());
        let answers = [&whoami[..], b"+OK\r\n", hash];
        if may_multi {
            for line in &lines {
                assert_reply(&client.cmd(line), "+QUEUED\r\n", &format!("{context}: {line}"));
            }
            let expected = [b"*3\r\n", &answers.concat()[..]].concat();
            assert_reply(&client.cmd("EXEC"), expected, &format!("{context}: EXEC"));
        } else {
            for (line, answer) in lines.iter().zip(answers) {
                assert_reply(&client.cmd(line), answer, &format!("{context}: {line}"));
            }
        }
        assert_reply(&direct.cmd("GET r:here"), bulk(token.as_bytes()), &format!("{context}: its database"));
        if user == "lim" {
            let reply = client.cmd("GET secret");
            assert!(reply.starts_with(b"-NOPERM"), "{context}: GET secret: {}", show(&reply));
        }
    }
}

fn round(proxy: &Shortstop, direct: &mut Client, seed: u64) {
    let mut chance = Chance::new(seed);
    let login = *chance.pick(LOGINS);
    let states: Vec<(u32, u8)> = vec![(0, 2), (0, 3), (3, 2), (3, 3)];
    let mut players: Vec<Player> = (0..chance.between(1, 3))
        .map(|_| {
            let (db, version) = *chance.pick(&states);
            Player::new(proxy, &mut chance, login, db, version)
        })
        .collect();
    let ids: Vec<u64> = players.iter().map(|player| player.id).collect();
    for player in &mut players {
        let other = chance.pick(&ids).to_string();
        for line in &mut player.lines {
            *line = line.replace("$other", &other);
        }
    }
    let plan: Vec<String> = players
        .iter()
        .map(|player| format!("  {:?}, piped: {}, {:?}", player.lines, player.piped, player.ending))
        .collect();
    let context = format!("ISOLATION_SEED={seed} ISOLATION_ROUNDS=1, login {login:?}\n{}", plan.join("\n"));
    std::thread::scope(|scope| {
        let more: Vec<_> = players
            .iter_mut()
            .map(|player| {
                scope.spawn(|| {
                    let mut admin = client(proxy, "admin pa", 0, 2);
                    player.play(&mut admin);
                })
            })
            .collect();
        more.into_iter().for_each(|one| one.join().expect("a player does not panic"));
    });
    players.retain(|player| player.ending == Ending::Stays);
    if players.is_empty() {
        proxy.wait_stat("proxy_sessions", |sessions| sessions == 0);
        // Connections that were given up may still be closing.
        let end = Instant::now() + PATIENCE;
        while let Some(line) = not_as_new(direct) {
            assert!(Instant::now() < end, "a connection stays that is not as new: {line}\n{context}");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_reply(&direct.cmd("PUBLISH c m"), ":0\r\n", &context);
    }
    for (db, version) in states {
        look(proxy, direct, login, db, version, &mut chance, &context);
    }
}

fn rounds(proxy: &Shortstop, direct: &mut Client, first: u64) {
    for db in [0, 3] {
        direct.cmd(&format!("SELECT {db}"));
        direct.cmd("HSET r:hash f v");
        direct.fill("SET r:big $1", &[&vec![b'x'; 300_000]]);
        direct.cmd("SET secret s3cret");
    }
    direct.cmd(&format!("CLIENT SETNAME {OWN}"));
    // With the last client of a user go the user's connections.
    let _staying: Vec<Client> = LOGINS.iter().map(|login| client(proxy, login, 0, 2)).collect();
    let from_env = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let first = from_env("ISOLATION_SEED").unwrap_or(first);
    let count = from_env("ISOLATION_ROUNDS").unwrap_or(ROUNDS);
    let start = Instant::now();
    for seed in first..first + count {
        round(proxy, direct, seed);
        if start.elapsed() > TIME {
            eprintln!("{} of {count} rounds in {TIME:?}", seed - first + 1);
            break;
        }
    }
}

#[test]
fn the_next_client_finds_nothing_of_the_last() {
    let redis = Redis::start();
    let mut direct = redis.client();
    for line in USERS {
        assert_reply(&direct.cmd(line), "+OK\r\n", line);
    }
    let proxy = Shortstop::start(&redis, "workers: 1");
    rounds(&proxy, &mut direct, 1);
}
