// A server of the official TypeScript SDK, 1.x, over stdio, with what tools.mjs offers: it speaks up to 2025-11-25.
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import * as types from '@modelcontextprotocol/sdk/types.js';
import { PROMPT, TOOLS, contents, greet, resources, schema } from './tools.mjs';

const RESOURCE_NOT_FOUND = -32002; // the SDK has no name for it
const LEVELS = types.LoggingLevelSchema.options;
const ANSWERS = {
  'elicitation/create': types.ElicitResultSchema,
  'sampling/createMessage': types.CreateMessageResultSchema,
  'roots/list': types.ListRootsResultSchema,
};

const server = new Server(
  { name: 'notebook', version: '1' },
  { capabilities: { tools: {}, prompts: {}, resources: { subscribe: true, listChanged: true }, logging: {} } },
);
const watched = new Set();
let least = 'info';

const client = (extra) => ({
  ask: (_key, question) => extra.sendRequest(question, ANSWERS[question.method]),
  async progress(progress, total, message) {
    const progressToken = extra._meta?.progressToken;
    if (progressToken === undefined) return;
    await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress, total, message } });
  },
  async log(level, data) {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(least)) return;
    await extra.sendNotification({ method: 'notifications/message', params: { level, logger: 'notebook', data } });
  },
  async changed(uri, fresh) {
    if (watched.has(uri)) await server.sendResourceUpdated({ uri });
    if (fresh) await server.sendResourceListChanged();
  },
  signal: extra.signal,
});

server.setRequestHandler(types.ListToolsRequestSchema, () => ({
  tools: Object.entries(TOOLS).map(([name, [known]]) => ({ name, inputSchema: schema(known) })),
}));
server.setRequestHandler(types.CallToolRequestSchema, async ({ params: { name, arguments: args = {} } }, extra) => {
  if (!Object.hasOwn(TOOLS, name)) throw new types.McpError(types.ErrorCode.InvalidParams, `no tool ${name}`);
  try {
    return await TOOLS[name][1](args, client(extra));
  } catch (error) {
    return { isError: true, content: [{ type: 'text', text: `${error.message ?? error}` }] };
  }
});
server.setRequestHandler(types.SetLevelRequestSchema, ({ params }) => {
  least = params.level;
  return {};
});
server.setRequestHandler(types.ListPromptsRequestSchema, () => ({ prompts: [PROMPT] }));
server.setRequestHandler(types.GetPromptRequestSchema, ({ params: { name, arguments: args } }) => {
  if (name !== PROMPT.name) throw new types.McpError(types.ErrorCode.InvalidParams, `no prompt ${name}`);
  return greet(args);
});
server.setRequestHandler(types.ListResourcesRequestSchema, () => ({ resources: resources() }));
server.setRequestHandler(types.ReadResourceRequestSchema, ({ params: { uri } }) => {
  const found = contents(uri);
  if (!found) throw new types.McpError(RESOURCE_NOT_FOUND, 'Resource not found', { uri });
  return found;
});
server.setRequestHandler(types.SubscribeRequestSchema, ({ params: { uri } }) => {
  watched.add(uri);
  return {};
});
server.setRequestHandler(types.UnsubscribeRequestSchema, ({ params: { uri } }) => {
  watched.delete(uri);
  return {};
});

process.stdin.once('end', () => process.exit(0));
await server.connect(new StdioServerTransport());
