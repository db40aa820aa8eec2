"""A process that joins a ledger, claims what it is told, and then does nothing: holder.py PATH DURABILITY"""

import asyncio
import json
import os
import sys

from segundo.ledger.sqlite import SQLiteLedger
from segundo.record import Call


async def hold(path: str, durability: str) -> None:
    ledger = SQLiteLedger(path, durability="normal" if durability == "normal" else "full")
    await ledger.open()
    owner = f"process-{os.getpid()}"
    await ledger.join(owner)
    calls = [Call(**fields) for fields in json.loads(sys.stdin.readline())]
    if calls:
        records = await ledger.record(calls, owner=owner)
        await ledger.claim(owner, ids=[record.id for record in records], limit=len(records))
    print("holds them", flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until it is killed, or whoever started it has gone


if __name__ == "__main__":
    asyncio.run(hold(*sys.argv[1:3]))
