//! Random sequences of all commands that change a connection's state, with every kind of ending. Afterwards the worker's next
//! clients find no trace of them.
//!
//! `ISOLATION_SEED` sets the seed of the first round, and `ISOLATION_ROUNDS` the number of rounds. A failure names the seed of its
//! round.

#[path = "differential/chance.rs"]
#[allow(dead_code, reason = "the comparison uses all of it")]
mod chance;
mod common;

use std::time::{Duration, Instant};

use chance::Chance;
use common::{Client, PATIENCE, Redis, Shortstop, assert_reply, bulk, pipeline_of, show, wait_until};

const ROUNDS: u64 = 400;

/// Maximum time for the rounds, however slow the machine is.
const TIME: Duration = Duration::from_secs(20);

/// How long to wait for a reply before the next step: it may never arrive.
const PACE: Duration = Duration::from_millis(2);

/// The name of the test's own connection to Redis.
const OWN: &str = "mine";

const USERS: &[&str] = &[
    "ACL SETUSER admin on >pa ~* &* +@all",
    "ACL SETUSER lim on >pl ~r:* &* +@all",
    "ACL SETUSER deaf on >pd ~* resetchannels +@all",
    "ACL SETUSER stays on >ps ~* &* +@all -discard -client|no-evict",
    "ACL SETUSER watches on >pw ~* &* +@all -unwatch",
    "ACL SETUSER begins on >pb ~* &* +@all -exec",
];

/// The clients' logins. The first one is empty.
const LOGINS: &[&str] = &["", "lim pl", "deaf pd", "stays ps", "watches pw", "begins pb"];

/// A client's commands. `$other` is the id of another client.
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

/// Database and protocol.
const STATES: &[(u32, u8)] = &[(0, 2), (0, 3), (3, 2), (3, 3)];

/// How a client disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Quit,
    Reset,
    Close,
    /// Large replies are in flight.
    CloseInMidReply,
    /// It ends its output, and continues to read.
    HalfClose,
    Kill,
    /// It is still connected when the next clients arrive.
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

/// A client in this state, which does not need a private connection yet.
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

/// Reads what arrives within a moment. Returns false if the connection has ended.
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

/// The line of one of Shortstop's connections in Redis that is not in its initial state, as far as CLIENT LIST shows.
fn not_as_new(direct: &mut Client) -> Option<String> {
    let list = direct.cmd("CLIENT LIST");
    let list = String::from_utf8_lossy(&list).into_owned();
    let as_new = |line: &str| {
        let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        // Older servers have fewer fields.
        let is = |name: &str, value: &str| field(name).is_none_or(|found| found == value);
        let name = field("name").unwrap_or_default();
        // Valkey 9 shows 0 even for a connection that was once in a transaction. One that is in a transaction has the flag `x`.
        let queues_nothing = is("multi", "-1") || is("multi", "0");
        let counts = ["sub", "psub", "ssub", "watch"].iter().all(|count| is(count, "0"));
        name == OWN
            || (is("flags", "N") && queues_nothing && is("redir", "-1") && counts && name.starts_with("shortstop"))
    };
    // The oldest subscriber is Shortstop itself, which looks for other instances.
    let mut itself = list.lines().position(|line| line.contains(" sub=1 "));
    let mut others = list
        .lines()
        .enumerate()
        .filter(|(at, line)| itself.take_if(|itself| itself == at).is_none() && line.starts_with("id="));
    others.find(|(_, line)| !as_new(line)).map(|(_, line)| line.to_owned())
}

/// A next client, its expected state, and its last command.
struct Next {
    client: Client,
    db: u32,
    version: u8,
    first: &'static str,
    token: String,
}

