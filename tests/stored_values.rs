//! The stored bytes decide how a command treats a value, never the rule of the key's name. A value that Redis itself must read (a
//! number, a HyperLogLog) is stored uncompressed.
//!
//! The expectation is another Redis's reply to the same commands, or the value that a client has stored.

mod common;

use shortstop::codec::{MARK, MARKS, ZSTD_MARK};

use common::{
    Client, Redis, Shortstop, assert_our_error, assert_reply, bulk, filled, noise, pipeline_of, prose, show, wait_until,
};

/// Keys that begin with `raw:` are not compressed.
const RAW: &str = "rules:\n  - match: \"raw:*\"\n    compress: false\n";

fn stored(redis: &Redis, key: &str) -> Vec<u8> {
    let reply = redis.client().cmd(&format!("GET {key}"));
    let head = reply.windows(2).position(|pair| pair == b"\r\n").expect("a bulk string") + 2;
    assert!(reply.len() > head, "{key} is not there");
    reply[head..reply.len() - 2].to_vec()
}

/// A mark with these bits flipped.
fn flipped(mark: &[u8], bits: &[usize]) -> Vec<u8> {
    let mut mark = mark.to_vec();
    bits.iter().for_each(|bit| mark[bit / 8] ^= 1 << (bit % 8));
    mark
}

#[test]
fn a_compressed_value_under_an_uncompressed_name_is_not_changed() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, RAW);
    let (mut client, mut direct) = (proxy.client(), redis.client());
    let value = vec![b'x'; 2_000];
    client.call(&[b"SET", b"big", &value]);
    let dump = direct.cmd("DUMP big");
    let head = dump.windows(2).position(|pair| pair == b"\r\n").expect("a bulk string") + 2;
    let arrivals: [&dyn Fn(&mut Client); 4] = [
        &|client| drop(client.cmd("COPY big raw:x REPLACE")),
        &|client| drop(client.pipeline(&pipeline_of(&["COPY big other REPLACE", "RENAME other raw:x"]), 2)),
        &|client| drop(client.call(&[b"RESTORE", b"raw:x", b"0", &dump[head..dump.len() - 2], b"REPLACE"])),
        // Written under other rules.
        &|_| drop(Shortstop::start(&redis, "").client().call(&[b"SET", b"raw:x", &value])),
    ];
    for (way, arrive) in arrivals.iter().enumerate() {
        arrive(&mut client);
        assert!(stored(&redis, "raw:x").starts_with(&MARK), "way {way}: compressed");
        let mut expected = value.clone();
        expected.extend_from_slice(b"more");
        assert_reply(&client.cmd("STRLEN raw:x"), format!(":{}\r\n", value.len()), "not of the compressed bytes");
        assert_reply(&client.cmd("GET raw:x"), bulk(&value), "as it was stored");
        assert_reply(
            &client.cmd("APPEND raw:x more"),
            format!(":{}\r\n", expected.len()),
            "not to the compressed bytes",
        );
        assert_reply(&client.cmd("GET raw:x"), bulk(&expected), "changed as Redis would");
    }
}

