"""A server of the official Python SDK, 2.x, over stdio, with what tools.py offers: python2.py [--modern]

Its first request says its era. Nothing in this SDK keeps a server to one of them; with --modern `initialize` is refused here,
as the other SDKs do that can be kept to 2026-07-28.
"""

import sys
import warnings

import anyio
import mcp_types as types
import tools
from mcp import MCPDeprecationWarning, MCPError
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.shared.message import SessionMessage

# Log levels, and questions and subscriptions of the session era: 2.x calls them deprecated.
warnings.simplefilter("ignore", MCPDeprecationWarning)

MODERN = "2026-07-28"
RESOURCE_NOT_FOUND = -32002  # up to 2025-11-25
QUESTIONS = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}

bus, watched = InMemorySubscriptionBus(), set()


class Unanswered(Exception):
    """What ends a tool that lacks an answer: the result that asks for it."""

    def __init__(self, result):
        self.result = result


class Client:
    def __init__(self, context, params):
        self.context, self.session, self.params = context, context.session, params
        self.version = context.protocol_version
        self.modern = self.version >= MODERN

    async def ask(self, key, method, params, state=None):
        request, result = QUESTIONS[method]
        question = request.model_validate({"method": method, **({"params": params} if params else {})})
        if not self.modern:
            answer = await self.session.send_request(question, result)
        elif (answer := (self.params.input_responses or {}).get(key)) is None:
            raise Unanswered(types.InputRequiredResult(input_requests={key: question}, request_state=state))
        return answer.model_dump(mode="json", by_alias=True)

    async def progress(self, step, total, message):
        await self.session.report_progress(step, total, message)

    async def log(self, level, data):
        await self.session.send_log_message(level, data, "notebook", related_request_id=self.context.request_id)

    async def changed(self, uri, fresh):
        if self.modern:
            await bus.publish(ResourceUpdated(uri=uri))
        elif uri in watched:
            await self.session.send_resource_updated(uri)
        if fresh and self.modern:
            await bus.publish(ResourcesListChanged())
        elif fresh:
            await self.session.send_resource_list_changed()


async def call(context, params):
    if params.name not in tools.TOOLS:
        raise MCPError(types.INVALID_PARAMS, f"no tool {params.name}")
    try:
        text, failed = await tools.TOOLS[params.name](Client(context, params), **(params.arguments or {})), False
    except Unanswered as unanswered:
        return unanswered.result
    except Exception as reason:  # noqa: BLE001 — the model is told
        text, failed = str(reason), True
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=failed)


async def read(context, params):
    found = tools.contents(str(params.uri))
    if found is None:
        code = types.INVALID_PARAMS if context.protocol_version >= MODERN else RESOURCE_NOT_FOUND
        raise MCPError(code, "Resource not found")
    return types.ReadResourceResult.model_validate(found)


async def get_prompt(context, params):
    if params.name != tools.PROMPT["name"]:
        raise MCPError(types.INVALID_PARAMS, f"no prompt {params.name}")
    return types.GetPromptResult.model_validate(tools.greet(**params.arguments))


async def subscribe(context, params):
    watched.add(str(params.uri))
    return types.EmptyResult()


async def unsubscribe(context, params):
    watched.discard(str(params.uri))
    return types.EmptyResult()


async def set_level(context, params):
    return types.EmptyResult()


async def list_tools(context, params):
    return types.ListToolsResult.model_validate({"tools": tools.listed()})


async def list_prompts(context, params):
    return types.ListPromptsResult.model_validate({"prompts": [tools.PROMPT]})


async def list_resources(context, params):
    return types.ListResourcesResult.model_validate({"resources": tools.resources()})


server = Server(
    "notebook",
    version="2",
    on_list_tools=list_tools,
    on_call_tool=call,
    on_list_prompts=list_prompts,
    on_get_prompt=get_prompt,
    on_list_resources=list_resources,
    on_read_resource=read,
    on_subscribe_resource=subscribe,
    on_unsubscribe_resource=unsubscribe,
    on_subscriptions_listen=ListenHandler(bus),
    on_set_logging_level=set_level,
)


async def refuse_sessions(reader, writer, passed):
    async with passed:
        async for item in reader:
            message = getattr(item, "message", None)
            if getattr(message, "method", None) == "initialize":
                versions = {"supported": [MODERN], "requested": message.params["protocolVersion"]}
                error = types.ErrorData(code=-32022, message="Unsupported protocol version", data=versions)
                await writer.send(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=message.id, error=error)))
            else:
                await passed.send(item)


async def main():
    options = server.create_initialization_options(NotificationOptions(resources_changed=True))
    async with stdio_server() as (reader, writer), anyio.create_task_group() as tasks:
        if "--modern" in sys.argv:
            passed, left = anyio.create_memory_object_stream(0)
            tasks.start_soon(refuse_sessions, reader, writer, passed)
            reader = left
        await server.run(reader, writer, options)


anyio.run(main)
