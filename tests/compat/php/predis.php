<?php
/* Predis, which is written in PHP alone, as an application uses it. */

declare(strict_types=1);

require __DIR__ . '/report.php';
require 'Predis/autoload.php';

function client(array $more = []): Predis\Client
{
    return new Predis\Client($more + ['host' => '127.0.0.1', 'port' => port(), 'read_write_timeout' => 20]);
}

echo 'version predis ' . Predis\Client::VERSION . "\n";
$r = client();

run([
    'connect' => function () use ($r) {
        same((string) $r->ping(), 'PONG');
        check(isset($r->info()['Server']['redis_version']), 'redis_version');
        check($r->executeRaw(['COMMAND', 'COUNT']) > 200);
        $kept = client(['persistent' => true]);
        same((string) $kept->ping(), 'PONG');
    },
    'strings' => function () use ($r) {
        foreach (['text', '', implode(array_map('chr', range(0, 255))), str_repeat('x', 5000), "a\r\nb\r\n"] as $value) {
            same((string) $r->set('strings:k', $value), 'OK');
            for ($i = 0; $i < 4; $i++) {
                same($r->get('strings:k'), $value);
            }
            same($r->mget('strings:k', 'strings:none'), [$value, null]);
        }
        same($r->set('strings:k', 'v', 'NX'), null);
        same($r->incrby('strings:n', 42), 42);
    },
    'pipeline' => function () use ($r) {
        $expected = [];
        $got = $r->pipeline(function ($p) use (&$expected) {
            for ($i = 0; $i < 1000; $i++) {
                $p->set('pipeline:' . $i % 50, (string) $i);
                $p->get('pipeline:' . $i % 50);
                array_push($expected, 'OK', (string) $i);
            }
        });
        same(array_map(fn ($reply) => (string) $reply, $got), $expected);
    },
    'transaction' => function () use ($r) {
        $r->set('transaction:k', '1');
        for ($i = 0; $i < 3; $i++) {
            $r->get('transaction:k');
        }
        $other = client();
        // The library's own loop: the first round is lost to the other client.
        $rounds = 0;
        $got = $r->transaction(['watch' => 'transaction:k', 'cas' => true, 'retry' => 3], function ($t) use ($other, &$rounds) {
            $n = (int) $t->get('transaction:k');
            if ($rounds++ === 0) {
                $other->set('transaction:k', '41');
            }
            $t->multi();
            $t->set('transaction:k', (string) ($n + 1));
            $t->get('transaction:k');
        });
        same([$rounds, $got[1]], [2, '42']);
        $r->hset('transaction:h', 'f', 'v');
        refused(fn () => $r->transaction(fn ($t) => $t->incr('transaction:h')), 'WRONGTYPE');
        same($r->get('transaction:k'), '42');
    },
    'pubsub' => function () use ($r) {
        $publisher = beside('require "Predis/autoload.php"; $r = new Predis\Client(["port" => $argv[1]]);
            while ($r->publish("pubsub:a", "hello") < 2) usleep(10000);');
        $heard = [];
        $loop = client()->pubSubLoop();
        $loop->subscribe('pubsub:a');
        $loop->psubscribe('pubsub:*');
        foreach ($loop as $message) {
            $heard[] = $message->kind;
            if (in_array('message', $heard, true) && in_array('pmessage', $heard, true)) {
                $loop->unsubscribe();
                $loop->punsubscribe();
            }
        }
        pclose($publisher);
        same([$heard[0], $heard[1]], ['subscribe', 'psubscribe']);
        same($r->publish('pubsub:a', 'nobody'), 0);
    },
    'blocking' => function () use ($r) {
        $pusher = beside('require "Predis/autoload.php"; $r = new Predis\Client(["port" => $argv[1]]);
            while (!$r->info("clients")["Clients"]["blocked_clients"]) usleep(10000); $r->rpush("blocking:b", ["job"]);');
        same($r->blpop(['blocking:a', 'blocking:b'], 10), ['blocking:b', 'job']);
        pclose($pusher);
        $start = microtime(true);
        same($r->blpop(['blocking:none'], 1), null);
        check(microtime(true) - $start > 0.9 && microtime(true) - $start < 5, 'the time-out');
    },
    'script' => function () use ($r) {
        $put = "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])";
        $r->script('flush');
        refused(fn () => $r->evalsha(sha1($put), 1, 'script:k', 'no'), 'NOSCRIPT');
        same($r->eval($put, 1, 'script:k', 'after'), 'after');
        same($r->evalsha(sha1($put), 1, 'script:k', 'again'), 'again');
        same($r->get('script:k'), 'again');
    },
    'stream' => function () use ($r) {
        $id = $r->executeRaw(['XADD', 'stream:s', '*', 'n', '0']);
        same($r->executeRaw(['XGROUP', 'CREATE', 'stream:s', 'g', '0']), 'OK');
        same($r->executeRaw(['XREADGROUP', 'GROUP', 'g', 'one', 'STREAMS', 'stream:s', '>']), [['stream:s', [[$id, ['n', '0']]]]]);
        same($r->executeRaw(['XACK', 'stream:s', 'g', $id]), 1);
    },
    'scan' => function () use ($r) {
        $r->pipeline(function ($p) {
            for ($i = 0; $i < 1000; $i++) {
                $p->set("scan:$i", "$i");
                $p->hset('scan-h', "$i", "$i");
                $p->sadd('scan-s', ["$i"]);
                $p->zadd('scan-z', ["$i" => $i]);
            }
        });
        same(count(array_unique(iterator_to_array(new Predis\Collection\Iterator\Keyspace($r, 'scan:*', 100), false))), 1000);
        same(count(iterator_to_array(new Predis\Collection\Iterator\HashKey($r, 'scan-h', '*', 100))), 1000);
        same(count(array_unique(iterator_to_array(new Predis\Collection\Iterator\SetKey($r, 'scan-s', '*', 100), false))), 1000);
        same(count(iterator_to_array(new Predis\Collection\Iterator\SortedSetKey($r, 'scan-z', '*', 100))), 1000);
    },
    'large' => function () use ($r) {
        foreach ([random_bytes(10 << 20), str_repeat('{"symbol": "BTCUSDT", "price": 64123.5},', 250000)] as $value) {
            $r->set('large:k', $value);
            for ($i = 0; $i < 4; $i++) {
                check($r->get('large:k') === $value, 'the large value');
            }
        }
    },
    'types' => function () use ($r) {
        $r->hmset('types:h', ['f' => 'v', 'g' => 1]);
        same($r->hgetall('types:h'), ['f' => 'v', 'g' => '1']);
        $r->zadd('types:z', ['a' => 1, 'b' => 2.5]);
        same($r->zrange('types:z', 0, -1, ['WITHSCORES' => true]), ['a' => '1', 'b' => '2.5']);
        same($r->config('GET', 'maxmemory'), ['maxmemory' => '0']);
        refused(fn () => $r->get('types:h'), 'WRONGTYPE');
    },
    'acl' => function () use ($r) {
        $r->set('acl:theirs', 'secret');
        for ($i = 0; $i < 4; $i++) {
            $r->get('acl:theirs');
        }
        same($r->executeRaw(['ACL', 'SETUSER', 'app', 'reset', 'on', '>pass', '~user:*', '&*', '+@all', '-@dangerous', '+@connection', '+info']), 'OK');
        $app = client();
        refused(fn () => check(false, $app->executeRaw(['AUTH', 'app', 'wrong'])), 'WRONGPASS');
        same($app->executeRaw(['AUTH', 'app', 'pass']), 'OK');
        same((string) $app->set('user:1', 'mine'), 'OK');
        for ($i = 0; $i < 4; $i++) {
            same($app->get('user:1'), 'mine');
            refused(fn () => $app->get('acl:theirs'), 'NOPERM');
        }
        same($r->executeRaw(['ACL', 'DELUSER', 'app']), 1);
    },
    'select' => function () use ($r) {
        $three = client(['database' => 3]);
        $r->set('select:k', 'zero');
        $three->set('select:k', 'three');
        for ($i = 0; $i < 4; $i++) {
            same([$r->get('select:k'), $three->get('select:k')], ['zero', 'three']);
        }
        refused(fn () => $three->select(99), 'out of range');
    },
    'clients' => function () use ($r) {
        $one = client();
        $id = $one->executeRaw(['CLIENT', 'ID']);
        same((string) $one->client('SETNAME', 'compat-one'), 'OK');
        same($one->client('GETNAME'), 'compat-one');
        same(array_column($r->client('LIST'), 'name', 'id')[$id], 'compat-one');
        same($r->executeRaw(['CLIENT', 'KILL', 'ID', (string) $id]), 1);
        refused(fn () => $one->ping(), '');
    },
    'tracking' => fn () => throw new Skip('the library has no cache of its own'),
    'reconnect' => function () {
        $c = client(['database' => 2]);
        $c->set('reconnect:k', 'before');
        restart();
        // The library tells of the lost connection once and makes a new one for the next command.
        refused(fn () => $c->ping(), '');
        same((string) $c->set('reconnect:k', 'after'), 'OK');
        same($c->get('reconnect:k'), 'after');
    },
]);