/// Also where the key's rule compresses: what counts is what is stored.
#[test]
fn wide_bitfields_are_exact() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "defaults: { cache: { reads: all, admit_after: 1 } }\n");
    let mut lines: Vec<String> = [
        "BITFIELD k SET u60 0 1152921504606846975",
        "BITFIELD k GET u60 0 GET u63 1 GET i64 0 GET i64 #1 GET u54 3 GET u53 3 GET i55 1000",
        "BITFIELD k SET i64 #1 -9223372036854775808 GET i64 #1 GET u63 65 GET i54 64",
        "bitfield k incrby i64 #1 -1 get i64 #1",
        "BITFIELD k OVERFLOW SAT INCRBY i64 #1 9223372036854775807 INCRBY i64 #1 9223372036854775807",
        "BITFIELD k OVERFLOW FAIL INCRBY i64 #1 9223372036854775807 GET i64 #1 SET u60 0 -1 SET u8 500 7 INCRBY u8 500 255",
        "BITFIELD k OVERFLOW FAIL INCRBY u63 7 9223372036854775807 OVERFLOW WRAP INCRBY u63 7 9223372036854775807",
        "BITFIELD k SET u63 7 9223372036854775807 SET i60 7 5 SET u60 0 99",
        "BITFIELD_RO k GET i64 0 GET u63 #1 GET u8 3",
        "BITFIELD_RO k GET i64 0 GET u63 9000000",
        "BITFIELD none GET i64 0",
        "BITFIELD_RO none GET i64 0",
        "BITFIELD list GET i64 0",
        "BITFIELD list SET i64 0 1",
        "BITFIELD_RO k GET i64 0 SET u63 0 1",
        "BITFIELD k SET u63 0 1 GET u64 0",
        "BITFIELD k SET u63 0 1 SET u8 0 x",
        "BITFIELD k SET u63 0 1 GET u60",
        "BITFIELD k SET u63 0 1 GET u60 -1",
        "BITFIELD k SET u63 0 1 GET u60 99999999999",
        "BITFIELD k SET u63 0 1 GET u60 9223372036854775807",
        "BITFIELD k SET u63 0 1 GET u60 #9223372036854775807",
        "BITFIELD k SET u63 0 1 OVERFLOW NEVER",
        "BITFIELD k SET u63 0 1 BOGUS u8 0",
        "BITFIELD k SET U63 0 1",
        "BITFIELD k GET u63 0 SET u63 0 9223372036854775808",
        "STRLEN k",
        "BITFIELD k INCRBY u63 40000 1",
        "STRLEN k",
    ]
    .map(str::to_owned)
    .to_vec();
    // Fields anywhere, with any numbers.
    let mut random = noise(12_000, 21).into_iter();
    let mut byte = || usize::from(random.next().expect("enough of them"));
    for _ in 0..150 {
        let mut line = "BITFIELD k".to_owned();
        for _ in 0..1 + byte() % 4 {
            let kind = ["i", "u"][byte() % 2];
            let bits = (50 + byte() % 15).min(if kind == "u" { 63 } else { 64 });
            let number = i64::from_le_bytes(std::array::from_fn(|_| byte() as u8)) >> (byte() % 64);
            match byte() % 4 {
                0 => line += &format!(" GET {kind}{bits} {}", byte()),
                1 => line += &format!(" SET {kind}{bits} #{} {number}", byte() % 5),
                2 => line += &format!(" INCRBY {kind}{bits} {} {number}", byte()),
                _ => line += ["", " OVERFLOW SAT", " overflow fail", " OVERFLOW WRAP"][byte() % 4],
            }
        }
        lines.push(line);
    }
    for version in [2, 3] {
        let (mut direct, mut through) = (reference.client().speaking(version), proxy.client().speaking(version));
        for client in [&mut direct, &mut through] {
            client.pipeline(&pipeline_of(&["DEL k list", "RPUSH list a"]), 2);
        }
        for (at, line) in lines.iter().enumerate() {
            let expected = direct.cmd(line);
            for round in 0..if line.starts_with("BITFIELD_RO") { 4 } else { 1 } {
                assert_reply(&through.cmd(line), &expected, &format!("RESP{version}: {line}, time {round}"));
            }
            if at % 3 == 0 {
                let transaction = pipeline_of(&["MULTI", "GET k", line, "STRLEN k", "EXEC"]);
                let [expected, got] =
                    [&mut direct, &mut through].map(|client| client.pipeline(&transaction, 5).concat());
                assert_reply(&got, expected, &format!("RESP{version}: MULTI, {line}"));
            }
            assert_reply(&through.cmd("GET k"), direct.cmd("GET k"), &format!("after {line}"));
        }
    }
}

