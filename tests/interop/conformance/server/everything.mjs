// What the conformance suite asks of a server, once: definitions and handlers for one session, whatever carries it.
// The low-level `Server` is used because `McpServer` builds schemas from zod and would lose the JSON Schema keywords
// that the suite looks for.
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
  ListToolsRequestSchema,
  LoggingLevelSchema,
  McpError,
  ReadResourceRequestSchema,
  SetLevelRequestSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';

// A red 1x1 PNG and a WAV with no samples.
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=';

// The suite reads the stream of `test_reconnection` for 10 s, then drops it and comes back with Last-Event-ID.
// Over stdio a tool has no stream to close, so there it outlasts the reader.
const OUTLAST_THE_READER_MS = 11_500;
/** What native streams tell clients to wait before they come back. */
export const RETRY_MS = 500;

const LEVELS = LoggingLevelSchema.options;
const NO_ARGUMENTS = { type: 'object', properties: {} };

const sleep = ms => new Promise(done => setTimeout(done, ms));
const text = text => ({ type: 'text', text });
const image = () => ({ type: 'image', data: PNG, mimeType: 'image/png' });
const resource = (uri, mimeType, text) => ({ type: 'resource', resource: { uri, mimeType, text } });
const say = (...content) => ({ content });

async function elicit(session, extra, message, requestedSchema) {
  session.requireClient('elicitation');
  const answer = await extra.sendRequest(
    { method: 'elicitation/create', params: { message, requestedSchema } },
    ElicitResultSchema,
  );
  return `action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`;
}

const TOOLS = {
  test_simple_text: {
    description: 'Returns one text',
    call: () => say(text('This is a simple text response for testing.')),
  },
  test_image_content: {
    description: 'Returns one image',
    call: () => say(image()),
  },
  test_audio_content: {
    description: 'Returns one sound',
    call: () => say({ type: 'audio', data: WAV, mimeType: 'audio/wav' }),
  },
  test_embedded_resource: {
    description: 'Returns one embedded resource',
    call: () => say(resource('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')),
  },
  test_multiple_content_types: {
    description: 'Returns text, image and resource together',
    call: () =>
      say(
        text('Multiple content types test:'),
        image(),
        resource('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}'),
      ),
  },
  test_tool_with_logging: {
    description: 'Logs three lines while it runs',
    async call(session, _args, extra) {
      await session.log(extra, 'info', 'Tool execution started');
      await sleep(50);
      await session.log(extra, 'info', 'Tool processing data');
      await sleep(50);
      await session.log(extra, 'info', 'Tool execution completed');
      return say(text('Tool with logging executed successfully'));
    },
  },
  test_error_handling: {
    description: 'Fails, always',
    call() {
      throw new Error('This tool intentionally returns an error for testing');
    },
  },
  test_tool_with_progress: {
    description: 'Reports progress three times',
    async call(_session, _args, extra) {
      const progressToken = extra._meta?.progressToken;
      for (const progress of [0, 50, 100]) {
        if (progress > 0) await sleep(50);
        if (progressToken === undefined) continue;
        await extra.sendNotification({
          method: 'notifications/progress',
          params: { progressToken, progress, total: 100 },
        });
      }
      return say(text(`Progress reported for token ${progressToken}`));
    },
  },
  test_sampling: {
    description: "Asks the client's model",
    inputSchema: {
      type: 'object',
      properties: { prompt: { type: 'string', description: 'What to ask the model' } },
      required: ['prompt'],
    },
    async call(session, { prompt }, extra) {
      session.requireClient('sampling');
      const answer = await extra.sendRequest(
        {
          method: 'sampling/createMessage',
          params: { messages: [{ role: 'user', content: text(prompt) }], maxTokens: 100 },
        },
        CreateMessageResultSchema,
      );
      return say(text(`LLM response: ${answer.content.text ?? JSON.stringify(answer.content)}`));
    },
  },
  test_elicitation: {
    description: 'Asks the user',
    inputSchema: {
      type: 'object',
      properties: { message: { type: 'string', description: 'What to show the user' } },
      required: ['message'],
    },
    async call(session, { message }, extra) {
      const answer = await elicit(session, extra, message, {
        type: 'object',
        properties: {
          username: { type: 'string', description: "User's response" },
          email: { type: 'string', description: "User's email address" },
        },
        required: ['username', 'email'],
      });
      return say(text(`User response: ${answer}`));
    },
  },
  test_elicitation_sep1034_defaults: {
    description: 'Asks the user with a default for every primitive type',
    async call(session, _args, extra) {
      const answer = await elicit(session, extra, 'Please check the defaults', {
        type: 'object',
        properties: {
          name: { type: 'string', default: 'John Doe' },
          age: { type: 'integer', default: 30 },
          score: { type: 'number', default: 95.5 },
          status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
          verified: { type: 'boolean', default: true },
        },
        required: [],
      });
      return say(text(`Elicitation completed: ${answer}`));
    },
  },
  test_elicitation_sep1330_enums: {
    description: 'Asks the user with every kind of enum',
    async call(session, _args, extra) {
      const answer = await elicit(session, extra, 'Please choose', {
        type: 'object',
        properties: {
          untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
          titledSingle: {
            type: 'string',
            oneOf: [
              { const: 'value1', title: 'First Option' },
              { const: 'value2', title: 'Second Option' },
              { const: 'value3', title: 'Third Option' },
            ],
          },
          legacyEnum: {
            type: 'string',
            enum: ['opt1', 'opt2', 'opt3'],
            enumNames: ['Option One', 'Option Two', 'Option Three'],
          },
          untitledMulti: { type: 'array', items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
          titledMulti: {
            type: 'array',
            items: {
              anyOf: [
                { const: 'value1', title: 'First Choice' },
                { const: 'value2', title: 'Second Choice' },
                { const: 'value3', title: 'Third Choice' },
              ],
            },
          },
        },
        required: [],
      });
      return say(text(`Elicitation completed: ${answer}`));
    },
  },
  json_schema_2020_12_tool: {
    description: 'Tool with JSON Schema 2020-12 features',
    inputSchema: {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      type: 'object',
      $defs: {
        address: {
          $anchor: 'addressDef',
          type: 'object',
          properties: { street: { type: 'string' }, city: { type: 'string' } },
        },
      },
      properties: {
        name: { type: 'string' },
        address: { $ref: '#/$defs/address' },
        contactMethod: { type: 'string', enum: ['phone', 'email'] },
        phone: { type: 'string' },
        email: { type: 'string' },
      },
      allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
      if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
      then: { required: ['phone'] },
      else: { required: ['email'] },
      additionalProperties: false,
    },
    call: (_session, args) => say(text(JSON.stringify(args))),
  },
  test_reconnection: {
    description: 'Answers after its stream was closed',
    async call(_session, _args, extra) {
      if (extra.closeSSEStream) {
        extra.closeSSEStream();
        await sleep(RETRY_MS / 2);
      } else {
        await sleep(OUTLAST_THE_READER_MS);
      }
      return say(text('Reconnection test completed'));
    },
  },
};

const RESOURCES = {
  'test://static-text': {
    name: 'static-text',
    description: 'A text that never changes',
    mimeType: 'text/plain',
    text: 'This is the content of the static text resource.',
  },
  'test://static-binary': {
    name: 'static-binary',
    description: 'An image that never changes',
    mimeType: 'image/png',
    blob: PNG,
  },
  'test://watched-resource': {
    name: 'watched-resource',
    description: 'A resource to subscribe to',
    mimeType: 'text/plain',
    text: 'Watched resource content',
  },
};

const TEMPLATE = {
  uriTemplate: 'test://template/{id}/data',
  name: 'template',
  description: 'Data for an id',
  mimeType: 'application/json',
};
const TEMPLATE_URI = /^test:\/\/template\/([^/]+)\/data$/;

const user = content => ({ role: 'user', content });
const PROMPTS = {
  test_simple_prompt: {
    description: 'A prompt without arguments',
    get: () => [user(text('This is a simple prompt for testing.'))],
  },
  test_prompt_with_arguments: {
    description: 'A prompt with two arguments',
    arguments: [
      { name: 'arg1', description: 'First test argument', required: true },
      { name: 'arg2', description: 'Second test argument', required: true },
    ],
    get: ({ arg1, arg2 }) => [user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))],
  },
  test_prompt_with_embedded_resource: {
    description: 'A prompt that embeds a resource',
    arguments: [{ name: 'resourceUri', description: 'URI of the resource to embed', required: true }],
    get: ({ resourceUri }) => [
      user(resource(resourceUri, 'text/plain', 'Embedded resource content for testing.')),
      user(text('Please process the embedded resource above.')),
    ],
  },
  test_prompt_with_image: {
    description: 'A prompt with an image',
    get: () => [user(image()), user(text('Please analyze the image above.'))],
  },
};

