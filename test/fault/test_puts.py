#!/usr/bin/python3
"""test_puts.py - the k-th request of a kind fails, in each way, for every k; and every k-th.

A small life on S3: a first snapshot, segments, restarts, a rollover, a later snapshot, retention, a close and a reopen. Whatever
fails, and also when the store has done it: after each acknowledgement the store holds what was acknowledged, at the end everything,
once, in one generation. (A folder as replica: test_syscalls.py. Single faults seen from the status: test/storage.)
"""
# timeout: 600

import concurrent.futures
import os
import re
import shutil
import sqlite3
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ljtest import chain, cli, fasts3, faults, harness, pages, shim  # noqa: E402
from ljtest.harness import LONG, Failure, check, check_equal, test  # noqa: E402
from ljtest.replica import Replica  # noqa: E402

AT_ONCE = 12  # lives; they mostly wait
PATIENCE = 120
LATE_MS = 4500  # an answer that comes behind io_timeout, which nothing else should reach on a busy machine

REFUSED = (faults.s3_error("SlowDown"), faults.status(500), faults.reset_before(), faults.reset_upload(30))
DONE = (faults.reset_after(), faults.replace_status(500), faults.delay_answer(LATE_MS))
BROKEN_ANSWERS = (faults.s3_error("InternalError"), faults.reset_before(), faults.reset_body(20), faults.truncate(20),
                  faults.delay_answer(LATE_MS))
KINDS = {  # what of a request decides its kind, and how it fails
    "PUT": ({"method": "PUT"}, REFUSED + DONE),
    "GET": ({"method": "GET", "path": "/generations/"}, BROKEN_ANSWERS + (faults.corrupt(30, 4),)),
    "LIST": ({"method": "GET", "query": "list-type=2"}, BROKEN_ANSWERS),
    "HEAD": ({"method": "HEAD"}, (faults.s3_error("SlowDown"), faults.reset_before(), faults.reset_after())),
    "POST": ({"method": "POST"}, REFUSED[:3] + DONE),  # many deletions at once
    "DELETE": ({"method": "DELETE"}, REFUSED[:3] + DONE),
}


