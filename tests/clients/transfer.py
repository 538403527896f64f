"""Transfers 10 from one key to another in a transaction: argument 1 is the URL, 2 how often it is tried.

Prints `done` or `failed`.
"""

import sys

import redis

r = redis.Redis.from_url(sys.argv[1], protocol=2)
for _ in range(int(sys.argv[2])):
    try:
        with r.pipeline(transaction=True) as pipe:
            pipe.decrby("from", 10)
            pipe.incrby("to", 10)
            pipe.execute()
        print("done")
        break
    except redis.exceptions.RedisError:
        pass
else:
    print("failed")
