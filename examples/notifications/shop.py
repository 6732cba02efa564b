"""The shop: a program that has never heard of fastsse. It announces its orders to all listeners.

python shop.py alice '{"order": 17, "state": "paid"}'
"""

import os
import sys

import redis

redis.Redis.from_url(os.environ["FASTSSE_STORE"]).publish(f"orders.{sys.argv[1]}", sys.argv[2])
