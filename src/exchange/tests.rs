//! A session and the demultiplexer of EXEC's reply, without a socket: nothing is ever sent on the link.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::client_state::connection_state::{ExecReply, Kind, Reason, Sent};
use crate::client_state::ending::Ending;
use crate::client_state::reply_queue::ReplyQueue;
use crate::config::{Config, Live};
use crate::exchange::exec_demux::{Commands, ExecDemux, Subscribed};
use crate::exchange::pending::{Identity, Link, Session};
use crate::resp::Version;
use crate::upstream::{Dialer, Endpoint, LinkProfile, LinkSettings, OwnRights, ServerLimits, Tap};

fn link(version: Version) -> Link {
    let config = Config::default();
    let timeouts = Live::new(config.timeouts);
    let dialer = Dialer::new(config.upstream, &config.upstream_tls, timeouts.clone()).expect("no certificates");
    let settings = LinkSettings {
        dialer,
        endpoint: Arc::new(Endpoint::default()),
        timeouts,
        name: String::new(),
        pending_limit: Cell::new(config.limits.upstream_pending),
        server_limits: Arc::new(ServerLimits::default()),
        own_rights: OwnRights::default(),
    };
    Link::new(Rc::new(settings), LinkProfile { login: None, db: 0, version }, false)
}

fn session(version: Version) -> (Rc<Session>, Rc<ReplyQueue>) {
    let reply_queue = Rc::new(ReplyQueue::new(Instant::now(), Rc::default()));
    let identity = Rc::new(Identity::new(None, 0));
    (Rc::new(Session::new(link(version), identity, Rc::clone(&reply_queue))), reply_queue)
}

fn told(reply_queue: &ReplyQueue) -> String {
    let mut out = Vec::new();
    let Ok(_) = reply_queue.drain::<Infallible>(|slices| {
        let before = out.len();
        slices.iter().for_each(|slice| out.extend_from_slice(slice));
        Ok(out.len() - before)
    });
    String::from_utf8(out).expect("text")
}

const OK: &[u8] = b"+OK\r\n";
const SUBSCRIBED: &[u8] = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n";
const UNSUBSCRIBED: &[u8] = b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n";
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n";

#[test]
fn a_session_is_clean_once_replies_have_undone_all_state() {
    let (session, _) = session(Version::Resp2);
    assert!(session.is_clean());
    session.answered(Sent::Multi, OK);
    assert!(session.in_multi() && session.in_transaction() && !session.is_clean());
    session.begin_exec();
    assert!(!session.in_multi() && !session.is_clean(), "the answer to EXEC is due");
    session.answered(Sent::Exec, b"*0\r\n");
    assert!(session.is_clean() && session.leave());
}

#[test]
fn an_impossible_reply_closes_the_client() {
    let (session, reply_queue) = session(Version::Resp2);
    session.answered(Sent::Multi, b":1\r\n");
    assert!(reply_queue.ending() == Ending::Closing && !session.is_clean() && !session.leave());
}

#[test]
fn a_client_that_has_left_is_not_closed_when_the_connection_breaks() {
    let (session, reply_queue) = session(Version::Resp2);
    session.leave();
    session.lost();
    assert_eq!(reply_queue.ending(), Ending::None);
}

#[test]
fn messages_are_the_clients_only_while_it_is_subscribed() {
    let (session, reply_queue) = session(Version::Resp2);
    assert!(!session.take(MESSAGE), "it may be a reply");
    session.begin_acknowledging();
    assert!(session.is_acknowledging() && reply_queue.streaming.get());
    session.acknowledged(Kind::Channel, SUBSCRIBED, true);
    assert!(session.is_subscribed() && !session.is_acknowledging());
    assert!(session.take(MESSAGE));
    assert_eq!(told(&reply_queue).as_bytes(), MESSAGE);
    session.begin_acknowledging();
    session.acknowledged(Kind::Channel, UNSUBSCRIBED, true);
    assert!(!session.is_subscribed() && !reply_queue.streaming.get() && session.is_clean());
}

#[test]
fn messages_behind_exec_are_told_from_replies() {
    let (session, reply_queue) = session(Version::Resp2);
    session.set_exec_reply(ExecReply::Due);
    assert!(!session.take(MESSAGE), "it belongs to the reply of EXEC");
    session.set_exec_reply(ExecReply::MessagesDue);
    assert!(session.take(MESSAGE));
    session.set_exec_reply(ExecReply::None);
    assert!(!session.take(MESSAGE));
    assert_eq!(told(&reply_queue).as_bytes(), MESSAGE);
}