class Life:
    def __init__(self, t, store, proxy, name):
        self.folder = t.folder(name)
        self.store = store
        self.name = name
        self.path = os.path.join(self.folder, "app.db")
        self.url = store.url(name, "p").replace(store.endpoint, proxy.endpoint)  # a bucket of its own
        self.rng = t.random.__class__(name)
        self.copies = 0
        self.con = None

    def open(self):
        self.con = shim.open_wal(self.path, self.url, sync_interval="1h", snapshot_interval="0",
                                 retention="1ms", io_timeout="3s", shutdown_timeout="20s")

    def until(self, what, function):
        """The application asks again, as long as it takes."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return function()
            except sqlite3.Error as error:
                check(time.monotonic() < end and "malformed" not in shim.last_error(), "%s: %s; %s" % (what, error, shim.last_error()))

    def commit(self, count=2):
        for _ in range(count):
            self.n = chain.commit_one(self.con, self.rng, payload_bytes=(0, 100))

    def sync(self):
        self.until("sync", lambda: shim.sync(self.con, "20s"))
        newest = max(self.links_of(g) for g in self.replica().generations() if g.snapshots)
        check(newest >= self.n, "%d links were acknowledged, the store has %d" % (self.n, newest))

    def links_of(self, generation):
        out = os.path.join(self.folder, "out.db")
        Replica(generation.root).restore(out, generation=generation.name)
        return chain.verify_file(out)

    def replica(self):
        """What the store holds now, as a folder."""
        self.copies += 1
        root = os.path.join(self.folder, "copy%d" % self.copies)
        os.makedirs(root)
        listing = self.store.request("GET", "/%s?list-type=2" % self.name)[2].decode()
        for number, key in enumerate(re.findall("<Key>([^<]+)</Key>", listing)):
            status, _, body = self.store.request("GET", "/%s/%s" % (self.name, urllib.parse.quote(key)))
            if status == 404:
                continue  # deleted meanwhile
            check_equal(status, 200, key)
            path = os.path.join(root, key.split("/app/", 1)[1])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(body)
            os.utime(path, (1e9 + number, 1e9 + number))
        return Replica(root)

    def run(self):
        self.until("open", self.open)
        chain.create(self.con)
        self.commit()
        self.sync()
        self.commit()
        self.con.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        self.commit()
        self.sync()
        self.until("snapshot", lambda: shim.snapshot(self.con, "20s"))
        self.commit()
        self.con.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.commit()
        self.until("snapshot", lambda: shim.snapshot(self.con, "20s"))
        self.commit()
        self.con.close()
        self.until("reopen", self.open)
        self.commit()
        self.sync()
        self.con.close()

    def finish(self, generations):
        replica = self.replica()
        for generation in replica.generations():
            for thing in generation.segments + generation.snapshots + generation.marks:
                os.utime(thing.path, (1e9, 1e9))  # the store's own times say nothing about order here
        replica.check()
        found = replica.generations()
        check(len(found) <= generations, "generations: %s" % [(g.name, g.snapshots, g.segments) for g in found])
        check_equal(max(self.links_of(g) for g in found), self.n, "links at the end")
        best = next(g for g in found if self.links_of(g) == self.n)
        out = os.path.join(self.folder, "out.db")
        replica.restore(out, generation=best.name)
        pages.check_same(out, self.path, "restored")
        cli.check_restorers(replica.root, out, "restored", "-generation", best.name)
        shutil.rmtree(self.folder)


def one(t, store, proxy, number, kind, action, match, generations=1):
    """(fired, how many requests of the kind there were)"""
    name = "l%d" % number
    of_kind = dict(KINDS[kind][0])
    rule = proxy.add(action, **of_kind, **match, test=lambda request: re.match("/%s[/?]" % name, request.target))
    life = Life(t, store, proxy, name)
    try:
        life.run()
        life.finish(generations)
    except Exception as error:
        raise Failure("%s %s, %s: %s" % (kind, match, action.name, error)) from error
    finally:
        proxy.remove(rule)
    return rule.fired, rule.seen


def run_all(t, jobs):
    with fasts3.FastS3() as store, faults.Proxy(store.endpoint) as proxy:
        os.environ.update(store.env)
        failures = []
        counts = {}
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            futures = {pool.submit(one, t, store, proxy, i, *job): job for i, job in enumerate(jobs)}
            for future in concurrent.futures.as_completed(futures):
                kind, action, match, *_ = futures[future]
                try:
                    fired, seen = future.result()
                    key = (kind, action.name)
                    counts[key] = counts.get(key, 0) + (1 if fired else 0)
                    if not fired and "nth" in match:
                        t.note("%s %s %s: only %d requests" % (kind, action.name, match, seen))
                except Failure as error:
                    failures.append(str(error))
        for failure in failures:
            t.note(failure)
        if failures:
            raise Failure(" | ".join(failures[:3]))
        return counts


@test("shim", timeout=200, long_timeout=1800)
def the_kth_request_of_each_kind(t):
    most = {"PUT": 12, "GET": 1, "LIST": 4, "HEAD": 2, "POST": 2, "DELETE": 1}
    jobs = []
    for kind, (_, actions) in KINDS.items():
        for action in actions:
            for k in range(1, most[kind] + 1):
                # what could not be deleted at once is left to retention; answers that lie may cost a generation
                loose = 3 if kind in ("POST", "DELETE", "GET") or action in DONE else 1
                jobs.append((kind, action, {"nth": k}, loose))
    if not LONG:
        jobs = t.random.sample(jobs, 48)
    counts = run_all(t, jobs)
    t.note(counts)
    check(sum(counts.values()) > len(jobs) // 3, "hardly anything failed: %s" % counts)


@test("shim", timeout=200, long_timeout=1800)
def every_kth_put(t):
    jobs = []
    for action in REFUSED + DONE if LONG else t.random.sample(REFUSED + DONE, 4):
        for k in (2, 3, 4) if LONG else (2,):
            jobs.append(("PUT", action, {"every": k}, 6))
    t.note(run_all(t, jobs))


if __name__ == "__main__":
    harness.main("puts")
