"""A server of the official Python SDK, 1.x, over stdio, with what tools.py offers: it speaks up to 2025-11-25."""

import anyio
import tools
from mcp import types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import McpError

RESOURCE_NOT_FOUND = -32002  # the SDK has no name for it
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
QUESTIONS = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}


class Notebook(Server):
    def get_capabilities(self, notification_options, experimental_capabilities):
        """The SDK says that no server lets its clients subscribe."""
        found = super().get_capabilities(notification_options, experimental_capabilities)
        found.resources.subscribe = True
        return found


server = Notebook("notebook", version="1")
watched, least = set(), ["info"]


def refusal(code, message):
    return McpError(types.ErrorData(code=code, message=message))


class Client:
    def __init__(self, context):
        self.session, self.id, self.meta = context.session, context.request_id, context.meta
        self.version = self.session.client_params.protocolVersion

    async def ask(self, key, method, params, state=None):
        request, result = QUESTIONS[method]
        question = types.ServerRequest(request.model_validate({"method": method, "params": params}))
        answer = await self.session.send_request(question, result)
        return answer.model_dump(mode="json", by_alias=True)

    async def progress(self, step, total, message):
        token = self.meta and self.meta.progressToken
        if token is not None:
            await self.session.send_progress_notification(token, step, total, message, str(self.id))

    async def log(self, level, data):
        if LEVELS.index(level) >= LEVELS.index(least[0]):
            await self.session.send_log_message(level, data, "notebook", self.id)

    async def changed(self, uri, fresh):
        if uri in watched:
            await self.session.send_resource_updated(uri)
        if fresh:
            await self.session.send_resource_list_changed()


async def call(request):
    name, arguments = request.params.name, request.params.arguments or {}
    if name not in tools.TOOLS:
        raise refusal(types.INVALID_PARAMS, f"no tool {name}")
    try:
        text, failed = await tools.TOOLS[name](Client(server.request_context), **arguments), False
    except Exception as reason:  # noqa: BLE001 — the model is told
        text, failed = str(reason), True
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], isError=failed)


async def set_level(request):
    least[0] = request.params.level
    return types.EmptyResult()


async def get_prompt(request):
    if request.params.name != tools.PROMPT["name"]:
        raise refusal(types.INVALID_PARAMS, f"no prompt {request.params.name}")
    return types.GetPromptResult.model_validate(tools.greet(**request.params.arguments))


async def read(request):
    found = tools.contents(str(request.params.uri))
    if found is None:
        raise refusal(RESOURCE_NOT_FOUND, "Resource not found")
    return types.ReadResourceResult.model_validate(found)


async def subscribe(request):
    watched.add(str(request.params.uri))
    return types.EmptyResult()


async def unsubscribe(request):
    watched.discard(str(request.params.uri))
    return types.EmptyResult()


async def list_tools(request):
    return types.ListToolsResult.model_validate({"tools": tools.listed()})


async def list_prompts(request):
    return types.ListPromptsResult.model_validate({"prompts": [tools.PROMPT]})


async def list_resources(request):
    return types.ListResourcesResult.model_validate({"resources": tools.resources()})


# The table itself, because the decorators of the SDK would check arguments and wrap errors.
HANDLERS = {
    types.ListToolsRequest: list_tools,
    types.CallToolRequest: call,
    types.SetLevelRequest: set_level,
    types.ListPromptsRequest: list_prompts,
    types.GetPromptRequest: get_prompt,
    types.ListResourcesRequest: list_resources,
    types.ReadResourceRequest: read,
    types.SubscribeRequest: subscribe,
    types.UnsubscribeRequest: unsubscribe,
}


def wrapped(handler):
    async def answer(request):
        return types.ServerResult(await handler(request))

    return answer


async def main():
    server.request_handlers.update({request: wrapped(handler) for request, handler in HANDLERS.items()})
    options = server.create_initialization_options(NotificationOptions(resources_changed=True))
    async with stdio_server() as (reader, writer):
        await server.run(reader, writer, options)


anyio.run(main)
