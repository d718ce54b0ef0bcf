// The features as a server up to 2025-11-25: one `Server` of the 1.x SDK for each session, whatever carries it. It is the
// low-level one because `McpServer` builds schemas from zod and would lose the JSON Schema keywords that the suite looks for.
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import {
  CallToolRequestSchema,
  CompleteRequestSchema,
  CreateMessageResultSchema,
  ElicitResultSchema,
  ErrorCode,
  GetPromptRequestSchema,
  ListPromptsRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListResourcesRequestSchema,
  ListRootsResultSchema,
  ListToolsRequestSchema,
  LoggingLevelSchema,
  McpError,
  ReadResourceRequestSchema,
  SetLevelRequestSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';
import { NO_ARGUMENTS, PROMPTS, RESOURCES, TEMPLATE, TOOLS, complete, contents } from './features.mjs';

const RESOURCE_NOT_FOUND = -32002; // up to 2025-11-25; the SDK has no name for it
const LEVELS = LoggingLevelSchema.options;

// What a question needs of the client, and what its answer looks like.
const QUESTIONS = {
  'elicitation/create': { capability: 'elicitation', answer: ElicitResultSchema },
  'sampling/createMessage': { capability: 'sampling', answer: CreateMessageResultSchema },
  'roots/list': { capability: 'roots', answer: ListRootsResultSchema },
};

function known(table, key, what) {
  if (!Object.hasOwn(table, key)) throw new McpError(ErrorCode.InvalidParams, `Unknown ${what}: ${key}`);
  return table[key];
}

/** A server for one session. */
export function legacy() {
  const server = new Server(
    { name: 'everything', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        resources: { subscribe: true },
        prompts: { listChanged: true },
        logging: {},
        completions: {},
      },
    },
  );
  const watched = new Set();
  let level = 'debug';

  const declared = ({ method }) => server.getClientCapabilities()?.[QUESTIONS[method].capability];
  const answers = (extra, questions, keys) =>
    Promise.all(keys.map(async key => [key, await extra.sendRequest(questions[key], QUESTIONS[questions[key].method].answer)]));

  /** The `client` of a handler: see `features.mjs`. */
  const client = extra => ({
    closeStream: extra.closeSSEStream,
    async log(at, data) {
      if (LEVELS.indexOf(at) < LEVELS.indexOf(level)) return;
      await extra.sendNotification({
        method: 'notifications/message',
        params: { level: at, logger: 'everything', data },
      });
    },
    async progress(progress, total) {
      const progressToken = extra._meta?.progressToken;
      if (progressToken === undefined) return;
      await extra.sendNotification({ method: 'notifications/progress', params: { progressToken, progress, total } });
    },
    async ask(questions) {
      for (const question of Object.values(questions)) {
        if (!declared(question)) throw new Error(`Client does not support ${QUESTIONS[question.method].capability}`);
      }
      return Object.fromEntries(await answers(extra, questions, Object.keys(questions)));
    },
    async askWhatItCan(questions) {
      const keys = Object.keys(questions).filter(key => declared(questions[key]));
      const asked = await Promise.allSettled(keys.map(key => answers(extra, questions, [key])));
      return Object.fromEntries(asked.flatMap(({ value = [] }) => value)); // what was refused is left out
    },
    changed: list => (list === 'tools' ? server.sendToolListChanged() : server.sendPromptListChanged()),
  });

  server.setRequestHandler(SetLevelRequestSchema, ({ params }) => {
    level = params.level;
    return {};
  });

  server.setRequestHandler(ListToolsRequestSchema, () => ({
    tools: Object.entries(TOOLS).map(([name, { description, inputSchema = NO_ARGUMENTS }]) => ({
      name,
      description,
      inputSchema,
    })),
  }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => {
    const tool = known(TOOLS, params.name, 'tool');
    try {
      return await tool.call(params.arguments ?? {}, client(extra));
    } catch (error) {
      return { isError: true, content: [{ type: 'text', text: error.message }] };
    }
  });

  server.setRequestHandler(ListResourcesRequestSchema, () => ({
    resources: Object.entries(RESOURCES).map(([uri, { name, description, mimeType }]) => ({
      uri,
      name,
      description,
      mimeType,
    })),
  }));
  server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({ resourceTemplates: [TEMPLATE] }));
  server.setRequestHandler(ReadResourceRequestSchema, ({ params: { uri } }) => {
    const found = contents(uri);
    if (!found) throw new McpError(RESOURCE_NOT_FOUND, 'Resource not found', { uri });
    return { contents: [found] };
  });
  server.setRequestHandler(SubscribeRequestSchema, ({ params: { uri } }) => {
    known(RESOURCES, uri, 'resource');
    watched.add(uri);
    return {};
  });
  server.setRequestHandler(UnsubscribeRequestSchema, ({ params: { uri } }) => {
    watched.delete(uri);
    return {};
  });

  server.setRequestHandler(ListPromptsRequestSchema, () => ({
    prompts: Object.entries(PROMPTS).map(([name, { description, arguments: args }]) => ({
      name,
      description,
      ...(args && { arguments: args }),
    })),
  }));
  server.setRequestHandler(GetPromptRequestSchema, async ({ params }, extra) => {
    const { description, get } = known(PROMPTS, params.name, 'prompt');
    return { description, messages: await get(params.arguments ?? {}, client(extra)) };
  });
  server.setRequestHandler(CompleteRequestSchema, ({ params: { argument } }) => complete(argument));

  return server;
}
