// What the conformance suite asks of a server, once, whatever revision and SDK carry it. `legacy.mjs` and `modern.mjs`
// bind it to theirs.
//
// A handler gets the arguments and a `client`:
//   log(level, data), progress(done, total)   what it says while it works
//   ask(questions)                            { key: { method, params } } -> { key: answer }, all of them
//   askWhatItCan(questions)                   the same, but only what the client declared; the answers of those
//   changed('tools' | 'prompts')              a list has changed
//   closeStream                               closes the stream of this call, where there is one to close
// A question is answered over the open call up to 2025-11-25, and from 2026-07-28 by calling again: there `ask` ends the
// handler, which then starts anew with the answers so far.

// A red 1x1 PNG and a WAV with no samples.
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=';

// The suite reads the stream of `test_reconnection` for 10 s, then drops it and comes back with Last-Event-ID.
// Over stdio a tool has no stream to close, so there it outlasts the reader.
const OUTLAST_THE_READER_MS = 11_500;
/** What native streams tell clients to wait before they come back. */
export const RETRY_MS = 500;

export const NO_ARGUMENTS = { type: 'object', properties: {} };

const sleep = ms => new Promise(done => setTimeout(done, ms));
const text = text => ({ type: 'text', text });
const image = () => ({ type: 'image', data: PNG, mimeType: 'image/png' });
const resource = (uri, mimeType, text) => ({ type: 'resource', resource: { uri, mimeType, text } });
const say = (...content) => ({ content });

// The three kinds of questions.
const elicit = (message, requestedSchema) => ({ method: 'elicitation/create', params: { message, requestedSchema } });
const sample = (prompt, maxTokens = 100) => ({
  method: 'sampling/createMessage',
  params: { messages: [{ role: 'user', content: text(prompt) }], maxTokens },
});
const roots = () => ({ method: 'roots/list', params: {} });
const fields = properties => ({ type: 'object', properties, required: Object.keys(properties) });

const elicited = ({ action, content = {} }) => `action=${action}, content=${JSON.stringify(content)}`;
const sampled = ({ content }) => content.text ?? JSON.stringify(content);

const ASK_FOR_NAME = elicit('What is your name?', fields({ name: { type: 'string' } }));
const CONFIRM = elicit('Please confirm', fields({ ok: { type: 'boolean' } }));