#[test]
fn a_number_is_stored_uncompressed() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "defaults: { compress: { min_size: 1, min_saving: 0% } }\n");
    let (mut direct, mut through) = (reference.client(), proxy.client());
    let zeros = "0".repeat(1_100);
    for number in [
        format!("7.{zeros}"),
        format!("{zeros}7"),
        format!("-{zeros}.5e{zeros}2"),
        format!("0x{zeros}f"),
        format!("{}7", " ".repeat(1_100)),
        format!("7\0{zeros}"),
        format!("{zeros}7{}", ".0".repeat(4)),
        "0".repeat(6_000),
        format!("{zeros} {zeros}"),
    ] {
        for line in ["SET w_1 $1", "MSET w_1 $1 w_2 1", "SETEX w_1 100 $1", "GETSET w_1 $1"] {
            for client in [&mut direct, &mut through] {
                client.pipeline(&pipeline_of(&["FLUSHALL", "RPUSH l 1 2", "SET w_2 5"]), 3);
                client.fill(line, &[number.as_bytes()]);
            }
            for ask in ["SORT l BY w_*", "SORT l BY w_* GET w_*", "GET w_1", "INCRBYFLOAT w_1 1", "GET w_1", "INCR w_1"]
            {
                let what = format!("{line} with {}…, {ask}", &number[..20]);
                assert_reply(&through.cmd(ask), direct.cmd(ask), &what);
            }
        }
    }
}

#[test]
fn a_hyperloglog_that_was_set_is_counted() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "defaults: { compress: { min_size: 1, min_saving: 0% } }\n");
    let (mut direct, mut through) = (reference.client(), proxy.client());
    for i in 0..3_000 {
        direct.cmd(&format!("PFADD hll {i}"));
    }
    let value = stored(&reference, "hll");
    for line in ["SET h $1", "MSET h $1 other 1", "SETEX h 100 $1", "GETSET h $1"] {
        for client in [&mut direct, &mut through] {
            client.cmd("FLUSHALL");
            client.fill(line, &[&value]);
        }
        for ask in ["PFCOUNT h", "PFADD h more", "PFMERGE sum h", "PFCOUNT sum", "GET h"] {
            assert_reply(&through.cmd(ask), direct.cmd(ask), &format!("{line}, {ask}"));
        }
    }
}

#[test]
fn a_value_that_could_not_be_read_again_is_refused() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "limits: { max_inflated: 100kb }\n");
    let mut client = proxy.client();
    let fits = [&MARK[..], &noise(100 * 1024 - 16, 1)].concat();
    let damaged = [flipped(&MARK, &[3, 40, 127]), flipped(&ZSTD_MARK, &[3, 40, 95])];
    for beginning in [MARK.to_vec(), ZSTD_MARK.to_vec()].into_iter().chain(damaged) {
        let too_long = [&beginning[..], &noise(100 * 1024 + 1 - beginning.len(), 1)].concat();
        if redis.has("msetex") {
            // Only the server's own table contains it.
            wait_until("the table is known", || client.fill("MSETEX 1 k $1", &[&too_long]).starts_with(b"-"));
            client.cmd("DEL k");
        }
        for line in [
            "SET k $1",
            "SET k $1 EX 100 NX",
            "SET k $1 GET",
            "SETEX k 100 $1",
            "PSETEX k 100000 $1",
            "SETNX k $1",
            "MSET other 1 k $1",
            "MSETNX k $1 other 1",
            "MSETEX 2 other 1 k $1 EX 100",
            "GETSET k $1",
        ] {
            if line.starts_with("MSETEX") && !redis.knows("msetex") {
                continue;
            }
            assert_our_error(&client.fill(line, &[&too_long]), line);
            let transaction = [pipeline_of(&["MULTI"]), filled(line, &[&too_long]), pipeline_of(&["EXEC"])].concat();
            let got = client.pipeline(&transaction, 3);
            assert_our_error(&got[1], &format!("MULTI, {line}"));
            assert!(got[2].starts_with(b"-EXECABORT"), "MULTI, {line}: {}", show(&got[2]));
            assert_reply(&client.cmd("EXISTS k other"), ":0\r\n", line);
        }
    }
    assert_reply(&client.fill("SET k $1", &[&fits]), "+OK\r\n", "as long as may be");
    assert_reply(&client.cmd("GET k"), bulk(&fits), "and read again");
    assert_reply(&client.fill("SET k $1", &[&noise(200 * 1024, 1)]), "+OK\r\n", "without the mark");
}

