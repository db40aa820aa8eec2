"""What a run may be told by the environment."""

import os
from dataclasses import dataclass
from typing import Self

from examples.demo.engine import ENGINES, Engine


@dataclass(frozen=True)
class Settings:
    engine: Engine = ENGINES["sqlite"]
    requests: int = 600
    kills: int = 2
    clients: int = 16
    deadline: float = 60.0
    serve: bool = False

    @classmethod
    def from_environment(cls) -> Self:
        """Raises ValueError for what cannot be."""
        engine = Engine.named(os.environ.get("ENGINE") or cls.engine.name)
        return cls(
            engine=engine,
            requests=int(os.environ.get("DEMO_REQUESTS", cls.requests)),
            kills=int(os.environ.get("DEMO_KILLS", engine.kills)),
            clients=int(os.environ.get("DEMO_CLIENTS", cls.clients)),
            deadline=float(os.environ.get("DEMO_DEADLINE", engine.deadline)),
            serve=os.environ.get("SERVE", "") not in ("", "0"),
        )