export const TOOLS = {
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
    async call(_args, client) {
      await client.log('info', 'Tool execution started');
      await sleep(50);
      await client.log('info', 'Tool processing data');
      await sleep(50);
      await client.log('info', 'Tool execution completed');
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
    async call(_args, client) {
      for (const done of [0, 50, 100]) {
        if (done > 0) await sleep(50);
        await client.progress(done, 100);
      }
      return say(text('Progress reported'));
    },
  },
  test_sampling: {
    description: "Asks the client's model",
    inputSchema: {
      type: 'object',
      properties: { prompt: { type: 'string', description: 'What to ask the model' } },
      required: ['prompt'],
    },
    async call({ prompt }, client) {
      const { answer } = await client.ask({ answer: sample(prompt) });
      return say(text(`LLM response: ${sampled(answer)}`));
    },
  },
  test_elicitation: {
    description: 'Asks the user',
    inputSchema: {
      type: 'object',
      properties: { message: { type: 'string', description: 'What to show the user' } },
      required: ['message'],
    },
    async call({ message }, client) {
      const schema = fields({
        username: { type: 'string', description: "User's response" },
        email: { type: 'string', description: "User's email address" },
      });
      const { answer } = await client.ask({ answer: elicit(message, schema) });
      return say(text(`User response: ${elicited(answer)}`));
    },
  },
  test_elicitation_sep1034_defaults: {
    description: 'Asks the user with a default for every primitive type',
    async call(_args, client) {
      const schema = {
        type: 'object',
        properties: {
          name: { type: 'string', default: 'John Doe' },
          age: { type: 'integer', default: 30 },
          score: { type: 'number', default: 95.5 },
          status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
          verified: { type: 'boolean', default: true },
        },
        required: [],
      };
      const { answer } = await client.ask({ answer: elicit('Please check the defaults', schema) });
      return say(text(`Elicitation completed: ${elicited(answer)}`));
    },
  },
  test_elicitation_sep1330_enums: {
    description: 'Asks the user with every kind of enum',
    async call(_args, client) {
      const schema = {
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
      };
      const { answer } = await client.ask({ answer: elicit('Please choose', schema) });
      return say(text(`Elicitation completed: ${elicited(answer)}`));
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
    call: args => say(text(JSON.stringify(args))),
  },
  test_reconnection: {
    description: 'Answers after its stream was closed',
    async call(_args, client) {
      client.closeStream?.();
      await sleep(client.closeStream ? RETRY_MS / 2 : OUTLAST_THE_READER_MS);
      return say(text('Reconnection test completed'));
    },
  },

  // --- what the scenarios of 2026-07-28 call ---

  test_x_mcp_header: {
    description: 'Has an argument that travels in a header too',
    inputSchema: {
      type: 'object',
      properties: {
        region: { type: 'string', description: 'mirrored', 'x-mcp-header': 'Region' },
        level: { type: 'integer', description: 'not mirrored' },
      },
    },
    call: ({ region = 'none' }) => say(text(`region=${region}`)),
  },
  test_missing_capability: {
    description: "Cannot do without the client's model",
    async call(_args, client) {
      const { answer } = await client.ask({ answer: sample('Reply with the single word: pong', 16) });
      return say(text(sampled(answer)));
    },
  },
  test_streaming_elicitation: {
    description: 'Answers, and asks nothing on the stream of its answer',
    call: () => say(text('no requests here')),
  },
  test_logging_tool: {
    description: 'Logs one line',
    async call(_args, client) {
      await client.log('info', 'test_logging_tool ran');
      return say(text('logged'));
    },
  },
  test_trigger_tool_change: {
    description: 'Says that the list of tools has changed',
    async call(_args, client) {
      await client.changed('tools');
      return say(text('changed'));
    },
  },
  test_trigger_prompt_change: {
    description: 'Says that the list of prompts has changed',
    async call(_args, client) {
      await client.changed('prompts');
      return say(text('changed'));
    },
  },
  test_input_required_result_elicitation: {
    description: 'Asks for a name',
    async call(_args, client) {
      const { user_name } = await client.ask({ user_name: ASK_FOR_NAME });
      return say(text(`Hello, ${user_name.content?.name}!`));
    },
  },
  test_input_required_result_sampling: {
    description: 'Asks the model for a capital',
    async call(_args, client) {
      const { capital_question } = await client.ask({ capital_question: sample('What is the capital of France?') });
      return say(text(`Sampling response: ${sampled(capital_question)}`));
    },
  },
  test_input_required_result_list_roots: {
    description: 'Asks for the roots',
    async call(_args, client) {
      const { client_roots } = await client.ask({ client_roots: roots() });
      return say(text(`Roots: ${client_roots.roots.map(root => root.uri).join(', ')}`));
    },
  },
  test_input_required_result_request_state: {
    description: 'Asks for a confirmation',
    async call(_args, client) {
      await client.ask({ confirm: CONFIRM });
      return say(text('state-ok'));
    },
  },
  test_input_required_result_multiple_inputs: {
    description: 'Asks three questions at once',
    async call(_args, client) {
      const { user_name, greeting, client_roots } = await client.ask({
        user_name: ASK_FOR_NAME,
        greeting: sample('Generate a greeting', 50),
        client_roots: roots(),
      });
      return say(text(`${sampled(greeting)} ${user_name.content?.name}, ${client_roots.roots.length} roots`));
    },
  },
  test_input_required_result_multi_round: {
    description: 'Asks one question after the other',
    async call(_args, client) {
      const { step1 } = await client.ask({
        step1: elicit('Step 1: What is your name?', fields({ name: { type: 'string' } })),
      });
      const { step2 } = await client.ask({
        step2: elicit('Step 2: What is your favorite color?', fields({ color: { type: 'string' } })),
      });
      return say(text(`${step1.content?.name} likes ${step2.content?.color}`));
    },
  },
  test_input_required_result_tampered_state: {
    description: 'Asks for a confirmation',
    async call(_args, client) {
      await client.ask({ confirm: CONFIRM });
      return say(text('integrity-ok'));
    },
  },
  test_input_required_result_capabilities: {
    description: 'Asks whatever the client can be asked',
    async call(_args, client) {
      const answers = await client.askWhatItCan({
        user_name: ASK_FOR_NAME,
        greeting: sample('Generate a greeting', 50),
        client_roots: roots(),
      });
      return say(text(`answered: ${Object.keys(answers).join(', ')}`));
    },
  },
};

export const RESOURCES = {
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

export const TEMPLATE = {
  uriTemplate: 'test://template/{id}/data',
  name: 'template',
  description: 'Data for an id',
  mimeType: 'application/json',
};
const TEMPLATE_URI = /^test:\/\/template\/([^/]+)\/data$/;

/** What is at an address; nothing where there is nothing. */
export function contents(uri) {
  const id = TEMPLATE_URI.exec(uri)?.[1];
  if (id !== undefined) {
    const data = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
    return { uri, mimeType: TEMPLATE.mimeType, text: data };
  }
  if (!Object.hasOwn(RESOURCES, uri)) return undefined;
  const { mimeType, text, blob } = RESOURCES[uri];
  return { uri, mimeType, ...(blob ? { blob } : { text }) };
}

const user = content => ({ role: 'user', content });
export const PROMPTS = {
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
  test_input_required_result_prompt: {
    description: 'A prompt that asks first',
    async get(_args, client) {
      const question = elicit('What context should the prompt use?', fields({ context: { type: 'string' } }));
      const { user_context } = await client.ask({ user_context: question });
      return [user(text(`Use the following context: ${user_context.content?.context}`))];
    },
  },
  test_prompt_with_image: {
    description: 'A prompt with an image',
    get: () => [user(image()), user(text('Please analyze the image above.'))],
  },
};

export function complete({ value }) {
  const values = ['paris', 'park', 'party', 'test', 'testing'].filter(word => word.startsWith(value));
  return { completion: { values, total: values.length, hasMore: false } };
}
