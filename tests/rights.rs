//! As a client's user, Shortstop only sends what the client may do: users with few rights work in every database, and Redis's log
//! of refusals (ACL LOG) shows only what they did themselves. Clients of a user that Redis deletes are closed.

mod common;

use common::{Client, Fault, Process, Redis, Shortstop, assert_reply, pipeline_of, show, wait_until};

/// A direct client of Redis that may do everything, whatever rights the default user has.
fn boss(redis: &Redis) -> Client {
    let mut client = redis.client();
    assert_reply(&client.cmd("AUTH boss pw"), "+OK\r\n", "may do everything");
    client
}

/// How often which users were refused, according to ACL LOG: one line per entry.
fn refusals(boss: &mut Client) -> Vec<String> {
    let log = boss.cmd("ACL LOG 100");
    let text = String::from_utf8_lossy(&log).into_owned();
    let field = |entry: &str, name: &str| {
        entry.split_once(&format!("\r\n{name}\r\n")).and_then(|(_, rest)| {
            let mut lines = rest.split("\r\n");
            let first = lines.next()?;
            Some(if first.starts_with('$') { lines.next()?.to_owned() } else { first.to_owned() })
        })
    };
    let entries = text.split("$5\r\ncount").skip(1);
    entries
        .map(|entry| {
            let entry = format!("\r\ncount{entry}");
            ["username", "reason", "object", "count"].map(|name| field(&entry, name).unwrap_or_default()).join(" ")
        })
        .collect()
}

#[track_caller]
fn assert_no_refusals(boss: &mut Client, what: &str) {
    let refused = refusals(boss);
    assert!(refused.is_empty(), "{what}: {refused:?}");
}

/// Redis set-ups: the name, the commands, and the login in the upstream URL.
const SETUPS: &[(&str, &[&str], &str)] = &[
    ("open", &[], ""),
    ("open, with a user of Shortstop's own", &[], "boss:pw@"),
    ("with a password, and none in the URL", &["CONFIG SET requirepass secret"], ""),
    ("with a password in the URL", &["CONFIG SET requirepass secret"], ":secret@"),
    ("with a user in the URL", &["CONFIG SET requirepass secret"], "boss:pw@"),
    ("with few rights for who has not authenticated", &["ACL SETUSER default resetkeys ~app:* -@all +get"], "boss:pw@"),
];

const USERS: &[(&str, &str, bool)] = &[
    ("getter", "~app:* +get", false),
    ("reader", "~app:* +@read", true),
    ("writer", "~app:* +@read +@write", true),
    ("odd", "~app:* +@read -pttl", false),
];

fn set_up(lines: &[&str]) -> Redis {
    let redis = Redis::start();
    let mut direct = redis.client();
    assert_reply(&direct.cmd("ACL SETUSER boss on >pw ~* &* +@all"), "+OK\r\n", "boss");
    for (user, rights, _) in USERS {
        assert_reply(&direct.cmd(&format!("ACL SETUSER {user} on >pw {rights}")), "+OK\r\n", user);
    }
    for db in 0..12 {
        direct.cmd(&format!("SELECT {db}"));
        direct.cmd(&format!("SET app:k in{db}"));
    }
    lines.iter().for_each(|line| assert_reply(&direct.cmd(line), "+OK\r\n", line));
    redis
}

#[test]
fn users_with_few_rights_work_in_every_database() {
    for (how, lines, login) in SETUPS {
        let redis = set_up(lines);
        let mut boss = boss(&redis);
        for first_db in [0, 3] {
            let url = format!("redis://{login}{}/{first_db}", redis.addr());
            let proxy =
                Shortstop::start(&redis, &format!("upstream: {url}\ndefaults: {{ cache: {{ admit_after: 1 }} }}"));
            for (user, _, keeps) in USERS {
                for (db, version) in [(first_db, 2), (9, 2), (9, 3)] {
                    let what = format!("{how}, {user} in {db}, RESP{version}, the URL's database {first_db}");
                    if login.is_empty() && lines.len() == 1 && db > 0 {
                        // Only the user itself could select the database.
                        continue;
                    }
                    let mut client = proxy.client();
                    if version == 3 {
                        assert!(!client.cmd("HELLO 3 AUTH boss pw").starts_with(b"-"), "{what}");
                    }
                    if db != first_db {
                        assert_reply(&client.cmd("AUTH boss pw"), "+OK\r\n", &what);
                        assert_reply(&client.cmd(&format!("SELECT {db}")), "+OK\r\n", &what);
                    }
                    assert_reply(&client.cmd(&format!("AUTH {user} pw")), "+OK\r\n", &what);
                    let value = format!("in{db}");
                    let expected = format!("${}\r\n{value}\r\n", value.len());
                    for _ in 0..4 {
                        assert_reply(&client.cmd("GET app:k"), &expected, &what);
                    }
                    let mut asks = proxy.client();
                    assert_reply(&asks.cmd("AUTH boss pw"), "+OK\r\n", &what);
                    let mut hits = || {
                        let info = asks.cmd("PROXY INFO l1");
                        common::field(&info, "l1_hits").and_then(|hits| hits.parse::<u64>().ok()).expect("a number")
                    };
                    let before = hits();
                    if *keeps {
                        // If users' rights cannot be read, they are found out with the first read.
                        wait_until(&format!("{what}: served from L1"), || {
                            client.cmd("GET app:k");
                            hits() > before
                        });
                    } else if !(login.is_empty() && lines.len() == 1) {
                        client.cmd("GET app:k");
                        assert_eq!(hits(), before, "{what}: not kept");
                        assert_no_refusals(&mut boss, &what);
                    }
                }
            }
            if !(login.is_empty() && lines.len() == 1) {
                assert_no_refusals(&mut boss, how);
            }
            boss.cmd("ACL LOG RESET");
        }
    }
}

