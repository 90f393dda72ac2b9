"""Requests as uploads, and replies as JSON. Bodies are read within a limit, and nothing is trusted.

POST /predict takes
    multipart/form-data     files, each with a name
    application/json        rows of a table: [{"date": ..., "a": 1.5}, ...], or {"rows": [...]}
    anything else           one file; its name by ?name=, X-File-Name or Content-Disposition
GET /health answers without using the model, and GET / says what is served.
"""

from __future__ import annotations

import json
from email.message import Message
from urllib.parse import unquote

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message as AsgiMessage

from ....base.errors import InputError, one_line, reason
from .options import LOOPBACK
from .service import Reply, Upload


class TooLarge(InputError):
    """A body above the limit."""


async def read_body(request: Request, most: int) -> bytes:
    """The body of at most `most` bytes; no more than that is taken into memory. Raises
    `TooLarge`.
    """
    stated = request.headers.get("content-length", "")
    body = bytearray()
    if not (stated.isdecimal() and len(stated) < 20 and int(stated) > most):
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                break
        else:
            return bytes(body)
    raise TooLarge(f"the request is larger than {most >> 20} megabytes; send fewer files at once")


async def read_upload(request: Request, most_bytes: int, most_files: int) -> Upload:
    """What a request holds. Raises `InputError`, and `TooLarge` above the limits."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await read_body(request, most_bytes)
    if not body:
        raise InputError("the request is empty; send a file or rows")
    if kind == "multipart/form-data":
        return Upload(files=await _read_form(request, body, most_files))
    if kind == "application/json":
        return Upload(rows=_read_rows(body))
    if not (name := _file_name(request)):
        raise InputError("the file has no name; add ?name=FILE or the header X-File-Name")
    return Upload(files=[(name, body)])


async def _read_form(request: Request, body: bytes, most: int) -> list[tuple[str, bytes]]:
    async def receive() -> AsgiMessage:
        return {"type": "http.request", "body": body, "more_body": False}

    files = []
    try:
        # One more than the limit, so that too many are told from a broken form.
        form = Request(request.scope, receive).form(max_files=most + 1, max_fields=100)
        async with form as values:
            for _, part in values.multi_items():
                if isinstance(part, UploadFile):
                    files.append((part.filename or "", await part.read()))
    except (MultiPartException, HTTPException) as error:
        if "Too many files" in str(error):
            raise TooLarge(f"more than {most} files; send fewer at once") from None
        raise InputError(f"the form cannot be read ({reason(error)})") from None
    if len(files) > most:
        raise TooLarge(f"{len(files)} files; {most} at most")
    if not files:
        raise InputError("the form holds no file; fields need a file name")
    return files


def _read_rows(body: bytes) -> list[object]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is no JSON ({reason(error)})") from None
    rows = values.get("rows") if isinstance(values, dict) else values
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError('rows should be a list of objects, such as [{"a": 1}, {"a": 2}]')
    return rows


def _file_name(request: Request) -> str:
    if name := request.query_params.get("name") or request.headers.get("x-file-name"):
        return unquote(name)
    disposition = Message()
    disposition["Content-Disposition"] = request.headers.get("content-disposition", "")
    return disposition.get_filename() or ""


def is_addressed_here(request: Request, host: str) -> bool:
    """Whether a request means this service. A page in a browser can send requests to this machine
    under another name, so that only the machine's own is answered.

    host: the address that the service listens on; where others may reach it, any name is answered.
    """
    if host not in LOOPBACK:
        return True
    name = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
    return name.strip("[]") in LOOPBACK


def response_of(reply: Reply) -> Response:
    """A reply as JSON: {"rows": [...], "account": [...]}, and "error" where something failed."""
    head = {"account": list(reply.account)}
    if reply.error is not None:
        head = {"error": one_line(reply.error), **head}
    text = json.dumps(head)[:-1] + f', "rows": {reply.rows}}}'
    return Response(text, reply.status, media_type="application/json")


def refusal(status: int, error: object) -> Response:
    """An error on one line."""
    return JSONResponse({"error": one_line(error)}, status)