#[test]
fn a_mark_with_up_to_three_flipped_bits_is_damage_or_a_clients_own() {
    let redis = Redis::start();
    let proxy = Shortstop::start(&redis, "defaults: { cache: { reads: all, admit_after: 1 } }\n");
    let raw = Shortstop::start(&redis, "compression: false\n");
    let (mut client, mut other, mut direct) = (proxy.client(), raw.client(), redis.client());
    let good = ["", "defaults: { compress: zstd }\n"].map(|yaml| {
        Shortstop::start(&redis, yaml).client().call(&[b"SET", b"k", &prose(4_000, 1)]);
        stored(&redis, "k")
    });
    client.pipeline(&pipeline_of(&["RPUSH l 1", "SET fine here"]), 2);
    for (codec, bits) in [
        (0, &[0][..]),
        (0, &[127]),
        (0, &[20, 75]),
        (0, &[96, 97]),
        (0, &[1, 64, 65]),
        (0, &[7, 63, 126]),
        (0, &[0, 1, 2]),
        (1, &[0]),
        (1, &[95]),
        (1, &[20, 75]),
        (1, &[7, 63, 94]),
        (1, &[0, 1, 2]),
    ] {
        let (mark, good) = (flipped(MARKS[codec], bits), &good[codec]);
        // A client's own value.
        for value in [mark.to_vec(), [&mark[..], b" and more"].concat(), [&mark[..], &prose(4_000, 2)].concat()] {
            for (at, client) in [&mut client, &mut other].into_iter().enumerate() {
                for line in ["SET k $1", "MSET a 1 k $1", "GETSET k $1"] {
                    client.fill(line, &[&value]);
                    assert!(stored(&redis, "k").starts_with(&MARK), "{bits:?} {at}: {line} seals it");
                    for _ in 0..3 {
                        assert_reply(&client.cmd("GET k"), bulk(&value), &format!("{bits:?} {at}: {line}"));
                    }
                    let pair = [&b"*2\r\n$4\r\nhere\r\n"[..], &bulk(&value)].concat();
                    assert_reply(&client.cmd("MGET fine k"), pair, &format!("{bits:?} {at}: MGET"));
                }
            }
        }
        // A compressed value.
        let bad = [&mark[..], &good[mark.len()..]].concat();
        for lines in [
            &["GET k"][..],
            &["MGET fine k"],
            &["GETEX k PERSIST"],
            &["GETSET k new"],
            &["SET k new GET"],
            &["GETDEL k"],
            &["SORT l BY nosort GET k*"],
            &["MULTI", "GET fine", "GET k", "EXEC"],
            &["MULTI", "MGET k fine", "EXEC"],
            &["STRLEN k"],
            &["GETRANGE k 0 3"],
            &["APPEND k x"],
            &["SETRANGE k 0 x"],
            &["BITFIELD k GET u8 0"],
            &["BITFIELD k GET u60 0"],
            &["BITOP NOT dest k"],
            &["SORT l GET k* STORE dest"],
        ] {
            direct.call(&[b"MSET", b"k", &bad, b"k1", &bad]);
            for client in [&mut client, &mut other] {
                client.cmd("PROXY FLUSH");
                let got = client.pipeline(&pipeline_of(lines), lines.len()).concat();
                let is_error = got.windows(16).any(|window| window == b"-ERR shortstop: ");
                assert!(is_error, "{bits:?}: {lines:?}: {}", show(&got));
                assert!(!got.windows(20).any(|window| window == &bad[..20]), "{bits:?}: {lines:?}: raw bytes");
                direct.call(&[b"MSET", b"k", &bad, b"k1", &bad]);
            }
        }
        assert_reply(&client.cmd("EXISTS dest"), ":0\r\n", "nor was anything made of it");
    }
    // Four bits, and the header of BGZF, are data.
    let bgzf = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0, 0x1b, 0, 3, 0];
    for value in [
        &flipped(&MARK, &[0, 1, 2, 3])[..],
        &flipped(&MARK, &[5, 50, 90, 120]),
        &flipped(&ZSTD_MARK, &[0, 1, 2, 3]),
        &flipped(&ZSTD_MARK, &[5, 50, 90, 92]),
        &bgzf,
    ] {
        client.call(&[b"SET", b"k", value]);
        assert!(stored(&redis, "k") == value, "as it came");
        for _ in 0..3 {
            assert_reply(&client.cmd("GET k"), bulk(value), "data");
        }
        assert_reply(&client.cmd("STRLEN k"), format!(":{}\r\n", value.len()), "data");
    }
}