function known(table, key, what) {
  if (!Object.hasOwn(table, key)) throw new McpError(ErrorCode.InvalidParams, `Unknown ${what}: ${key}`);
  return table[key];
}

class Session {
  #level = 'debug';
  #server;

  constructor(server) {
    this.#server = server;
    server.setRequestHandler(SetLevelRequestSchema, ({ params }) => {
      this.#level = params.level;
      return {};
    });
  }

  async log(extra, level, data) {
    if (LEVELS.indexOf(level) < LEVELS.indexOf(this.#level)) return;
    await extra.sendNotification({ method: 'notifications/message', params: { level, logger: 'everything', data } });
  }

  requireClient(capability) {
    if (!this.#server.getClientCapabilities()?.[capability]) throw new Error(`Client does not support ${capability}`);
  }
}

/** A server for one session. */
export function everything() {
  const server = new Server(
    { name: 'everything', version: '1.0.0' },
    {
      capabilities: {
        tools: {},
        resources: { subscribe: true },
        prompts: {},
        logging: {},
        completions: {},
      },
    },
  );
  const session = new Session(server);
  const watched = new Set();

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
      return await tool.call(session, params.arguments ?? {}, extra);
    } catch (error) {
      return { isError: true, content: [text(error.message)] };
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
    const id = TEMPLATE_URI.exec(uri)?.[1];
    if (id !== undefined) {
      const data = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
      return { contents: [{ uri, mimeType: TEMPLATE.mimeType, text: data }] };
    }
    const { mimeType, text, blob } = known(RESOURCES, uri, 'resource');
    return { contents: [{ uri, mimeType, ...(blob ? { blob } : { text }) }] };
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
  server.setRequestHandler(GetPromptRequestSchema, ({ params }) => {
    const { description, get } = known(PROMPTS, params.name, 'prompt');
    return { description, messages: get(params.arguments ?? {}) };
  });
  server.setRequestHandler(CompleteRequestSchema, ({ params: { argument } }) => {
    const values = ['paris', 'park', 'party', 'test', 'testing'].filter(word => word.startsWith(argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  });

  return server;
}
