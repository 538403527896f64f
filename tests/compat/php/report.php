<?php
/*
 * How the PHP programs tell scripts/compat what held. It knows nothing of any library.
 *
 * A program prints one line per scenario (`ok`, `FAIL` or `skip`, its name, why), and may ask for a new server.
 */

declare(strict_types=1);

/** Thrown where the library cannot do it; the text says so. */
class Skip extends Exception
{
}

function check(bool $holds, string $what = 'it'): void
{
    if (!$holds) {
        throw new Exception("$what does not hold");
    }
}

function same(mixed $got, mixed $expected): void
{
    if ($got !== $expected) {
        throw new Exception(substr(json_encode($got) ?: 'bytes', 0, 120) . ' is not ' . substr(json_encode($expected) ?: 'bytes', 0, 120));
    }
}

/** The call must fail with an error that holds the text. */
function refused(callable $call, string $text): void
{
    try {
        $got = $call();
    } catch (Exception $error) {
        check(str_contains($error->getMessage(), $text), "'{$error->getMessage()}' holding $text");
        return;
    }
    throw new Exception("$text was expected, got " . json_encode($got));
}

/** Returns when the server behind REDIS_URL has ended and a new one listens on the same port. */
function restart(): void
{
    echo "restart\n";
    same(trim(fgets(STDIN)), 'restarted');
}

function port(): int
{
    return (int) substr(strrchr(getenv('REDIS_URL'), ':'), 1);
}

/** Runs this PHP code in another process, with `$argv[1]` for the port; closing the stream waits for its end. */
function beside(string $code): mixed
{
    return popen(escapeshellarg(PHP_BINARY) . ' -r ' . escapeshellarg($code) . ' ' . port(), 'r');
}

/** @param array<string, callable> $scenarios */
function run(array $scenarios): void
{
    foreach ($scenarios as $name => $scenario) {
        try {
            $scenario();
            echo "ok $name\n";
        } catch (Skip $skip) {
            echo "skip $name {$skip->getMessage()}\n";
        } catch (Throwable $error) {
            fwrite(STDERR, "$error\n");
            $lines = array_filter([['file' => $error->getFile(), 'line' => $error->getLine()], ...$error->getTrace()], fn ($f) => ($f['file'] ?? '') === $_SERVER['SCRIPT_FILENAME'] || str_ends_with($f['file'] ?? '', '/' . basename($_SERVER['SCRIPT_FILENAME'])));
            $line = array_values($lines)[0]['line'] ?? '?';
            echo "FAIL $name line $line: ", preg_replace('/\s+/', ' ', substr($error->getMessage(), 0, 300)), "\n";
        }
    }
}
