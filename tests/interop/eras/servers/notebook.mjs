// A server of the official TypeScript SDK, 2.x, with what tools.mjs offers:
//
//   node notebook.mjs --modern | --dual | --http     only 2026-07-28, or whatever the client begins with, over stdio;
//                                                    or 2026-07-28 over the SDK's own HTTP, as a control
import { createServer } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import {
  McpServer,
  ProtocolError,
  ProtocolErrorCode,
  createMcpHandler,
  fromJsonSchema,
  inputRequired,
} from '@modelcontextprotocol/server';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { PROMPT, TOOLS, contents, greet, resources, schema } from './tools.mjs';

const REQUESTS = {
  'elicitation/create': inputRequired.elicit,
  'sampling/createMessage': inputRequired.createMessage,
  'roots/list': inputRequired.listRoots,
};

/** What ends a handler that lacks an answer: the result that asks for it. */
class Unanswered extends Error {
  constructor(result) {
    super('unanswered');
    this.result = result;
  }
}

const client = ({ mcpReq }, changed) => ({
  ask(key, { method, params }, requestState) {
    const answer = mcpReq.inputResponses?.[key];
    if (answer) return answer;
    throw new Unanswered(inputRequired({ inputRequests: { [key]: REQUESTS[method](params) }, requestState }));
  },
  async progress(progress, total, message) {
    const progressToken = mcpReq._meta?.progressToken;
    if (progressToken === undefined) return;
    await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total, message } });
  },
  log: (level, data) => mcpReq.log(level, data, 'notebook'),
  changed,
  signal: mcpReq.signal,
});

function notebook(told) {
  const server = new McpServer(
    { name: 'notebook', version: '2' },
    { capabilities: { resources: { subscribe: true, listChanged: true }, logging: {} } },
  );
  const changed =
    told ??
    (async (uri, fresh) => {
      await server.server.sendResourceUpdated({ uri });
      if (fresh) await server.server.sendResourceListChanged();
    });
  for (const [name, [known, call]] of Object.entries(TOOLS)) {
    server.registerTool(name, { inputSchema: fromJsonSchema(schema(known)) }, async (args, context) => {
      try {
        return await call(args, client(context, changed));
      } catch (error) {
        if (error instanceof Unanswered) return error.result;
        throw error;
      }
    });
  }
  const argsSchema = fromJsonSchema({ type: 'object', properties: { name: { type: 'string' } }, required: ['name'] });
  server.registerPrompt(PROMPT.name, { description: PROMPT.description, argsSchema }, greet);
  server.server.setRequestHandler('resources/list', () => ({ resources: resources() }));
  server.server.setRequestHandler('resources/read', ({ params: { uri } }) => {
    const found = contents(uri);
    if (!found) throw new ProtocolError(ProtocolErrorCode.InvalidParams, 'Resource not found', { uri });
    return found;
  });
  return server;
}

const mode = process.argv[2];
if (mode === '--http') {
  const handler = createMcpHandler(
    () =>
      notebook((uri, fresh) => {
        handler.notify.resourceUpdated(uri);
        if (fresh) handler.notify.resourcesChanged();
      }),
    { legacy: 'reject' },
  );
  const listener = createServer(getRequestListener(request => handler.fetch(request), { overrideGlobalObjects: false }));
  listener.listen(0, '127.0.0.1', () => console.error(`listening on http://127.0.0.1:${listener.address().port}/mcp`));
} else {
  process.stdin.once('end', () => process.exit(0));
  serveStdio(() => notebook(), { legacy: mode === '--modern' ? 'reject' : 'serve' });
}
