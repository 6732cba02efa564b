"""Prices of 300 symbols, 1,500 changes a second: `python -m examples.dashboard.app`."""

import asyncio
import random
from pathlib import Path

import fastsse
from examples.site import Example, run

SYMBOLS = [f"S{number:03}" for number in range(300)]
CHANGES_A_TURN = 30
TURN_S = 0.02


async def publish(hub: fastsse.Server) -> None:
    """Moves prices at random, for ever."""
    prices = {symbol: random.uniform(10, 500) for symbol in SYMBOLS}
    for symbol, price in prices.items():
        hub.publish(f"prices/{symbol}", {"price": round(price, 2), "change": 0})
    while True:
        for symbol in random.sample(SYMBOLS, CHANGES_A_TURN):
            change = prices[symbol] * random.gauss(0, 0.002)
            prices[symbol] += change
            data = {"price": round(prices[symbol], 2), "change": round(change, 2)}
            hub.publish(f"prices/{symbol}", data)
        await asyncio.sleep(TURN_S)


# The newest price of each symbol is kept, whatever else is evicted.
EXAMPLE = Example(
    Path(__file__).parent,
    publish,
    {"topics": [{"match": "prices/*", "keep_last": 1, "history_events": 100}]},
)

if __name__ == "__main__":
    run(EXAMPLE)
