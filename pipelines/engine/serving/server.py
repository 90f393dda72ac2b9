"""`headwise serve`: a run on Ray Serve."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ....base.errors import InputError, reason
from ....base.extras import require
from ..cluster import own_cluster
from ..command_line.terminal import say
from ..runs.run import Run
from .options import LOOPBACK, ServeOptions, check

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.requests import Request
    from starlette.responses import Response

    from .service import Reply, Upload

NAME = "headwise"


def serve(options: ServeOptions, stop: threading.Event | None = None) -> None:
    """Serve a run until the process is told to stop, or `stop` is set.

    Raises `InputError` where the run cannot be opened, the port is taken, or Ray Serve is missing.
    """
    check(options)
    require("ray", ("ray", "starlette", "python_multipart"), "serve")
    run = Run(options.run, options.accelerator)
    summary = f"{run.task.name} of {options.run}"
    _ = run.loaded  # problems of the run are reported here, in one line
    del run
    _check_port(options)
    with own_cluster("serve"):
        from ray import serve as ray_serve
        from ray.serve.config import HTTPOptions

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            ray_serve.start(http_options=HTTPOptions(host=options.host, port=options.port))
            ray_serve.run(_application(options), name=NAME, route_prefix="/")
            say(f"{summary}: http://{options.host}:{options.port}; Ctrl-C stops it")
            if options.host not in LOOPBACK:
                say("everyone who reaches this address may use it; there is no password")
            _wait(stop or threading.Event())
        except RuntimeError as error:  # Ray Serve's own for a deployment that does not start
            raise InputError(f"serve: cannot be started ({reason(error)})") from None
        finally:
            ray_serve.delete(NAME)  # answers what is under way


def _wait(stop: threading.Event) -> None:
    """Wait for `stop`, Ctrl-C or SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
    stop.wait()


def _check_port(options: ServeOptions) -> None:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((options.host, options.port))
    except OSError as error:
        where = f"--host {options.host} --port {options.port}"
        raise InputError(f"{where}: cannot be listened on ({reason(error)})") from None


def _application(options: ServeOptions) -> Application:
    """The deployment. Its replicas load the run themselves, in a folder of their own."""
    from ray import serve as ray_serve

    @ray_serve.deployment(
        num_replicas=options.replicas,
        max_ongoing_requests=options.max_requests,
        max_queued_requests=options.max_requests,
        ray_actor_options={"num_gpus": 1 if options.accelerator == "cuda" else 0},
    )
    class Replica:
        """One copy of the model."""

        def __init__(self, run: str) -> None:
            from .service import Service

            self.service = Service(Run(run, options.accelerator), options.max_items)
            self.most_bytes = options.max_megabytes << 20

        @ray_serve.batch(
            max_batch_size=options.batch_requests, batch_wait_timeout_s=options.batch_wait
        )
        async def predict(self, uploads: list[Upload]) -> list[Reply]:
            # In a thread, so that /health is answered meanwhile.
            return await asyncio.to_thread(self.service.answer, uploads)

        async def __call__(self, request: Request) -> Response:
            from . import http

            path, method = request.url.path.rstrip("/"), request.method
            if not http.is_addressed_here(request, options.host):
                return http.refusal(421, "this service answers under its own address only")
            if path in ("", "/health") and method in ("GET", "HEAD"):
                return http.JSONResponse({"status": "ok", "serves": self.service.summary})
            if path not in ("", "/predict"):
                return http.refusal(404, "there are POST /predict and GET /health")
            if method != "POST":
                return http.refusal(405, "send a file or rows by POST")
            try:
                upload = await http.read_upload(request, self.most_bytes, options.max_items)
            except http.TooLarge as error:
                return http.refusal(413, error)
            except InputError as error:
                return http.refusal(400, error)
            return http.response_of(await self.predict(upload))

    return Replica.bind(str(Path(options.run).resolve()))
