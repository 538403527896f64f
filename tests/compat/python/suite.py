"""Runs redis-py's own tests twice, straight to Redis and through Shortstop, and tells whose outcome differs.

    suite.py SOURCE PROTOCOL DIRECT-URL PROXY-URL

SOURCE is the unpacked sdist. A test that differs is run once more on both sides, because some of them depend on the
clock; what differs again is printed for scripts/compat, one line per test. Left out are tests of clusters, Sentinel, modules
and TLS, of what talks to no server at all, and those that listen on a fixed port, which the two runs would both take. It is
also the pytest plugin that writes the outcomes down.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

LEFT_OUT = re.compile("cluster|cwe_404|sentinel|ssl|bloom|json|search|timeseries|vsets|credentials|command_policies|max_connections|entraid")
MARKS = "not onlycluster and not redismod and not ssl and not cp_integration and not replica"


def pytest_addoption(parser):
    parser.addoption("--outcomes", required=True, help="the file to write `outcome<TAB>test<TAB>why` to")


def pytest_collection_modifyitems(items):
    # A time-out of their own kind ends pytest altogether; --timeout holds for all of them instead.
    for item in items:
        for node in item.listchain():
            node.own_markers = [mark for mark in node.own_markers if mark.name != "timeout"]


OUTCOMES = {}


def pytest_runtest_logreport(report):
    # Set-up and tear-down count too, when they are not good.
    if report.when == "call" or report.outcome != "passed":
        crash = getattr(report.longrepr, "reprcrash", None) if report.failed else None
        OUTCOMES[report.nodeid] = (report.outcome, " ".join(crash.message.split()) if crash else "")


def pytest_sessionfinish(session):
    with open(session.config.getoption("--outcomes"), "w") as file:
        for test, (outcome, why) in OUTCOMES.items():
            file.write(f"{outcome}\t{test}\t{why}\n")


def start(source, protocol, url, name, tests):
    """Starts pytest; its outcomes come as a file beside the source."""
    out = source.parent / f"{name}.outcomes"
    out.unlink(missing_ok=True)
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "suite", "-o", "addopts=", "-o", "capture=fd", "--timeout", "30"]
    arguments += ["-W", "ignore", "--protocol", protocol, "--redis-url", url, "-m", MARKS, "--outcomes", str(out), *tests]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    log = open(source.parent / f"{name}.log", "w")
    return subprocess.Popen([sys.executable, "-m", "pytest", *arguments], cwd=source, env=environment, stdout=log, stderr=log), out


def outcomes(running):
    process, out = running
    process.wait()
    lines = out.read_text().splitlines() if out.exists() else []
    return {test: (outcome, why) for outcome, test, why in (line.split("\t", 2) for line in lines)}


def both(source, protocol, direct, proxy, tests):
    """The outcomes on both sides, which run at the same time: they wait more than they work."""
    running = [start(source, protocol, url, name, tests) for url, name in ((direct, "direct"), (proxy, "proxy"))]
    return [outcomes(one) for one in running]


def differing(direct, proxy):
    nothing = ("did not run", "")
    return [test for test in sorted({*direct, *proxy}) if direct.get(test, nothing)[0] != proxy.get(test, nothing)[0]]


def main(source, protocol, direct_url, proxy_url):
    source = Path(source).resolve()
    files = sorted([*source.glob("tests/test_*.py"), *source.glob("tests/test_asyncio/test_*.py")])
    files = [str(file.relative_to(source)) for file in files if not LEFT_OUT.search(file.name)]
    direct, proxy = both(source, protocol, direct_url, proxy_url, files)
    if not direct or not proxy:
        print("FAIL run pytest did not get to its end: see", source.parent)
        return
    again = differing(direct, proxy)
    still = []
    if again:
        second_direct, second_proxy = both(source, protocol, direct_url, proxy_url, again)
        still = differing(second_direct, second_proxy)
        for test in still:
            (expected, _), (got, why) = second_direct.get(test, ("did not run", "")), second_proxy.get(test, ("did not run", ""))
            print("FAIL", test.replace(" ", "_"), f"{expected} to Redis, {got} through Shortstop: {why[:300]}")
        for test in sorted({*again} - {*still}):
            print("note", test.replace(" ", "_"), "differed once and not a second time")
    counts = ", ".join(f"{sum(1 for o, _ in direct.values() if o == outcome)} {outcome}" for outcome in ("passed", "failed", "skipped"))
    print(f"note all {len(direct)} tests, to Redis: {counts}; another outcome through Shortstop: {len(still)}")
    print(f"ok {len(direct) - len(still)}-of-{len(direct)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