/// A client must not get the user that selected the database for its connection.
#[test]
fn a_client_without_a_login_is_not_the_user_in_the_url() {
    let redis = set_up(&["ACL SETUSER default resetkeys ~app:* -@all +get +acl|whoami"]);
    let mut boss = boss(&redis);
    for db in [0, 5] {
        let proxy = Shortstop::start(&redis, &format!("upstream: redis://boss:pw@{}/{db}", redis.addr()));
        let mut client = proxy.client();
        let expected = format!("$3\r\nin{db}\r\n");
        for _ in 0..3 {
            assert_reply(&client.cmd("GET app:k"), &expected, "in the URL's database");
        }
        assert_reply(&client.cmd("ACL WHOAMI"), "$7\r\ndefault\r\n", "nobody");
        assert_no_refusals(&mut boss, "what it may");
        for line in ["SET app:k x", "GET secret", "SELECT 1", "MULTI", "BLPOP app:l 1"] {
            let got = client.cmd(line);
            assert!(got.starts_with(b"-NOPERM"), "{line}: {}", show(&got));
        }
        assert_eq!(refusals(&mut boss).len(), 5, "each once: {:?}", refusals(&mut boss));
        assert!(refusals(&mut boss).iter().all(|entry| entry.starts_with("default ") && entry.ends_with(" :1")));
        boss.cmd("ACL LOG RESET");
    }
}

/// A client's own command is refused, and logged, once.
#[test]
fn a_select_is_refused_once() {
    let redis = set_up(&[]);
    let mut boss = boss(&redis);
    let proxy = Shortstop::start(&redis, "workers: 1");
    let mut client = proxy.client();
    assert_reply(&client.cmd("AUTH reader pw"), "+OK\r\n", "let in");
    let got = client.cmd("SELECT 1");
    assert!(got.starts_with(b"-NOPERM"), "{}", show(&got));
    assert_reply(&client.cmd("GET app:k"), "$3\r\nin0\r\n", "where it was");
    assert_eq!(refusals(&mut boss), ["reader command select :1"]);
    boss.cmd("ACL SETUSER reader +select");
    let lines = ["SELECT 2", "GET app:k", "SELECT 99", "GET app:k", "SELECT x", "SELECT 1", "GET app:k"];
    let direct = {
        let mut direct = redis.client();
        direct.cmd("AUTH reader pw");
        direct.pipeline(&pipeline_of(&lines), lines.len())
    };
    for (line, (got, expected)) in
        lines.iter().zip(client.pipeline(&pipeline_of(&lines), lines.len()).iter().zip(&direct))
    {
        assert_reply(got, expected, line);
    }
}

#[test]
fn a_user_that_may_only_list_clients_causes_no_refusals() {
    let redis = set_up(&["ACL SETUSER lister on >pw +client|list"]);
    let mut boss = boss(&redis);
    let proxy = Shortstop::start(&redis, "");
    let mut client = proxy.client();
    assert_reply(&client.cmd("AUTH lister pw"), "+OK\r\n", "let in");
    let list = client.cmd("CLIENT LIST");
    assert!(String::from_utf8_lossy(&list).contains("user=lister"), "{}", show(&list));
    assert_no_refusals(&mut boss, "CLIENT LIST");
}

#[test]
fn a_user_whose_reads_cannot_be_kept_is_named_once() {
    let redis = set_up(&[]);
    let proxy = Process::start(redis.addr(), "defaults: { cache: { admit_after: 1 } }");
    for _ in 0..2 {
        let mut client = proxy.client();
        assert_reply(&client.cmd("AUTH getter pw"), "+OK\r\n", "let in");
        for _ in 0..3 {
            assert_reply(&client.cmd("GET app:k"), "$3\r\nin0\r\n", "read");
        }
    }
    wait_until("the log names it", || {
        let mut client = proxy.client();
        client.cmd("AUTH getter pw");
        client.cmd("GET app:k");
        proxy.log().contains("getter")
    });
    assert_eq!(proxy.log().matches("getter").count(), 1, "{}", proxy.log());
    assert_no_refusals(&mut boss(&redis), "reads");
}

