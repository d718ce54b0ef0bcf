"""A server of the official Python SDK, 2.x, over stdio, with the tools of ../child.py. Its first request says its era."""

import json
import os

import anyio
import mcp_types as types
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

server = MCPServer("child", version="2")
kept, cancelled = [], []


@server.tool()
async def work(word: str, context: Context, steps: int = 1, pause: float = 0.01) -> str:
    try:
        for step in range(1, steps + 1):
            await anyio.sleep(pause)
            await context.report_progress(step, steps, word)
    except anyio.get_cancelled_exc_class():
        cancelled.append(word)
        raise
    return word


@server.tool()
async def question(word: str, context: Context) -> types.InputRequiredResult | str:
    answer = (context.input_responses or {}).get("q")
    if answer is not None:
        return f"{word}: {answer.content['word']}"
    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    params = types.ElicitRequestFormParams(message=word, requested_schema=schema)
    return types.InputRequiredResult(input_requests={"q": types.ElicitRequest(params=params)}, request_state=word)


@server.tool()
async def update(word: str, context: Context) -> str:
    await context.notify_resource_updated(word)
    return word


@server.tool()
def keep(word: str) -> str:
    kept.append(word)
    return " ".join(kept)


@server.tool()
def tell() -> str:
    return json.dumps({"pid": os.getpid(), "cancelled": cancelled})


server.run("stdio")
