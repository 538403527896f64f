<?php
/* The redis extension (phpredis), as an application uses it. */

declare(strict_types=1);

require __DIR__ . '/report.php';

function client(): Redis
{
    $c = new Redis();
    $c->connect('127.0.0.1', port(), 20.0);
    $c->setOption(Redis::OPT_READ_TIMEOUT, 20);
    return $c;
}

echo 'version phpredis ' . phpversion('redis') . "\n";
$r = client();

run([
    'connect' => function () use ($r) {
        check($r->ping());
        check(isset($r->info()['redis_version']), 'redis_version');
        check($r->rawCommand('COMMAND', 'COUNT') > 200);
        // What web servers do: the connection outlives the request.
        $kept = new Redis();
        check($kept->pconnect('127.0.0.1', port(), 5.0, 'kept'));
        check($kept->ping());
    },
    'strings' => function () use ($r) {
        foreach (['text', '', implode(array_map('chr', range(0, 255))), str_repeat('x', 5000), "a\r\nb\r\n"] as $value) {
            check($r->set('strings:k', $value));
            for ($i = 0; $i < 4; $i++) {
                same($r->get('strings:k'), $value);
            }
            same($r->mGet(['strings:k', 'strings:none']), [$value, false]);
        }
        same($r->get('strings:none'), false);
        same($r->set('strings:k', 'v', ['nx']), false);
        same($r->incrBy('strings:n', 42), 42);
        check($r->setEx('strings:e', 100, 'v') && $r->ttl('strings:e') > 90);
        // Values of any type, as sessions and caches store them.
        $typed = client();
        $typed->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_PHP);
        $typed->set('strings:php', ['a' => [1, 2.5, null]]);
        same($typed->get('strings:php'), ['a' => [1, 2.5, null]]);
    },
    'pipeline' => function () use ($r) {
        $p = $r->pipeline();
        $expected = [];
        for ($i = 0; $i < 1000; $i++) {
            $p->set('pipeline:' . $i % 50, (string) $i)->get('pipeline:' . $i % 50);
            array_push($expected, true, (string) $i);
        }
        same($p->exec(), $expected);
    },
    'transaction' => function () use ($r) {
        $other = client();
        $r->set('transaction:k', '1');
        for ($i = 0; $i < 3; $i++) {
            $r->get('transaction:k');
        }
        $r->watch('transaction:k');
        $other->set('transaction:k', '2');
        same($r->multi()->set('transaction:k', '3')->exec(), false);
        $r->watch('transaction:k');
        same($r->multi()->incr('transaction:k')->get('transaction:k')->exec(), [3, '3']);
        $r->hSet('transaction:h', 'f', 'v');
        same($r->multi()->incr('transaction:h')->incr('transaction:k')->exec(), [false, 4]);
        $r->multi();
        $r->incr('transaction:k');
        check($r->discard());
        same($r->get('transaction:k'), '4');
    },
    'pubsub' => function () use ($r) {
        $publisher = beside('$r = new Redis(); $r->connect("127.0.0.1", (int) $argv[1]);
            while ($r->publish("pubsub:a", "hello") < 1) usleep(10000); while ($r->publish("pubsub:b", "bye") < 1) usleep(10000);');
        $heard = [];
        // The way out of the loop is to close the connection.
        $hear = function ($redis, $channel, $message) use (&$heard) {
            $heard[] = "$channel=$message";
            if ($message === 'bye') {
                $redis->unsubscribe(['pubsub:a', 'pubsub:b']);
                $redis->close();
            }
        };
        refused(fn () => client()->subscribe(['pubsub:a', 'pubsub:b'], $hear), 'Connection closed');
        pclose($publisher);
        same([$heard[0], end($heard)], ['pubsub:a=hello', 'pubsub:b=bye']);
        $publisher = beside('$r = new Redis(); $r->connect("127.0.0.1", (int) $argv[1]); while ($r->publish("pubsub:c", "hello") < 1) usleep(10000);');
        $hear = function ($redis, $pattern, $channel, $message) use (&$heard) {
            $heard = [$pattern, $channel, $message];
            $redis->punsubscribe(['pubsub:*']);
            $redis->close();
        };
        refused(fn () => client()->psubscribe(['pubsub:*'], $hear), 'Connection closed');
        pclose($publisher);
        same($heard, ['pubsub:*', 'pubsub:c', 'hello']);
        same($r->publish('pubsub:a', 'nobody'), 0);
    },
    'blocking' => function () use ($r) {
        $pusher = beside('$r = new Redis(); $r->connect("127.0.0.1", (int) $argv[1]);
            while (!$r->info("clients")["blocked_clients"]) usleep(10000); $r->rPush("blocking:b", "job");');
        same($r->blPop(['blocking:a', 'blocking:b'], 10), ['blocking:b', 'job']);
        pclose($pusher);
        for ($i = 0; $i < 2; $i++) {
            $start = microtime(true);
            same($r->blPop(['blocking:none'], 1), []);
            check(microtime(true) - $start > 0.9 && microtime(true) - $start < 5, 'the time-out');
        }
    },
    'script' => function () use ($r) {
        $put = "redis.call('SET', KEYS[1], ARGV[1]); return redis.call('GET', KEYS[1])";
        $r->set('script:k', 'before');
        for ($i = 0; $i < 3; $i++) {
            $r->get('script:k');
        }
        $r->script('flush');
        same($r->evalSha(sha1($put), ['script:k', 'no'], 1), false);
        check(str_contains($r->getLastError(), 'NOSCRIPT'), 'NOSCRIPT');
        same($r->eval($put, ['script:k', 'after'], 1), 'after');
        same($r->evalSha(sha1($put), ['script:k', 'again'], 1), 'again');
        same($r->get('script:k'), 'again');
        same($r->eval("return {1, 'two', {3, false}}"), [1, 'two', [3, false]]);
    },
    'stream' => function () use ($r) {
        $ids = [];
        for ($i = 0; $i < 5; $i++) {
            $ids[] = $r->xAdd('stream:s', '*', ['n' => (string) $i]);
        }
        check($r->xGroup('CREATE', 'stream:s', 'g', '0'));
        same($r->xGroup('CREATE', 'stream:s', 'g', '0'), false);
        same(array_keys($r->xReadGroup('g', 'one', ['stream:s' => '>'], 3)['stream:s']), array_slice($ids, 0, 3));
        same(array_keys($r->xReadGroup('g', 'two', ['stream:s' => '>'], 3)['stream:s']), array_slice($ids, 3));
        check(!$r->xReadGroup('g', 'two', ['stream:s' => '>'], 3, 50), 'nothing more');
        same($r->xAck('stream:s', 'g', array_slice($ids, 0, 2)), 2);
        same($r->xPending('stream:s', 'g')[0], 3);
    },
    'scan' => function () use ($r) {
        $p = $r->pipeline();
        for ($i = 0; $i < 1000; $i++) {
            $p->set("scan:$i", "$i")->hSet('scan-h', "$i", "$i")->sAdd('scan-s', "$i")->zAdd('scan-z', $i, "$i");
        }
        $p->exec();
        $r->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
        $all = function (callable $page): int {
            $seen = [];
            $cursor = null;
            while (($batch = $page($cursor)) !== false) {
                foreach ($batch as $key => $value) {
                    $seen[is_int($key) && array_is_list($batch) ? $value : $key] = true;
                }
            }
            return count($seen);
        };
        same($all(function (&$c) use ($r) { return $r->scan($c, 'scan:*', 100); }), 1000);
        same($all(function (&$c) use ($r) { return $r->sScan('scan-s', $c, '*', 100); }), 1000);
        $fields = 0;
        $cursor = null;
        while (($page = $r->hScan('scan-h', $cursor, '*', 100)) !== false) {
            $fields += count($page);
        }
        $scored = 0;
        $cursor = null;
        while (($page = $r->zScan('scan-z', $cursor, '*', 100)) !== false) {
            $scored += count($page);
        }
        same([$fields, $scored], [1000, 1000]);
    },
    'large' => function () use ($r) {
        foreach ([random_bytes(10 << 20), str_repeat('{"symbol": "BTCUSDT", "price": 64123.5},', 250000)] as $value) {
            check($r->set('large:k', $value));
            for ($i = 0; $i < 4; $i++) {
                check($r->get('large:k') === $value, 'the large value');
            }
        }
    },
    'types' => function () use ($r) {
        $r->hMSet('types:h', ['f' => 'v', 'g' => 1]);
        same($r->hGetAll('types:h'), ['f' => 'v', 'g' => '1']);
        same($r->hGetAll('types:none'), []);
        $r->sAdd('types:s', 'a');
        same($r->sMembers('types:s'), ['a']);
        $r->zAdd('types:z', 1, 'a', 2.5, 'b');
        same($r->zScore('types:z', 'b'), 2.5);
        same($r->zRange('types:z', 0, -1, true), ['a' => 1.0, 'b' => 2.5]);
        same($r->config('GET', 'maxmemory'), ['maxmemory' => '0']);
        same($r->type('types:h'), Redis::REDIS_HASH);
        same($r->get('types:h'), false);
        check(str_contains($r->getLastError(), 'WRONGTYPE'), 'WRONGTYPE');
    },
    'acl' => function () use ($r) {
        $r->set('acl:theirs', 'secret');
        for ($i = 0; $i < 4; $i++) {
            $r->get('acl:theirs');
        }
        check($r->acl('SETUSER', 'app', 'reset', 'on', '>pass', '~user:*', '&*', '+@all', '-@dangerous', '+@connection', '+info'));
        $app = client();
        refused(fn () => $app->auth(['app', 'wrong']) ?: throw new Exception($app->getLastError()), 'WRONGPASS');
        check($app->auth(['app', 'pass']));
        same($app->acl('WHOAMI'), 'app');
        check($app->set('user:1', 'mine'));
        for ($i = 0; $i < 4; $i++) {
            same($app->get('user:1'), 'mine');
            refused(fn () => $app->get('acl:theirs') ?: throw new Exception($app->getLastError()), 'NOPERM');
        }
        same($r->acl('DELUSER', 'app'), 1);
    },
    'select' => function () use ($r) {
        $three = client();
        check($three->select(3));
        $r->set('select:k', 'zero');
        $three->set('select:k', 'three');
        for ($i = 0; $i < 4; $i++) {
            same([$r->get('select:k'), $three->get('select:k')], ['zero', 'three']);
        }
        same($three->select(99), false);
        same($three->get('select:k'), 'three');
    },
    'clients' => function () use ($r) {
        [$one, $two] = [client(), client()];
        [$id, $other] = [$one->rawCommand('CLIENT', 'ID'), $two->rawCommand('CLIENT', 'ID')];
        check($id > 0 && $other > $id, 'the ids');
        check($one->client('SETNAME', 'compat-one'));
        same($one->client('GETNAME'), 'compat-one');
        $list = array_column($r->client('LIST'), 'name', 'id');
        same($list[$id], 'compat-one');
        same($r->rawCommand('CLIENT', 'KILL', 'ID', (string) $other), 1);
        // The extension connects again by itself.
        check($two->ping() && !in_array($two->rawCommand('CLIENT', 'ID'), [$id, $other], true), 'a new connection');
    },
    'tracking' => fn () => throw new Skip('the library has no cache of its own'),
    'reconnect' => function () {
        $c = client();
        $c->select(2);
        $c->set('reconnect:k', 'before');
        restart();
        // The extension connects again by itself, and selects the database again.
        check($c->set('reconnect:k', 'after'));
        same($c->get('reconnect:k'), 'after');
        $two = client();
        $two->select(2);
        same($two->get('reconnect:k'), 'after');
    },
]);
