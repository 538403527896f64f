/*
 * hiredis as a C program uses it: the blocking calls, pipelining by appending, and messages read one by one.
 *
 * It prints one line per scenario (ok, FAIL or skip, its name, why); see tests/compat/README.md.
 * hiredis is a thin layer: what other libraries do by themselves is written out here.
 */

#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define STRING(x) #x
#define LINE(x) STRING(x)
/* Leaves the scenario with a reason when the condition does not hold. */
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) return "line " LINE(__LINE__) ": " #condition;                                               \
    } while (0)

static int port;
static redisContext *c;

static redisContext *connection(void) {
    struct timeval limit = {20, 0};
    redisContext *context = redisConnectWithTimeout("127.0.0.1", port, limit);
    if (context && !context->err) redisSetTimeout(context, limit);
    return context;
}

/* Replies are given back all at once, when a scenario is over. */
static redisReply *replies[100000];
static size_t reply_count;

static redisReply *keep(redisReply *reply) {
    if (reply) replies[reply_count++] = reply;
    return reply;
}

static redisReply *ask(redisContext *context, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(context, format, arguments);
    va_end(arguments);
    return keep(reply);
}

static redisReply *next(redisContext *context) {
    void *reply = NULL;
    return redisGetReply(context, &reply) == REDIS_OK ? keep(reply) : NULL;
}

