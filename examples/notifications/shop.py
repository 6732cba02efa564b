"""The shop: a program that has never heard of fastsse. It announces its orders to all listeners.

python shop.py alice '{"order": 17, "state": "paid"}'
"""

import os
import sys

import redis

if len(sys.argv) != 3:
    sys.exit(__doc__)
user, text = sys.argv[1:]
redis.Redis.from_url(os.environ["FASTSSE_STORE"]).publish(f"orders.{user}", text)
