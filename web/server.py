#!/usr/bin/env -S python3 -S -E
"""server.py - serve runs, tasks, plans and buses over HTTP; the endpoints are in lib/api/."""

import _signal

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # before the slower imports
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)  # until cli.run can tell it in a line

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

import select
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from lib import packages, redact
from lib.api import login, ports
from lib.api.dispatch import Application
from lib.api.routes import ROUTES
from lib.api.server_options import DEFAULT_HOST, DEFAULT_PORT, Options
from lib.api.service import Service
from lib.api.wsgi import request_of
from lib.api.wsgi_server import make_server
from lib.cli import ANY_RUNS_DIR, ROOT, Command, Option, Values, run, suggestion
from lib.errors import EXIT_OK, EXIT_SIGNAL, EXIT_USAGE, UsageError, UserError
from lib.wakeup import SIGHUP, SIGINT, SIGTERM, Wakeup

COMMAND = Command(
    "server.py",
    "serve runs, tasks, plans and messages over HTTP, and the page that shows them",
    about=f"""\
Listens at {DEFAULT_HOST}:{DEFAULT_PORT} unless told otherwise, and at an address that other
machines can reach only with an API key.  Tasks that are started here are on their
own: whatever becomes of the server, no agent notices.  Every option can stand in
config.yaml, too; docs/server.md describes the endpoints and streams.""",
    options=(
        Option("--host", metavar="HOST", help=f"listen at this address ({DEFAULT_HOST})"),
        Option(
            "--port",
            metavar="N",
            kind="int",
            help=f"listen at this port and no other ({DEFAULT_PORT}, or the next that is free)",
        ),
        ROOT,
        ANY_RUNS_DIR,
        Option("--config", metavar="FILE", help="another config.yaml"),
        Option("--api-key-file", metavar="FILE", help="ask everybody for the key in this file"),
        Option(
            "--api-key",
            metavar="KEY",
            is_optional=True,
            help="refused: everybody on this machine can read a command line",
        ),
        Option(
            "--allow-host",
            metavar="NAME",
            many=True,
            help="answer under this host name too, such as that of a proxy; may be repeated",
        ),
        Option("--disable-task-start", help="show and stop what runs, and start nothing"),
        Option(
            "--max-root-tasks",
            metavar="N",
            kind="int",
            help="run so many started tasks at once, the others wait; 0 = all (0)",
        ),
        Option(
            "--wsgi", metavar="NAME", help="serve by this server of Bottle's list, if installed"
        ),
    ),
    examples=(
        "web/server.py",
        "web/server.py --root ~/work --port 8080 --disable-task-start",
        "web/server.py --host 0.0.0.0 --api-key-file ~/.config/conductor.key",
    ),
    exit_codes="0 ended by SIGTERM; 1 failed, such as a port that is taken; 2 wrong usage or "
    "config; 129, 130 ended by SIGHUP, Ctrl-C",
)
# Each stream holds a thread, and theirs are few.
ADAPTER_OPTIONS = {"waitress": {"threads": 64}, "cheroot": {"numthreads": 64}}
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Server(Protocol):
    """What accepts connections and calls the application; it listens when it is made."""

    port: int

    def serve_forever(self) -> None: ...
    def close(self) -> object: ...


def main(arguments: Sequence[str] | None = None) -> int:
    return run(COMMAND, serve, arguments)


def serve(values: Values) -> int:
    if values.text("api_key") is not None:
        raise UsageError(
            "--api-key: everybody on this machine can read a command line; "
            "use --api-key-file FILE or the variable CONDUCTOR_API_KEY"
        )
    options = Options(values)
    os.environ.pop("CONDUCTOR_API_KEY", None)  # no process that is started here needs it
    bottle = load_bottle()
    service = Service(options.runs_dir, options.config, options.settings, options.bus_path)
    service.access = options.access
    application = Application(
        service,
        ROUTES,
        check=service.access.check,
        cors_headers=service.access.cors_headers,
        count=service.counters.count_request,
        watch=service.counters.watch_stream,
        debug=values.flag("debug"),
    )
    make = _maker(values.text("wsgi"), options.host, bottle, wsgi_app(bottle, application))
    server = ports.listen(make, options.port, is_fixed=options.port_is_fixed)
    service.counters.dropped = lambda: getattr(server, "dropped", 0)  # an adapter does not tell
    service.access.port = server.port
    service.url = login.base_url(service.access)
    return _run(service, server, options.port)