static int is(redisReply *reply, const char *text) {
    return reply && (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS) && !strcmp(reply->str, text);
}
static int is_number(redisReply *reply, long long number) {
    return reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == number;
}
static int is_error(redisReply *reply, const char *text) {
    return reply && reply->type == REDIS_REPLY_ERROR && strstr(reply->str, text);
}
static int is_nil(redisReply *reply) { return reply && reply->type == REDIS_REPLY_NIL; }
static int is_list(redisReply *reply, size_t length) {
    return reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == length;
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static const char *scenario_connect(void) {
    CHECK(is(ask(c, "PING"), "PONG"));
    redisReply *info = ask(c, "INFO server");
    CHECK(info && info->type == REDIS_REPLY_STRING && strstr(info->str, "redis_version:"));
    redisReply *count = ask(c, "COMMAND COUNT");
    CHECK(count && count->integer > 200);
    redisReply *hello = ask(c, "HELLO 2");
    CHECK(is_list(hello, 14) && is(hello->element[0], "server") && is(hello->element[1], "redis"));
    return NULL;
}

static const char *scenario_strings(void) {
    char every_byte[256];
    for (int i = 0; i < 256; i++) every_byte[i] = (char)i;
    const size_t lengths[] = {4, 0, 256};
    const char *values[] = {"text", "", every_byte};
    for (int v = 0; v < 3; v++) {
        CHECK(is(ask(c, "SET strings:k %b", values[v], lengths[v]), "OK"));
        for (int i = 0; i < 4; i++) {
            redisReply *got = ask(c, "GET strings:k");
            CHECK(got && got->len == lengths[v] && !memcmp(got->str, values[v], lengths[v]));
        }
    }
    redisReply *both = ask(c, "MGET strings:k strings:none");
    CHECK(is_list(both, 2) && both->element[0]->len == 256 && is_nil(both->element[1]));
    CHECK(is_nil(ask(c, "GET strings:none")));
    CHECK(is_number(ask(c, "INCRBY strings:n 42"), 42));
    CHECK(is_error(ask(c, "INCR strings:k"), "not an integer"));
    return NULL;
}

static const char *scenario_pipeline(void) {
    for (int i = 0; i < 1000; i++) {
        CHECK(redisAppendCommand(c, "SET pipeline:%d %d", i % 50, i) == REDIS_OK);
        CHECK(redisAppendCommand(c, "GET pipeline:%d", i % 50) == REDIS_OK);
    }
    for (int i = 0; i < 1000; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        CHECK(is(next(c), "OK"));
        CHECK(is(next(c), number));
    }
    return NULL;
}

static const char *scenario_transaction(void) {
    redisContext *other = connection();
    CHECK(is(ask(c, "SET transaction:k 1"), "OK"));
    for (int i = 0; i < 3; i++) CHECK(is(ask(c, "GET transaction:k"), "1"));
    CHECK(is(ask(c, "WATCH transaction:k"), "OK"));
    CHECK(is(ask(other, "SET transaction:k 2"), "OK"));
    CHECK(is(ask(c, "MULTI"), "OK"));
    CHECK(is(ask(c, "SET transaction:k 3"), "QUEUED"));
    CHECK(is_nil(ask(c, "EXEC")));
    redisAppendCommand(c, "MULTI");
    redisAppendCommand(c, "INCR transaction:k");
    redisAppendCommand(c, "GET transaction:k");
    redisAppendCommand(c, "EXEC");
    CHECK(is(next(c), "OK") && is(next(c), "QUEUED") && is(next(c), "QUEUED"));
    redisReply *done = next(c);
    CHECK(is_list(done, 2) && is_number(done->element[0], 3) && is(done->element[1], "3"));
    CHECK(is(ask(c, "MULTI"), "OK"));
    CHECK(is(ask(c, "INCR transaction:k"), "QUEUED"));
    CHECK(is_error(ask(c, "NOSUCH"), "unknown command"));
    CHECK(is_error(ask(c, "EXEC"), "EXECABORT"));
    CHECK(is_error(ask(c, "EXEC"), "EXEC without MULTI"));
    CHECK(is(ask(other, "GET transaction:k"), "3"));
    redisFree(other);
    return NULL;
}

static const char *scenario_pubsub(void) {
    redisContext *sub = connection();
    redisReply *got = ask(sub, "SUBSCRIBE pubsub:a pubsub:b");
    CHECK(is_list(got, 3) && is(got->element[1], "pubsub:a") && is_number(got->element[2], 1));
    got = next(sub);
    CHECK(is_list(got, 3) && is(got->element[1], "pubsub:b") && is_number(got->element[2], 2));
    got = ask(sub, "PSUBSCRIBE pubsub:*");
    CHECK(is_list(got, 3) && is(got->element[0], "psubscribe") && is_number(got->element[2], 3));
    CHECK(is_number(ask(c, "PUBLISH pubsub:a hello"), 2));
    got = next(sub);
    CHECK(is_list(got, 3) && is(got->element[0], "message") && is(got->element[2], "hello"));
    got = next(sub);
    CHECK(is_list(got, 4) && is(got->element[0], "pmessage") && is(got->element[3], "hello"));
    got = ask(sub, "PING");
    CHECK(is_list(got, 2) && is(got->element[0], "pong"));
    CHECK(is_error(ask(sub, "GET k"), "Can't execute 'get'"));
    got = ask(sub, "PUNSUBSCRIBE");
    CHECK(is_list(got, 3) && is_number(got->element[2], 2));
    got = ask(sub, "UNSUBSCRIBE");
    CHECK(is_list(got, 3) && is_number(got->element[2], 1));
    got = next(sub);
    CHECK(is_list(got, 3) && is_number(got->element[2], 0));
    CHECK(is_nil(ask(sub, "GET pubsub:none")));
    CHECK(is_number(ask(c, "PUBLISH pubsub:a nobody"), 0));
    redisFree(sub);
    return NULL;
}

static const char *scenario_blocking(void) {
    redisContext *waiting = connection();
    int done = 0;
    redisAppendCommand(waiting, "BLPOP blocking:a blocking:b 10");
    while (!done) CHECK(redisBufferWrite(waiting, &done) == REDIS_OK);
    redisReply *info;
    do {
        info = ask(c, "INFO clients");
    } while (info && strstr(info->str, "blocked_clients:0"));
    CHECK(is_number(ask(c, "RPUSH blocking:b job"), 1));
    redisReply *job = next(waiting);
    CHECK(is_list(job, 2) && is(job->element[0], "blocking:b") && is(job->element[1], "job"));
    for (int i = 0; i < 3; i++) {
        double start = seconds();
        CHECK(is_nil(ask(waiting, "BLPOP blocking:none 0.2")));
        CHECK(seconds() - start > 0.15 && seconds() - start < 5);
    }
    redisFree(waiting);
    return NULL;
}

static const char *scenario_script(void) {
    const char *put = "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])";
    CHECK(is(ask(c, "SET script:k before"), "OK"));
    for (int i = 0; i < 3; i++) CHECK(is(ask(c, "GET script:k"), "before"));
    CHECK(is(ask(c, "SCRIPT FLUSH"), "OK"));
    CHECK(is_error(ask(c, "EVALSHA 0000000000000000000000000000000000000000 0"), "NOSCRIPT"));
    redisReply *sha = ask(c, "SCRIPT LOAD %s", put);
    CHECK(sha && sha->len == 40);
    CHECK(is(ask(c, "EVALSHA %s 1 script:k after", sha->str), "after"));
    CHECK(is(ask(c, "GET script:k"), "after"));
    CHECK(is(ask(c, "EVAL %s 1 script:k again", put), "again"));
    CHECK(is_error(ask(c, "EVAL %s 0", "return redis.error_reply('MINE no')"), "MINE no"));
    return NULL;
}

static const char *scenario_stream(void) {
    char ids[5][64];
    for (int i = 0; i < 5; i++) {
        redisReply *id = ask(c, "XADD stream:s * n %d", i);
        CHECK(id && id->type == REDIS_REPLY_STRING);
        snprintf(ids[i], sizeof ids[i], "%s", id->str);
    }
    CHECK(is(ask(c, "XGROUP CREATE stream:s g 0"), "OK"));
    CHECK(is_error(ask(c, "XGROUP CREATE stream:s g 0"), "BUSYGROUP"));
    redisReply *got = ask(c, "XREADGROUP GROUP g one COUNT 3 STREAMS stream:s >");
    CHECK(is_list(got, 1) && is_list(got->element[0]->element[1], 3));
    CHECK(is(got->element[0]->element[1]->element[2]->element[0], ids[2]));
    got = ask(c, "XREADGROUP GROUP g two COUNT 3 STREAMS stream:s >");
    CHECK(is_list(got, 1) && is_list(got->element[0]->element[1], 2));
    CHECK(is_nil(ask(c, "XREADGROUP GROUP g two BLOCK 50 STREAMS stream:s >")));
    CHECK(is_number(ask(c, "XACK stream:s g %s %s", ids[0], ids[1]), 2));
    got = ask(c, "XPENDING stream:s g");
    CHECK(is_list(got, 4) && is_number(got->element[0], 3));
    return NULL;
}

/* The number of elements that all pages of a scan bring together; `what` is the command up to the cursor. */
static size_t scanned(const char *what, const char *pattern) {
    char cursor[32] = "0", command[64];
    size_t count = 0;
    do {
        snprintf(command, sizeof command, "%s %s MATCH %s COUNT 100", what, cursor, pattern);
        redisReply *page = ask(c, command);
        if (!is_list(page, 2)) return 0;
        snprintf(cursor, sizeof cursor, "%s", page->element[0]->str);
        count += page->element[1]->elements;
    } while (strcmp(cursor, "0"));
    return count;
}

static const char *scenario_scan(void) {
    for (int i = 0; i < 1000; i++) {
        redisAppendCommand(c, "SET scan:%d %d", i, i);
        redisAppendCommand(c, "HSET scan-h %d %d", i, i);
        redisAppendCommand(c, "SADD scan-s %d", i);
        redisAppendCommand(c, "ZADD scan-z %d %d", i, i);
    }
    for (int i = 0; i < 4000; i++) CHECK(next(c));
    /* Nothing is resized meanwhile, so that nothing comes twice. */
    CHECK(scanned("SCAN", "scan:*") == 1000);
    CHECK(scanned("HSCAN scan-h", "*") == 2000);
    CHECK(scanned("SSCAN scan-s", "*") == 1000);
    CHECK(scanned("ZSCAN scan-z", "*") == 2000);
    return NULL;
}

static const char *scenario_large(void) {
    size_t length = 10 << 20;
    char *value = malloc(length);
    for (int kind = 0; kind < 2; kind++) {
        for (size_t i = 0; i < length; i++) value[i] = kind ? "{\"price\": 64123.5},"[i % 19] : (char)random();
        CHECK(is(ask(c, "SET large:k %b", value, length), "OK"));
        for (int i = 0; i < 4; i++) {
            redisReply *got = ask(c, "GET large:k");
            CHECK(got && got->len == length && !memcmp(got->str, value, length));
        }
    }
    free(value);
    return NULL;
}

static const char *scenario_types(void) {
    CHECK(is_number(ask(c, "HSET types:h f v g 1"), 2));
    redisReply *got = ask(c, "HGETALL types:h");
    CHECK(is_list(got, 4) && is(got->element[0], "f") && is(got->element[3], "1"));
    CHECK(is_list(ask(c, "HGETALL types:none"), 0));
    CHECK(is_number(ask(c, "ZADD types:z 1 a 2.5 b inf c"), 3));
    CHECK(is(ask(c, "ZSCORE types:z b"), "2.5"));
    CHECK(is_nil(ask(c, "ZSCORE types:z none")));
    got = ask(c, "ZRANGE types:z 0 -1 WITHSCORES");
    CHECK(is_list(got, 6) && is(got->element[5], "inf"));
    got = ask(c, "EVAL %s 0", "return {1, 'two', {3, false}}");
    CHECK(is_list(got, 3) && is_number(got->element[0], 1) && is_nil(got->element[2]->element[1]));
    CHECK(is_error(ask(c, "GET types:h"), "WRONGTYPE"));
    return NULL;
}

static const char *scenario_acl(void) {
    CHECK(is(ask(c, "SET acl:theirs secret"), "OK"));
    for (int i = 0; i < 4; i++) CHECK(is(ask(c, "GET acl:theirs"), "secret"));
    CHECK(is(ask(c, "ACL SETUSER app reset on >pass ~user:* &* +@all -@dangerous +@connection +info"), "OK"));
    redisContext *app = connection();
    CHECK(is_error(ask(app, "AUTH app wrong"), "WRONGPASS"));
    CHECK(is(ask(app, "AUTH app pass"), "OK"));
    CHECK(is(ask(app, "ACL WHOAMI"), "app"));
    CHECK(is(ask(app, "SET user:1 mine"), "OK"));
    for (int i = 0; i < 4; i++) {
        CHECK(is(ask(app, "GET user:1"), "mine"));
        CHECK(is_error(ask(app, "GET acl:theirs"), "NOPERM"));
    }
    CHECK(is_error(ask(app, "SET acl:theirs x"), "NOPERM"));
    CHECK(is_error(ask(app, "FLUSHALL"), "NOPERM"));
    CHECK(is_number(ask(c, "ACL DELUSER app"), 1));
    /* Redis ends the connections of a user that is gone; Shortstop may say first that the login is not good any more. */
    redisReply *last = ask(app, "PING");
    CHECK(!last || is_error(last, "WRONGPASS"));
    CHECK(!ask(app, "PING") && app->err);
    redisFree(app);
    return NULL;
}

static const char *scenario_select(void) {
    redisContext *three = connection();
    CHECK(is(ask(three, "SELECT 3"), "OK"));
    CHECK(is(ask(c, "SET select:k zero"), "OK"));
    CHECK(is(ask(three, "SET select:k three"), "OK"));
    for (int i = 0; i < 4; i++) CHECK(is(ask(c, "GET select:k"), "zero") && is(ask(three, "GET select:k"), "three"));
    CHECK(is_error(ask(three, "SELECT 99"), "out of range"));
    CHECK(is(ask(three, "GET select:k"), "three"));
    redisFree(three);
    return NULL;
}

static const char *scenario_clients(void) {
    redisContext *one = connection(), *two = connection();
    char part[64];
    redisReply *id = ask(one, "CLIENT ID"), *id2 = ask(two, "CLIENT ID");
    CHECK(id && id2 && id->integer > 0 && id2->integer > id->integer);
    CHECK(is(ask(one, "CLIENT SETNAME compat-one"), "OK"));
    CHECK(is(ask(one, "CLIENT GETNAME"), "compat-one"));
    CHECK(is_nil(ask(two, "CLIENT GETNAME")));
    snprintf(part, sizeof part, "id=%lld ", id->integer);
    redisReply *info = ask(one, "CLIENT INFO");
    CHECK(info && !strncmp(info->str, part, strlen(part)) && strstr(info->str, " name=compat-one "));
    redisReply *list = ask(c, "CLIENT LIST");
    CHECK(list && strstr(list->str, part) && strstr(list->str, " name=compat-one "));
    CHECK(is_number(ask(c, "CLIENT KILL ID %lld", id2->integer), 1));
    CHECK(!ask(two, "PING") && two->err);
    redisFree(one);
    redisFree(two);
    return NULL;
}

static const char *scenario_tracking(void) { return "skip hiredis before 1.0 speaks RESP2 only"; }

static const char *scenario_reconnect(void) {
    char line[64];
    CHECK(is(ask(c, "SET reconnect:k before"), "OK"));
    printf("restart\n");
    CHECK(fgets(line, sizeof line, stdin) && !strcmp(line, "restarted\n"));
    CHECK(!ask(c, "PING") && c->err);
    CHECK(redisReconnect(c) == REDIS_OK);
    CHECK(is(ask(c, "SET reconnect:k after"), "OK"));
    CHECK(is(ask(c, "GET reconnect:k"), "after"));
    return NULL;
}

#define SCENARIO(name) {#name, scenario_##name}
static const struct {
    const char *name;
    const char *(*run)(void);
} scenarios[] = {
    SCENARIO(connect), SCENARIO(strings), SCENARIO(pipeline), SCENARIO(transaction), SCENARIO(pubsub),   SCENARIO(blocking),
    SCENARIO(script),  SCENARIO(stream),  SCENARIO(scan),     SCENARIO(large),       SCENARIO(types),    SCENARIO(acl),
    SCENARIO(select),  SCENARIO(clients), SCENARIO(tracking), SCENARIO(reconnect),
};

int main(void) {
    const char *url = getenv("REDIS_URL");
    port = atoi(strrchr(url, ':') + 1);
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("version hiredis %d.%d.%d\n", HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
    c = connection();
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        if (c->err) {
            redisFree(c);
            c = connection();
        }
        const char *why = scenarios[i].run();
        if (!why) printf("ok %s\n", scenarios[i].name);
        else if (!strncmp(why, "skip ", 5)) printf("skip %s %s\n", scenarios[i].name, why + 5);
        else printf("FAIL %s %s\n", scenarios[i].name, why);
        while (reply_count) freeReplyObject(replies[--reply_count]);
    }
    return 0;
}