/// What the next clients find in each state: as many at once as a worker keeps connections for.
fn look(proxy: &Shortstop, direct: &mut Client, login: &str, chance: &mut Chance, context: &str) {
    let user = login.split(' ').next().filter(|user| !user.is_empty()).unwrap_or("default");
    let auth = if login.is_empty() { "PING".to_owned() } else { format!("AUTH {login}") };
    // This user has no right to EXEC.
    let begin = if user == "begins" { "WATCH r:untouched" } else { "MULTI" };
    let mut all = Vec::new();
    for (db, version) in STATES {
        for at in 0..4 {
            let mut client = proxy.client();
            let first = *chance.pick(&["BLPOP r:none 0.001", "WATCH r:untouched", "SUBSCRIBE other", "PING"]);
            let (hello, select) = (format!("HELLO {version}"), format!("SELECT {db}"));
            client.send(&pipeline_of(&[&auth, &hello, &select, first, begin]));
            let token = format!("{db}-{version}-{at}");
            all.push(Next { client, db: *db, version: *version, first, token });
        }
    }
    for next in &mut all {
        let Next { client, db, version, first, token } = next;
        let resp3 = *version == 3;
        let context = format!("{context}\nnext: login {login:?}, db {db}, RESP{version}");
        let login = if auth == "PING" { "+PONG\r\n" } else { "+OK\r\n" };
        assert_reply(&client.reply(), login, &format!("{context}: {auth}"));
        client.reply();
        assert_reply(&client.reply(), "+OK\r\n", &format!("{context}: SELECT"));
        let reply = client.reply();
        let expected: &[u8] = match (first.split(' ').next(), resp3) {
            (Some("BLPOP"), false) => b"*-1\r\n",
            (Some("BLPOP"), true) => b"_\r\n",
            (Some("WATCH"), _) => b"+OK\r\n",
            (Some("PING"), _) => b"+PONG\r\n",
            _ if user == "deaf" => b"-NOPERM",
            (_, false) => b"*3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:1\r\n",
            (_, true) => b">3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:1\r\n",
        };
        assert!(reply.starts_with(expected), "{context}: {first}: {}", show(&reply));
        if user == "deaf" || !first.starts_with("SUB") || resp3 {
            assert_reply(&client.reply(), "+OK\r\n", &format!("{context}: {begin}"));
        } else {
            // Subscribed in RESP2.
            assert!(client.reply().starts_with(b"-ERR Can't execute"), "{context}: {begin}");
            client.send(&pipeline_of(&["UNSUBSCRIBE other", begin]));
            client.reply();
            assert_reply(&client.reply(), "+OK\r\n", &format!("{context}: {begin}"));
        }
        let set = format!("SET r:here {token}");
        client.send(&pipeline_of(&["ACL WHOAMI", &set, "HGETALL r:hash"]));
    }
    for (db, _) in STATES {
        // A client that still watches the key, or still receives its invalidations, would notice it.
        direct.send(&pipeline_of(&[format!("SELECT {db}"), "INCR r:k".to_owned()]));
        direct.replies(2);
    }
    for next in &mut all {
        let Next { client, db, version, token, .. } = next;
        let context = format!("{context}\nnext: login {login:?}, db {db}, RESP{version}");
        let hash = if *version == 3 { "%1\r\n" } else { "*2\r\n" };
        let answers =
            [bulk(user.as_bytes()), b"+OK\r\n".to_vec(), format!("{hash}$1\r\nf\r\n$1\r\nv\r\n").into_bytes()];
        let got = client.replies(3);
        if begin == "MULTI" {
            assert_reply(&got.concat(), b"+QUEUED\r\n".repeat(3), &format!("{context}: in MULTI"));
            let expected = [b"*3\r\n".to_vec(), answers.concat()].concat();
            assert_reply(&client.cmd("EXEC"), expected, &format!("{context}: EXEC"));
        } else {
            assert_reply(&got.concat(), answers.concat(), &format!("{context}: on a private connection"));
        }
        direct.send(&pipeline_of(&[format!("SELECT {db}"), "GET r:here".to_owned()]));
        let found = direct.replies(2).remove(1);
        if begin == "MULTI" {
            assert_reply(&found, bulk(token.as_bytes()), &format!("{context}: its database"));
        } else {
            assert!(found.starts_with(format!("${}\r\n{db}-", token.len()).as_bytes()), "{context}: {}", show(&found));
        }
        if user == "lim" {
            // Sent on the private connection.
            client.send(&pipeline_of(&["WATCH r:untouched", "GET secret"]));
            let reply = client.replies(2).remove(1);
            assert!(reply.starts_with(b"-NOPERM"), "{context}: GET secret: {}", show(&reply));
        }
    }
}

fn round(proxy: &Shortstop, direct: &mut Client, seed: u64) {
    let mut chance = Chance::new(seed);
    let login = *chance.pick(LOGINS);
    let mut players: Vec<Player> = (0..chance.between(1, 3))
        .map(|_| {
            let (db, version) = *chance.pick(STATES);
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
        wait_until(&format!("all private connections are given back\n{context}"), || proxy.stat("proxy_sessions") == 0);
        // Connections that were given up may still be closing.
        let end = Instant::now() + PATIENCE;
        while let Some(line) = not_as_new(direct) {
            assert!(Instant::now() < end, "a connection stays that is not as new: {line}\n{context}");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_reply(&direct.cmd("PUBLISH c m"), ":0\r\n", &context);
    }
    look(proxy, direct, login, &mut chance, &context);
}

fn rounds(proxy: &Shortstop, direct: &mut Client, first: u64) {
    for db in [0, 3] {
        direct.cmd(&format!("SELECT {db}"));
        direct.cmd("HSET r:hash f v");
        direct.fill("SET r:big $1", &[&vec![b'x'; 300_000]]);
        direct.cmd("SET secret s3cret");
    }
    direct.cmd(&format!("CLIENT SETNAME {OWN}"));
    wait_until("Shortstop looks for other instances", || {
        direct.cmd("CLIENT LIST").windows(7).any(|part| part == b" sub=1 ")
    });
    // A user's connections close with its last client.
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
fn the_next_client_finds_no_state_of_the_last() {
    let redis = Redis::start();
    let mut direct = redis.client();
    for line in USERS {
        assert_reply(&direct.cmd(line), "+OK\r\n", line);
    }
    let proxy = Shortstop::start(&redis, "workers: 1");
    rounds(&proxy, &mut direct, 1);
}
