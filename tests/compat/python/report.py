"""How the Python programs tell scripts/compat what held. It knows nothing of any library.

A program prints one line per scenario (`ok`, `FAIL` or `skip`, its name, why), and may ask for a new server.
"""

import asyncio
import os
import sys
import traceback

URL = os.environ["REDIS_URL"]
# For any one scenario; far more than a loaded machine needs.
LIMIT = 60


class Skip(Exception):
    """The library cannot do this; the text says so."""


def say(*words):
    print(*words, flush=True)


def tell(name, error):
    """One line for the outcome of a scenario; the whole trace goes to stderr."""
    if error is None:
        say("ok", name)
    elif isinstance(error, Skip):
        say("skip", name, error)
    else:
        traceback.print_exception(error)
        script = os.path.basename(sys.argv[0])
        where = [f.lineno for f in traceback.extract_tb(error.__traceback__) if os.path.basename(f.filename) == script]
        text = " ".join(str(error).split())
        say("FAIL", name, f"line {where[-1] if where else '?'}: {type(error).__name__}: {text[:300]}")


def run(*scenarios):
    for scenario in scenarios:
        try:
            scenario()
            tell(scenario.__name__, None)
        except Exception as error:
            tell(scenario.__name__, error)


async def run_async(*scenarios):
    for scenario in scenarios:
        try:
            await asyncio.wait_for(scenario(), LIMIT)
            tell(scenario.__name__, None)
        except Exception as error:
            tell(scenario.__name__, error)


def restart():
    """Returns when the server behind REDIS_URL has ended and a new one listens on the same port."""
    say("restart")
    assert sys.stdin.readline().strip() == "restarted"


def refused(kind, call, text=""):
    """`call` must fail with an error of this kind that holds the text."""
    try:
        got = call()
    except kind as error:
        assert text in str(error), f"{error} does not hold {text!r}"
        return
    raise AssertionError(f"{text or kind.__name__} was expected, got {got!r}")


async def refused_async(kind, call, text=""):
    try:
        got = await call
    except kind as error:
        assert text in str(error), f"{error} does not hold {text!r}"
        return
    raise AssertionError(f"{text or kind.__name__} was expected, got {got!r}")