/// Rights that change through Shortstop and directly in Redis.
#[test]
fn a_key_that_a_user_may_not_read_says_nothing_about_pttl() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "workers: 1\ndefaults: { cache: { admit_after: 1 } }\n");
    let mut boss = redis.client();
    boss.cmd("ACL SETUSER ann on >pw ~mine:* +@all");
    boss.cmd("MSET mine:1 v yours:1 v");
    let mut ann = proxy.client();
    ann.cmd("AUTH ann pw");
    common::warm(proxy.addr(), &mut ann, b"mine:1");
    for refused in ["GET yours:1", "MGET yours:1 yours:2", "GET yours:2"] {
        assert!(ann.cmd(refused).starts_with(b"-NOPERM"), "{refused}");
    }
    boss.cmd("SET mine:2 v");
    ann.cmd("GET mine:2");
    let hits = proxy.stat("l1_hits");
    ann.cmd("GET mine:2");
    assert_eq!(proxy.stat("l1_hits"), hits + 1, "her reads are still kept");
}

#[test]
fn a_granted_right_to_pttl_is_used() {
    let redis = set_up(&[]);
    let mut boss = boss(&redis);
    let proxy = Shortstop::start(&redis, "defaults: { cache: { admit_after: 1 } }");
    let mut client = proxy.client();
    assert_reply(&client.cmd("AUTH getter pw"), "+OK\r\n", "let in");
    client.cmd("GET app:k");
    boss.cmd("ACL SETUSER getter +pttl");
    proxy.warm(&mut client, "app:k");
    assert_reply(&proxy.client().cmd("ACL SETUSER getter -pttl"), "+OK\r\n", "through the proxy");
    for _ in 0..3 {
        assert_reply(&client.cmd("GET app:k"), "$3\r\nin0\r\n", "read");
    }
    assert_reply(&proxy.client().cmd("ACL SETUSER getter +pttl"), "+OK\r\n", "through the proxy");
    proxy.warm(&mut client, "app:k");
    assert_no_refusals(&mut boss, "all the time");
}

#[test]
fn clients_of_a_user_deleted_and_created_again_in_redis_are_closed() {
    let redis = set_up(&[]);
    let mut boss = boss(&redis);
    let proxy = Shortstop::start(&redis, "");
    let mut others = [proxy.client(), proxy.client()];
    assert_reply(&others[1].cmd("AUTH reader pw"), "+OK\r\n", "another user");
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_reply(&client.cmd("AUTH writer pw"), "+OK\r\n", "let in");
    }
    // One of them is enough: it is on one worker, the others may be on another.
    assert_reply(&clients[0].cmd("GET app:k"), "$3\r\nin0\r\n", "served");
    for other in &mut others {
        assert_reply(&other.cmd("GET app:k"), "$3\r\nin0\r\n", "served");
    }
    let lines = ["ACL DELUSER writer", "ACL SETUSER writer on >pw ~app:* +@read"];
    assert_reply(&boss.pipeline(&pipeline_of(&lines), 2).concat(), ":1\r\n+OK\r\n", "gone, and made again");
    for client in &mut clients {
        assert_reply(&client.until_closed(), "", "closed without a word");
    }
    for other in &mut others {
        assert_reply(&other.cmd("GET app:k"), "$3\r\nin0\r\n", "stays");
    }
    let mut again = proxy.client();
    assert_reply(&again.cmd("AUTH writer pw"), "+OK\r\n", "the new one");
    assert_reply(&again.cmd("GET app:k"), "$3\r\nin0\r\n", "served");
}

#[test]
fn a_restart_and_a_cut_connection_close_no_client_of_a_user() {
    let arguments = ["--user", "u", "on", ">pw", "~*", "&*", "+@all"];
    let mut redis = Redis::start_with(&arguments);
    let wire = Fault::before(redis.addr());
    let proxy = Shortstop::to(wire.addr(), "workers: 1");
    let mut client = proxy.client();
    assert_reply(&client.cmd("AUTH u pw"), "+OK\r\n", "let in");
    assert_reply(&client.cmd("GET k"), "$-1\r\n", "served");
    let mut nobody = proxy.client();
    assert_reply(&nobody.cmd("GET k"), "$-1\r\n", "served");
    for restarts in [false, true, false] {
        if restarts {
            redis.kill();
            redis.restart();
        } else {
            wire.cut();
        }
        wait_until("it is served again", || client.cmd("GET k") == b"$-1\r\n");
        let lost = proxy.stat("upstream_reconnects");
        assert!(lost > 0, "something was lost");
        // Longer than it takes to find out which connections were lost together.
        client.assert_silent(std::time::Duration::from_millis(500));
        assert_reply(&client.cmd("ACL WHOAMI"), "$1\r\nu\r\n", "still who it was");
    }
}
