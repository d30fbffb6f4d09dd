"""Servers on the root of a plan or task, for tests of what is started and stopped by them."""

from __future__ import annotations

import json
from typing import Any, Generic, TypeVar

from tests.api_server import Server
from tests.plan_root import PlanRoot

Root = TypeVar("Root", bound=PlanRoot)


class Servers(Generic[Root]):
    """Servers on one root, with the variables of that; they end together."""

    def __init__(self, root: Root, *places: str) -> None:
        self.root = root
        self._places = places
        self._servers: list[Server] = []

    def serve(self, *arguments: str, env: dict[str, str] | None = None) -> Server:
        words = (*self._places, *arguments)
        server = Server(self.root.path, *words, env=self.root.environment(env))
        server.start()
        self._servers.append(server)
        return server

    def close(self) -> None:
        for server in self._servers:
            server.kill()

    def assert_nothing_left(self) -> None:
        self.close()
        self.root.assert_nothing_left()

    def audit(self) -> list[dict[str, Any]]:
        """What has been noted of the changes that were asked for."""
        path = self.root.runs / "_audit" / "form-submissions.jsonl"
        return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
