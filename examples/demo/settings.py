"""What a run may be told by the environment."""

import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Settings:
    requests: int = 600
    kills: int = 2
    clients: int = 16
    deadline: float = 60.0
    serve: bool = False

    @classmethod
    def from_environment(cls) -> Self:
        return cls(
            requests=int(os.environ.get("DEMO_REQUESTS", cls.requests)),
            kills=int(os.environ.get("DEMO_KILLS", cls.kills)),
            clients=int(os.environ.get("DEMO_CLIENTS", cls.clients)),
            deadline=float(os.environ.get("DEMO_DEADLINE", cls.deadline)),
            serve=os.environ.get("SERVE", "") not in ("", "0"),
        )
