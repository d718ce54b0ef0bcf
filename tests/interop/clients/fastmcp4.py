"""FastMCP's client: fastmcp4.py URL NAME auto|legacy|shared|legacy-shared

`shared` negotiates as `auto` does, with a bridge that serves 2026-07-28; `…shared`: others have the same server.
"""

import asyncio
import contextlib
import sys
import warnings

import claims
import mcp_types as types
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from mcp import MCPDeprecationWarning
from mcp.client.subscriptions import listen
from mcp.shared._httpx_utils import create_mcp_http_client

warnings.simplefilter("ignore", MCPDeprecationWarning)


class FastMcp4(claims.Driver):
    @contextlib.asynccontextmanager
    async def connected(self, url):
        async with Client(
            StreamableHttpTransport(url, httpx_client_factory=self.http),
            mode=self.negotiation,
            roots=[f"file:///srv/{self.name}"],
            sampling_handler=lambda messages, params, context: f"{self.name} read it",
            elicitation_handler=self.elicited,
            log_handler=self.logged,
            message_handler=self.notified,
            client_info=types.Implementation(name=self.name, version="1"),
        ) as self.mcp:
            yield

    def http(self, follow_redirects, **options):
        http = create_mcp_http_client(**options)
        http.event_hooks["response"].append(self.answered)
        return http

    async def elicited(self, message, response_type, params, context):
        return response_type(confirm=True)

    async def logged(self, params):
        self.logs.append(f"{params.level} {params.data}")

    async def notified(self, message):
        match message:
            case types.ResourceUpdatedNotification(params=params):
                self.updated.append(str(params.uri))
            case types.ResourceListChangedNotification():
                self.list_changed += 1

    def server(self):
        return self.mcp.server_info.name

    def capabilities(self):
        return self.mcp.server_capabilities

    def version(self):
        return self.mcp.protocol_version

    async def tools(self):
        return [tool.name for tool in await self.mcp.list_tools()]

    async def text(self, tool, arguments=None, progress=None):
        result = await self.mcp.call_tool(tool, arguments or {}, progress_handler=progress)
        return result.content[0].text

    async def call(self, tool, arguments):
        return await self.mcp.call_tool(tool, arguments, raise_on_error=False)

    async def prompts(self):
        return [prompt.name for prompt in await self.mcp.list_prompts()]

    async def prompt(self, name, arguments):
        return (await self.mcp.get_prompt(name, arguments)).messages[0].content.text

    async def resources(self):
        return [str(resource.uri) for resource in await self.mcp.list_resources()]

    async def read(self, uri):
        return (await self.mcp.read_resource(uri))[0].text

    async def ping(self):
        await self.mcp.ping()

    async def set_level(self, level):
        await self.mcp.set_logging_level(level)

    async def subscribe(self, uri):
        await self.mcp.session.subscribe_resource(uri)  # FastMCP wraps everything else

    @contextlib.asynccontextmanager
    async def listening(self, uri):
        # What comes reaches `notified` too.
        async with listen(self.mcp.session, resources_list_changed=True, resource_subscriptions=[uri]) as subscription:
            honored = subscription.honored.model_dump(exclude_none=True)
            claims.same(honored, {"resources_list_changed": True, "resource_subscriptions": [uri]}, "acknowledged")
            yield


url, name, mode = sys.argv[1:]
driver = FastMcp4(name, mode)
asyncio.run(claims.check(url, driver, driver.connected(url)))
