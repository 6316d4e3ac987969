"""A small page of which all is known, served over real HTTP."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USERS = {"ann": "paß:wort", "bob": "b"}


@dataclass
class Open:
    """A page that is up: where it is, and its folder."""

    address: str
    folder: Path

    def client(self, **options: Any) -> Any:
        import httpx

        return httpx.Client(base_url=self.address, timeout=30.0, **options)

    def run(self, name: str, data: list[Any], session: str = "session", client: Any = None) -> dict[str, Any]:
        """One run, as a browser does it; gives the last message, or {"refused": status} if it was not taken."""
        client = client or self.client()
        config = client.get("/config").json()
        index = next(entry["id"] for entry in config["dependencies"] if entry["api_name"] == name)
        body = {"fn_index": index, "session_hash": session, "data": data}
        joined = client.post("/gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            return {"refused": joined.status_code, "text": joined.text}
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    return message
        raise AssertionError("the stream ended without a result")


def small_page(settings: Any = None) -> Any:
    """Three runs: `read` gives a file's text, `slow` takes its time, `fail` and `tell` go wrong."""
    import gradio as gr

    def read(path: str | None, name: str) -> str:
        return f"{name}: {Path(path).read_text() if path else 'no file'}"

    def slow(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def fail() -> str:
        raise ValueError("the secret is in /etc/hidden")

    def tell() -> str:
        raise gr.Error("too long", print_exception=False)

    with gr.Blocks() as blocks:
        file, name, number, out = gr.File(), gr.Textbox(), gr.Number(), gr.Textbox()
        gr.Button().click(read, [file, name], out, api_name="read", concurrency_limit=4)
        gr.Button().click(slow, number, number, api_name="slow")
        gr.Button().click(fail, None, out, api_name="fail")
        gr.Button().click(tell, None, out, api_name="tell")
    return blocks.queue(max_size=20)


def uploaded(client: Any, *contents: bytes, name: str = "a.txt") -> list[dict[str, Any]]:
    """Upload files; what a run names them by."""
    response = client.post("/gradio_api/upload", files=[("files", (name, content)) for content in contents])
    assert response.status_code == 200, response.text
    return [file(path) for path in response.json()]


def file(path: object) -> dict[str, Any]:
    """What a run names a file by."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}
