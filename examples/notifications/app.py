"""The web application: the page, a session for each user, and how far each has read.

    python app.py 8000 http://127.0.0.1:8080

It needs FASTSSE_STORE and FASTSSE_JWT_KEY. Who a user is it simply believes: a real one
asks for a password.
"""

import json
import os
import pathlib
import sys
import time
from typing import Annotated, Any

import jwt
import redis
import uvicorn
from fastapi import FastAPI, HTTPException, Query
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

SESSION_S = int(os.environ.get("SESSION_S", 24 * 60 * 60))
# A mark only goes forward, whichever device is slower to say how far it has read.
ADVANCE = """
if ARGV[1] <= (redis.call('GET', KEYS[1]) or '') then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
"""

store = redis.Redis.from_url(os.environ["FASTSSE_STORE"], decode_responses=True)
key = os.environ["FASTSSE_JWT_KEY"]
app = FastAPI()


class Mark(BaseModel):
    token: str
    through: str = Field(pattern=r"^\d{1,19}-\d{1,20}$")


@app.get("/session")
def session(user: Annotated[str, Query(pattern="^[a-z0-9]{1,32}$")]) -> dict[str, Any]:
    """A token that lets its bearer read this user's topic, and where the events are."""
    rights = {"subscribe": [f"users/{user}"]}
    claims = {"sub": user, "exp": int(time.time()) + SESSION_S, "mercure": rights}
    token = jwt.encode(claims, key, "HS256")
    return {"events": sys.argv[2], "token": token, "read": store.get(f"read:{user}") or "0-0"}


@app.post("/read", status_code=204)
def read(mark: Mark) -> None:
    try:
        user = jwt.decode(mark.token, key, ["HS256"], options={"require": ["sub", "exp"]})["sub"]
    except jwt.InvalidTokenError:
        raise HTTPException(403) from None
    # Of one length, so that the later of two positions is the greater text.
    through = "-".join(number.zfill(20) for number in mark.through.split("-"))
    if store.eval(ADVANCE, 1, f"read:{user}", through):
        store.publish(f"reads.{user}", json.dumps({"through": through}))


app.mount("/", StaticFiles(directory=pathlib.Path(__file__).parent / "page", html=True))

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), access_log=False)