/// A value is built in pieces so that it begins like a compressed one.
#[test]
fn a_mark_that_is_built_in_pieces_comes_back() {
    let (reference, redis) = (Redis::start(), Redis::start());
    let proxy = Shortstop::start(&redis, "");
    let (mut direct, mut through) = (reference.client(), proxy.client());
    for mark in [MARK.to_vec(), flipped(&MARK, &[2, 77, 120]), ZSTD_MARK.to_vec(), flipped(&ZSTD_MARK, &[0, 3, 77])] {
        let whole = [&mark[..], b"more"].concat();
        for cut in 0..mark.len() {
            for (line, at) in [("APPEND k $1", cut), ("SETRANGE k $2 $1", cut)] {
                let at = at.to_string();
                let [expected, got] = [&mut direct, &mut through].map(|client| {
                    client.call(&[b"SET", b"k", &mark[..cut]]);
                    let reply = client.fill(line, &[&whole[cut..], at.as_bytes()]);
                    let after =
                        ["GET k", "STRLEN k", "GETRANGE k 3 9", "APPEND k x", "SETBIT k 1 1", "GET k", "INCR k"];
                    [vec![reply], after.map(|line| client.cmd(line)).to_vec()].concat().concat()
                });
                assert_reply(&got, &expected, &format!("{line} at {cut}"));
            }
        }
        for line in ["APPEND k $1", "SETRANGE k 0 $1"] {
            let [expected, got] = [&mut direct, &mut through].map(|client| {
                client.cmd("DEL k");
                let mut replies = client.fill(line, &[&whole]);
                replies.extend(
                    client
                        .pipeline(&pipeline_of(&["MULTI", "APPEND k x", "SETBIT k 3 1", "EXEC", "GET k"]), 5)
                        .concat(),
                );
                replies
            });
            assert_reply(&got, &expected, &format!("{line}, nothing there"));
        }
    }
    // Bytes that build no mark are Redis's business alone.
    for line in [
        "APPEND k $1",
        "APPEND k $2",
        "SETRANGE k 0 $1",
        "SETRANGE k 3 $2",
        "SETRANGE k 15 $3",
        "SETRANGE k 16 $3",
        "SETRANGE k 40 $2",
        "SETRANGE k 5 $4",
        "SETRANGE k -1 $1",
        "SETRANGE k x $1",
        "SETRANGE k 1.5 $1",
        "APPEND list $2",
        "SETRANGE list 0 $2",
        "APPEND k",
    ] {
        let values = [&MARK[1..], b"small", b"\x05\x00", b""];
        for before in [&b""[..], &MARK[..9], b"0123456789abcdef", b"0123456789abcdef and more"] {
            for client in [&mut direct, &mut through] {
                client.pipeline(&pipeline_of(&["DEL k list", "RPUSH list a"]), 2);
                client.call(&[b"SET", b"k", before]);
            }
            assert_reply(
                &through.fill(line, &values),
                direct.fill(line, &values),
                &format!("{line} on {}", show(before)),
            );
            assert_reply(&through.cmd("GET k"), direct.cmd("GET k"), &format!("after {line} on {}", show(before)));
        }
    }
}