def load_bottle() -> Any:
    bottle = packages.load("bottle")
    if bottle is None:
        raise UserError("the server needs the package bottle; install it with: make setup")
    return bottle


def wsgi_app(bottle: Any, application: Application) -> Wsgi:
    """The application for any WSGI server."""
    app = bottle.Bottle()
    app.config["catchall"] = False  # faults are told by ours

    def answer(path: str) -> Any:  # as Bottle reads it: without what is not UTF-8
        environ = bottle.request.environ
        given = application.answer(request_of(environ, environ["bottle.raw_path"]))
        return bottle.HTTPResponse(given.body, given.status, given.headers)

    app.route(r"<path:re:[\s\S]*>", "ANY", answer)
    served: Wsgi = app
    return served


def _maker(name: str | None, host: str, bottle: Any, app: Wsgi) -> Callable[[int], Server]:
    """What makes the server for a port."""
    if name is None:
        return lambda port: make_server(host, port, app)
    if name not in bottle.server_names or name in ("cgi", "auto"):
        near = suggestion(name, list(bottle.server_names))
        raise UsageError(f"--wsgi: Bottle knows no server {name!r}{near}")
    return lambda port: Adapter(bottle, name, app, host, port)


class Adapter:
    """Another WSGI server, by Bottle's adapter for it; it ends with the process."""

    def __init__(self, bottle: Any, name: str, app: Wsgi, host: str, port: int) -> None:
        self.host = host
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:  # it would say less clearly
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            self.port: int = probe.getsockname()[1]
        self._bottle, self._name, self._app = bottle, name, app

    def serve_forever(self) -> None:
        more = ADAPTER_OPTIONS.get(self._name, {})
        try:
            self._bottle.run(
                self._app, server=self._name, host=self.host, port=self.port, quiet=True, **more
            )
        except ImportError as error:
            text = f"--wsgi {self._name}: {error}; install it, or leave out --wsgi"
            raise UserError(text, EXIT_USAGE) from None

    def close(self) -> None:
        pass


def _run(service: Service, server: Server, wanted_port: int) -> int:
    """Serve until a signal comes, or the server fails; how that ends the process."""
    signals = Wakeup((SIGINT, SIGTERM, SIGHUP))
    over, is_over = os.pipe()
    faults: list[Exception] = []

    def work() -> None:
        try:
            server.serve_forever()
        except Exception as error:  # noqa: BLE001 - told by the main thread, which is woken here
            faults.append(error)
        finally:
            os.close(is_over)

    service.hub.start()
    service.queue.start()
    threading.Thread(target=work, name="accept", daemon=True).start()
    if _is_ready(server, signals.fd, over):
        _announce(service, wanted_port)
        select.select([signals.fd, over], [], [])
    numbers = signals.take()
    signals.close()  # a second signal ends it at once
    service.queue.close()
    service.hub.close()
    server.close()
    if numbers:
        return _ended_by(numbers[0])
    if faults and isinstance(faults[0], UserError):
        raise faults[0]
    raise UserError(f"the server has stopped: {redact.one_line(repr(faults)) if faults else ''}")


def _ended_by(number: int) -> int:
    if number == SIGINT:
        raise KeyboardInterrupt
    return EXIT_OK if number == SIGTERM else EXIT_SIGNAL + SIGHUP


def _is_ready(server: Server, *ends: int) -> bool:
    """True once somebody can connect; False when one of these descriptors tells that it is over."""
    if not isinstance(server, Adapter):
        return True
    while not select.select(ends, [], [], 0.02)[0]:
        try:
            socket.create_connection((server.host, server.port), 1.0).close()
        except OSError:
            continue
        return True
    return False


def _announce(service: Service, wanted_port: int) -> None:
    """Where the page is, in one line."""
    link = "; the link works once" if service.access.key else ""
    is_other = wanted_port not in (0, service.access.port)
    taken = f"; port {wanted_port} is taken" if is_other else ""
    sys.stdout.write(
        f"serving {redact.one_line(service.runs_dir)} at {login.page_url(service.access)}"
        f"{link}{taken}; Ctrl-C ends the server, and no agent\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
