// The features as a server of 2026-07-28: the 2.x SDK, over its stdio entry or its own HTTP (the control).
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { getRequestListener } from '@hono/node-server';
import {
  McpServer,
  ResourceTemplate,
  createMcpHandler,
  createRequestStateCodec,
  fromJsonSchema,
  hostHeaderValidationResponse,
  inputRequired,
  localhostAllowedHostnames,
  originValidationResponse,
  localhostAllowedOrigins,
} from '@modelcontextprotocol/server';
import { serveStdio as serve } from '@modelcontextprotocol/server/stdio';
import { NO_ARGUMENTS, PROMPTS, RESOURCES, TEMPLATE, TOOLS, complete, contents } from './features.mjs';

const state = createRequestStateCodec({ key: randomBytes(32) });

/** What ends a handler that lacks answers: the result that asks for them. */
class Unanswered extends Error {
  constructor(result) {
    super('unanswered');
    this.result = result;
  }
}

// What a question needs of the client, and whether it has been answered.
const QUESTIONS = {
  'elicitation/create': { capability: 'elicitation', answered: answer => typeof answer?.action === 'string' },
  'sampling/createMessage': { capability: 'sampling', answered: answer => answer?.content !== undefined },
  'roots/list': { capability: 'roots', answered: answer => Array.isArray(answer?.roots) },
};

/** The `client` of a handler: see `features.mjs`. `changed` says what of the lists has changed to whoever listens. */
function client({ mcpReq }, changed) {
  const given = { ...mcpReq.requestState(), ...mcpReq.inputResponses };
  const declared = mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'];

  async function ask(questions) {
    const open = Object.entries(questions).filter(([key, { method }]) => !QUESTIONS[method].answered(given[key]));
    if (open.length === 0) return Object.fromEntries(Object.keys(questions).map(key => [key, given[key]]));
    throw new Unanswered(
      inputRequired({ inputRequests: Object.fromEntries(open), requestState: await state.mint(given) }),
    );
  }

  return {
    ask,
    askWhatItCan: questions =>
      ask(
        Object.fromEntries(
          Object.entries(questions).filter(([, { method }]) => !declared || declared[QUESTIONS[method].capability]),
        ),
      ),
    log: (level, data) => mcpReq.log(level, data, 'everything'),
    async progress(progress, total) {
      const progressToken = mcpReq._meta?.progressToken;
      if (progressToken === undefined) return;
      await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total } });
    },
    changed,
  };
}

async function answered(handler) {
  try {
    return await handler();
  } catch (error) {
    if (error instanceof Unanswered) return error.result;
    throw error;
  }
}

function modern(changed) {
  const server = new McpServer(
    { name: 'everything', version: '2.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        prompts: { listChanged: true },
        logging: {},
        completions: {},
      },
      requestState: { verify: state.verify },
    },
  );
  const told = changed ?? (list => (list === 'tools' ? server.sendToolListChanged() : server.sendPromptListChanged()));

  for (const [name, { description, inputSchema = NO_ARGUMENTS, call }] of Object.entries(TOOLS)) {
    server.registerTool(name, { description, inputSchema: fromJsonSchema(inputSchema) }, (args, context) =>
      answered(() => call(args, client(context, told))),
    );
  }
  for (const [uri, { name, description, mimeType }] of Object.entries(RESOURCES)) {
    server.registerResource(name, uri, { description, mimeType }, () => ({ contents: [contents(uri)] }));
  }
  server.registerResource(
    TEMPLATE.name,
    new ResourceTemplate(TEMPLATE.uriTemplate, { list: undefined }),
    { description: TEMPLATE.description, mimeType: TEMPLATE.mimeType },
    uri => ({ contents: [contents(uri.href)] }),
  );
  for (const [name, { description, arguments: args, get }] of Object.entries(PROMPTS)) {
    const render = (given, context) =>
      answered(async () => ({ description, messages: await get(given, client(context, told)) }));
    if (!args) {
      server.registerPrompt(name, { description }, context => render({}, context));
      continue;
    }
    const properties = Object.fromEntries(args.map(({ name, description }) => [name, { type: 'string', description }]));
    const argsSchema = fromJsonSchema({ type: 'object', properties, required: args.map(({ name }) => name) });
    server.registerPrompt(name, { description, argsSchema }, render);
  }
  server.server.setRequestHandler('completion/complete', ({ params: { argument } }) => complete(argument));
  return server;
}

/** `legacy`: what to do with a client that begins with `initialize`, 'serve' or 'reject'. */
export function serveStdio(legacy) {
  serve(() => modern(), { legacy, onerror: error => console.error(error.message) });
}

export async function serveHttp(port) {
  const handler = createMcpHandler(
    () => modern(list => (list === 'tools' ? handler.notify.toolsChanged() : handler.notify.promptsChanged())),
    { legacy: 'reject' },
  );
  const guarded = request =>
    hostHeaderValidationResponse(request, localhostAllowedHostnames()) ??
    originValidationResponse(request, localhostAllowedOrigins()) ??
    handler.fetch(request);
  const listener = createServer(getRequestListener(guarded, { overrideGlobalObjects: false }));
  await new Promise((listening, failed) => listener.once('error', failed).listen(port, '127.0.0.1', listening));
  console.error(`everything: listening on http://127.0.0.1:${listener.address().port}/mcp`);
}
