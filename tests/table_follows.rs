//! The command table follows the server while Shortstop runs: a module is loaded and unloaded, and a server has other commands
//! after a restart.
//!
//! A command that is not in the table may change any key, so all of L1 is flushed. A known command drops the keys that it names.
//! That is how the tests see what Shortstop knows.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Redis, Shortstop, assert_reply, bulk, pipeline_of, run, wait_until};

/// A module with one command that writes and one that reads, using a minimal part of the module API.
const MODULE: &str = r#"
typedef struct Ctx Ctx;
typedef struct Str Str;
typedef int Run(Ctx *, Str **, int);

static void *(*call)(Ctx *, const char *, const char *, ...);
static int (*answer)(Ctx *, void *);

static int put(Ctx *ctx, Str **argv, int argc) {
    return argc == 3 ? answer(ctx, call(ctx, "SET", "ss", argv[1], argv[2])) : 1;
}

static int look(Ctx *ctx, Str **argv, int argc) {
    return argc == 2 ? answer(ctx, call(ctx, "GET", "s", argv[1])) : 1;
}

int RedisModule_OnLoad(Ctx *ctx, Str **argv, int argc) {
    int (*find)(const char *, void *) = *(void **)ctx;
    void (*attributes)(Ctx *, const char *, int, int);
    int (*command)(Ctx *, const char *, Run *, const char *, int, int, int);
    if (find("RedisModule_SetModuleAttribs", &attributes) || find("RedisModule_CreateCommand", &command)
        || find("RedisModule_Call", &call) || find("RedisModule_ReplyWithCallReply", &answer))
        return 1;
    attributes(ctx, "shortstoptest", 1, 1);
    return command(ctx, "test." NAME, put, "write", 1, 1, 1) || command(ctx, "test.look", look, "readonly", 1, 1, 1);
}
"#;

const EAGER: &str = "defaults: { cache: { admit_after: 1 }, compress: false }";

/// Compiles the module into the folder. The command that writes has this name.
fn compiled(folder: &Path, name: &str) -> String {
    let source = folder.join("module.c");
    let library = folder.join(format!("{name}.so"));
    std::fs::write(&source, MODULE).expect("the folder can be written");
    let output = run(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-w", &format!("-DNAME=\"{name}\""), "-o"])
            .arg(&library)
            .arg(&source),
        common::PATIENCE,
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library.to_str().expect("a path of this test's own").to_owned()
}

/// A Redis that may load modules.
fn with_modules() -> Redis {
    let old = Redis::start();
    // Before 7 that was always allowed, and could not be configured.
    if old.major() < 7 { old } else { Redis::start_with(&["--enable-module-command", "yes"]) }
}

/// Whether Shortstop knows which keys this line changes: then another key stays in L1. `changed` is the key that the line changes.
fn is_known(proxy: &Shortstop, line: &str, changed: &str, value: &str) -> bool {
    let mut client = proxy.client();
    proxy.warm(&mut client, "bystander");
    // Another client, because an unknown command gives its client a private connection.
    proxy.client().cmd(line);
    // Known or not, this must hold.
    assert_reply(&client.cmd(&format!("GET {changed}")), bulk(value.as_bytes()), line);
    let hits = proxy.stat("l1_hits");
    client.cmd("GET bystander");
    proxy.stat("l1_hits") > hits
}

#[test]
fn a_modules_commands_are_known_soon_after_it_is_loaded() {
    let redis = with_modules();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let module = compiled(folder.path(), "put");
    let proxy = Shortstop::start(&redis, EAGER);
    let (mut client, mut direct) = (proxy.client(), redis.client());
    client.cmd("MSET k 0 bystander here");
    let unknown = direct.cmd("TEST.PUT k 1");
    assert!(unknown.starts_with(b"-ERR unknown command"), "{}", common::show(&unknown));
    assert_reply(&client.cmd("TEST.PUT k 1"), &unknown, "not loaded yet");
    assert_reply(&direct.cmd(&format!("MODULE LOAD {module}")), "+OK\r\n", "loaded around the proxy");
    let mut number = 0;
    wait_until("TEST.PUT is known", || {
        number += 1;
        is_known(&proxy, &format!("TEST.PUT k {number}"), "k", &number.to_string())
    });
    // A read drops nothing, whatever the server says of a module's keys.
    let kept = proxy.warm(&mut client, "k");
    assert_reply(&client.cmd("TEST.LOOK k"), &kept, "it reads");
    let hits = proxy.stat("l1_hits");
    client.cmd("GET k");
    assert_eq!(proxy.stat("l1_hits"), hits + 1, "still there");
    assert_reply(&direct.cmd("MODULE UNLOAD shortstoptest"), "+OK\r\n", "unloaded");
    assert_reply(&client.cmd("TEST.PUT k 1"), &unknown, "gone again");
}

/// The number of commands does not change here, but the connection is another one.
#[test]
fn a_new_connection_reads_the_table_again() {
    let redis = with_modules();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (one, other) = (compiled(folder.path(), "put"), compiled(folder.path(), "store"));
    let proxy = Shortstop::start(&redis, EAGER);
    let mut direct = redis.client();
    direct.cmd("SET bystander here");
    assert_reply(&direct.cmd(&format!("MODULE LOAD {one}")), "+OK\r\n", "the first");
    wait_until("TEST.PUT is known", || is_known(&proxy, "TEST.PUT k 1", "k", "1"));
    let change = ["MODULE UNLOAD shortstoptest", &format!("MODULE LOAD {other}"), "CLIENT KILL TYPE normal"];
    direct.pipeline(&pipeline_of(&change), change.len());
    wait_until("the lanes are back", || proxy.client().cmd("GET bystander") == b"$4\r\nhere\r\n");
    wait_until("TEST.STORE is known", || is_known(&proxy, "TEST.STORE k 2", "k", "2"));
}

#[test]
fn after_a_restart_with_other_commands_the_new_table_is_used() {
    let mut redis = Redis::start();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let module = compiled(folder.path(), "put");
    let proxy = Shortstop::start(&redis, EAGER);
    let mut client = proxy.client();
    client.cmd("SET bystander here");
    wait_until("SETEX is known", || is_known(&proxy, "SETEX k 100 a", "k", "a"));
    redis.kill();
    redis.restart_with(&["--loadmodule", &module]);
    wait_until("Redis is back", || client.cmd("SET bystander here") == b"+OK\r\n");
    wait_until("TEST.PUT is known", || is_known(&proxy, "TEST.PUT k b", "k", "b"));
}

/// COMMAND still lists a renamed command under its old name, so the new name is unknown. Treating it as a write of any key is slow
/// but correct.
#[test]
fn a_renamed_command_may_change_anything() {
    let redis = Redis::start_with(&["--rename-command", "SETEX", "PUTEX"]);
    let proxy = Shortstop::start(&redis, EAGER);
    let (mut client, mut direct) = (proxy.client(), redis.client());
    client.cmd("MSET k 0 bystander here");
    for value in ["a", "b"] {
        proxy.warm(&mut client, "k");
        assert!(!is_known(&proxy, &format!("PUTEX k 100 {value}"), "k", value));
    }
    assert_reply(&client.cmd("SETEX k 100 c"), direct.cmd("SETEX k 100 c"), "the old name is no command any more");
}