#[test]
fn a_session_that_is_given_up_takes_no_more_of_execs_reply() {
    let (session, reply_queue) = session(Version::Resp3);
    session.set_exec_reply(ExecReply::Due);
    session.give_up();
    assert!(session.take(b">2\r\n$10\r\ninvalidate\r\n*0\r\n"), "it is a push");
    assert_eq!(reply_queue.ending(), Ending::Closing);
}

#[test]
fn the_debugger_and_monitor_are_streams() {
    let (session, reply_queue) = session(Version::Resp2);
    session.set_debugs(true);
    assert!(session.debugs() && !session.is_in_raw());
    session.begin_raw();
    assert!(session.is_in_raw() && session.is_raw() && !session.debugs());
    session.pass(b"lua debugger");
    assert_eq!(told(&reply_queue), "lua debugger");

    let (session, reply_queue) = self::session(Version::Resp2);
    session.begin_monitor();
    assert!(session.is_monitor() && session.take(b"+1 [0 lua] \"get\"\r\n") && reply_queue.streaming.get());
    assert!(!session.leave(), "nobody else may have it");
}

#[test]
fn a_waiting_command_is_counted_until_it_is_answered() {
    let (session, _) = session(Version::Resp2);
    session.block();
    assert!(session.is_blocked());
    session.unblocked();
    assert!(!session.is_blocked());
}

#[test]
fn a_connection_whose_id_is_known_is_not_reused_by_another_client() {
    let (session, _) = session(Version::Resp2);
    session.expose_id();
    assert!(session.is_clean(), "the client may leave it");
    assert!(!session.leave());
    let (session, _) = self::session(Version::Resp2);
    session.bind(Reason::RedirectTarget);
    assert!(!session.is_clean());
}

fn demux(session: &Rc<Session>, commands: &Commands, count: usize, frames: &[&[u8]]) -> Option<ExecDemux> {
    let mut demux = ExecDemux::of(count);
    for frame in frames {
        assert!(demux.missing() > 0, "all is here");
        demux.add(session, commands, frame).ok()?;
    }
    assert_eq!(demux.missing(), 0);
    Some(demux)
}

#[test]
fn pushes_among_the_elements_of_exec_go_back_to_their_places() {
    let (session, _) = session(Version::Resp3);
    let push = b">2\r\n$10\r\ninvalidate\r\n*0\r\n";
    let demux = demux(&session, &Commands::default(), 2, &[push, OK, push, b":1\r\n"]).expect("a push is no reply");
    assert_eq!(demux.reply(), b"*2\r\n+OK\r\n:1\r\n");
    let back = demux.back(b"*2\r\n+OK\r\n:2\r\n");
    assert_eq!(back, [b"*2\r\n", &push[..], OK, push, b":2\r\n"].concat());
    assert_eq!(demux.pushed(), [&push[..], push].concat());
}

#[test]
fn subscribe_in_a_transaction_has_as_many_replies_as_channels() {
    let (session, _) = session(Version::Resp2);
    let subscribed = Subscribed { at: 0, kind: Kind::Channel, word: "subscribe".into(), named: 2 };
    let commands = Commands { subscribed: vec![subscribed], publish: vec![1] };
    let second = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nd\r\n:2\r\n";
    let demux =
        demux(&session, &commands, 2, &[SUBSCRIBED, second, MESSAGE, b":1\r\n"]).expect("PUBLISH answers a number");
    assert_eq!(demux.reply(), [b"*2\r\n", &second[..], b":1\r\n"].concat());
    assert_eq!(demux.back(&demux.reply()), [b"*2\r\n", SUBSCRIBED, second, MESSAGE, b":1\r\n"].concat());
    assert!(session.is_subscribed() && session.is_message(MESSAGE));
}

#[test]
fn a_message_that_may_be_a_reply_raises_doubt() {
    let (session, _) = session(Version::Resp2);
    session.begin_acknowledging();
    session.acknowledged(Kind::Channel, SUBSCRIBED, true);
    assert!(demux(&session, &Commands::default(), 1, &[MESSAGE]).is_none());
}
