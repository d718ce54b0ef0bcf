// What every TypeScript client is held to. A driver (typescript1.mjs, typescript2.mjs) only spells one SDK's API.
import { setTimeout as sleep } from 'node:timers/promises';

const CALLS = 50; // in flight at once
const STEPS = 20; // progress notifications of one call
const ARRIVAL_MS = 5_000; // for what arrives unasked
const LOG_MS = 1_000; // for a log line of a call that has been answered
const DEADLINE_MS = 40_000; // for one claim: a hang is a failure with a name
const PATIENCE_MS = 90_000; // for what a shared child says while others have calls in flight

let failed = 0;

/** Runs one claim and prints its line; a claim returns nothing and throws what it saw instead. */
export async function claim(client, name, body) {
  const late = sleep(DEADLINE_MS, undefined, { ref: false }).then(() => {
    throw new Error(`not done within ${DEADLINE_MS} ms`);
  });
  try {
    await Promise.race([body(), late]);
    console.log(`ok ${client} ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL ${client} ${name}: ${String(error?.message ?? error).replaceAll(/\s+/g, ' ')}`);
  }
}

export function same(seen, expected, what) {
  const [a, b] = [JSON.stringify(seen), JSON.stringify(expected)];
  if (a !== b) throw new Error(`${what}: ${a}, expected ${b}`);
}

export function holds(condition, seen) {
  if (!condition) throw new Error(typeof seen === 'string' ? seen : JSON.stringify(seen));
}

/** Waits until `condition` holds, with a deadline. */
async function eventually(condition, what, within = ARRIVAL_MS) {
  for (const start = Date.now(); !condition(); await sleep(10)) {
    if (Date.now() - start > within) throw new Error(`not within ${within} ms: ${what()}`);
  }
}

/** `fetch` that notes method, status, content type and session of each answer. */
export function recorded(answers) {
  return async (url, init) => {
    const answer = await fetch(url, init);
    const type = answer.headers.get('content-type') ?? '';
    const session = answer.headers.get('mcp-session-id');
    answers.push({ method: init?.method ?? 'GET', status: answer.status, type, session });
    return answer;
  };
}

/** A request within a session, past the SDK. */
function post(url, session, method, params) {
  return fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': '2025-11-25',
      'mcp-session-id': session,
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 'past the SDK', method, params }),
  });
}

export function exit() {
  process.exit(failed ? 1 : 0);
}

/**
 * `driver`: connect(), server(), version(), capabilities(), tools(), call(tool, args, options), prompts(), prompt(name, args),
 * resources(), read(uri), end(), and up to 2025-11-25 setLevel(), subscribe(uri), ping(), sessionId(), from 2026-07-28
 * listen(uri); `driver.seen`: { logs, updated, listChanged, progress }; `driver.answers`: see `recorded`. With
 * `driver.modern` the client is to speak 2026-07-28, with `driver.shared` it shares the server.
 */
export async function check(client, url, driver) {
  const text = async (tool, args = {}, options = {}) => {
    const result = await driver.call(tool, args, options);
    if (result.isError) throw new Error(`${tool} answered ${JSON.stringify(result)}`);
    return result.content[0].text;
  };
  const own = `${client}-${process.pid}`;
  const code = (refused) => refused().then(() => 'no error', (error) => error.code ?? `${error}`);

  // Where several clients share a child, what it says for no call in particular (a question, a log line) can belong to
  // any of those that have a call in flight; then nobody gets it, and the call says so or goes without. And they share
  // the notes, which each of them clears once.
  const patiently = async (attempt) => {
    // not all at the same time again
    for (const start = Date.now(); ; await sleep(50 + 950 * Math.random())) {
      try {
        return await attempt();
      } catch (error) {
        if (!driver.shared || Date.now() - start > PATIENCE_MS) throw error;
      }
    }
  };

  let connected = false;
  await claim(client, 'initialize', async () => {
    await driver.connect();
    connected = true;
    same(driver.server(), 'notebook', 'server name');
    same(driver.version(), driver.modern ? '2026-07-28' : '2025-11-25', 'version');
  });
  if (!connected) exit();
  const capabilities = driver.capabilities();
  await claim(client, 'capabilities', () => {
    const { tools, resources, logging } = capabilities;
    holds(tools && logging && resources?.subscribe && resources.listChanged, capabilities);
  });
  let offered = [];
  await claim(client, 'tools', async () => {
    offered = await driver.tools();
    holds(offered.includes('add_note') && offered.includes('confirm_clear'), offered);
  });
  await claim(client, 'errors', async () => {
    const failed = await driver.call('read_note', { title: `no ${own}` }, {});
    same(failed.isError, true, 'isError');
    holds(failed.content[0].text.includes(`no ${own}`), failed);
    same(await code(() => driver.call('no_such_tool', {}, {})), -32602, 'code of an unknown tool');
  });
  if (capabilities.prompts) {
    await claim(client, 'prompts', async () => {
      same(await driver.prompts(), ['greet'], 'prompts');
      same(await driver.prompt('greet', { name: own }), `Say hello to ${own}`, 'the prompt');
    });
  } else {
    console.log(`n/a ${client} prompts: the server has none`);
  }
  await claim(client, 'state', () =>
    patiently(async () => {
      await text('add_note', { title: own, text: `kept by ${own}` });
      const notes = await text('list_notes');
      if (driver.shared) holds(notes.includes(`. ${own}`), notes); // unless another client has just cleared them
      else same(notes, `1. ${own}`, 'every note of this session');
      same(await text('read_note', { title: own }), `kept by ${own}`, 'the note');
    }),
  );
  await claim(client, 'resources', async () => {
    await patiently(async () => {
      await text('add_note', { title: own, text: `kept by ${own}` });
      const uris = await driver.resources();
      holds(uris.includes(`note:///${own}`), uris);
      same(await driver.read(`note:///${own}`), `kept by ${own}`, 'the resource');
    });
    const unknown = { uri: `note:///no-${own}` };
    if (driver.modern || driver.old) {
      same(await code(() => driver.read(unknown.uri)), driver.modern ? -32602 : -32002, 'code of an unknown resource');
      return;
    }
    // SDK 2.x makes an error of its own of -32002, and calls that -32602: what came over the wire is looked at.
    const answer = await post(url, driver.sessionId(), 'resources/read', unknown);
    same(JSON.parse(await answer.text()).error?.code, -32002, 'code of an unknown resource');
    holds((await code(() => driver.read(unknown.uri))) !== 'no error', 'the SDK saw no error');
  });
  await claim(client, 'concurrent', async () => {
    const sent = Array.from({ length: CALLS }, (_, i) => `${own} ${i} ${'x'.repeat(i * 10)}`);
    const answers = await Promise.all(sent.map((payload) => text('echo', { text: payload })));
    for (const [i, payload] of sent.entries()) same(answers[i], payload, `answer ${i}`);
  });
  await claim(client, 'sampling', async () => {
    same(await patiently(() => text('summarize')), `summary: ${client} read it`, 'answer');
  });
  await claim(client, 'elicitation', async () => {
    const answer = await patiently(() => text('confirm_clear'));
    if (driver.shared) holds(/^cleared \d+ notes$/.test(answer), answer);
    else same(answer, 'cleared 1 notes', 'answer');
  });
  await claim(client, 'roots', async () => {
    same(await patiently(() => text('list_roots')), `file:///srv/${client}`, 'roots');
  });
  await claim(client, 'progress', async () => {
    const steps = [];
    await text('count', { to: STEPS, delay_ms: 5 }, { onprogress: (p) => steps.push(p.progress) });
    // The SDK takes the handler away at the answer and calls handlers a microtask later: over the old transport it drops
    // whatever progress comes in the same read as the answer. So there the transport counts.
    const arrived = () => driver.seen.progress ?? steps;
    await eventually(() => arrived().length >= STEPS, () => `${STEPS} steps, seen ${arrived()}`);
    same(arrived(), Array.from({ length: STEPS }, (_, i) => i + 1), 'steps');
    holds(steps.length > 0, 'the handler was never called');
    same(steps, Array.from({ length: steps.length }, (_, i) => i + 1), 'steps that the handler saw');
  });
  await claim(client, 'log', async () => {
    await driver.setLevel?.('debug');
    await patiently(async () => {
      await text('log', { level: 'warning', message: `${own} warns` }, { logLevel: 'debug' });
      await eventually(() => driver.seen.logs.includes(`warning ${own} warns`), () => `logs ${driver.seen.logs}`, LOG_MS);
    });
    if (driver.shared) same(driver.seen.logs.filter((line) => !line.includes(own)), [], 'logs of others');
  });
  await claim(client, 'updates', async () => {
    const title = `watched-${own}`;
    if (driver.modern) {
      await driver.listen(`note:///${title}`);
    } else {
      const stream = driver.answers.find((a) => a.method === 'GET');
      holds(stream?.status === 200 && stream.type.startsWith('text/event-stream'), stream ?? 'no GET was sent');
      await driver.subscribe(`note:///${title}`);
    }
    await text('add_note', { title, text: own });
    await eventually(
      () => driver.seen.updated.includes(`note:///${title}`) && driver.seen.listChanged > 0,
      () => `updated ${driver.seen.updated}, list_changed ${driver.seen.listChanged}`,
    );
    same(driver.seen.updated.filter((uri) => uri !== `note:///${title}`), [], 'updates for others');
  });
  await claim(client, 'cancel', async () => {
    const stop = new AbortController();
    const tells = offered.includes('tell'); // of what runs and what was cancelled
    const told = async (of) => {
      for (const asked = Date.now(); ; await sleep(10)) {
        const words = JSON.parse(await text('tell'))[of];
        if (words.includes(`never ${own}`)) return;
        holds(Date.now() - asked < ARRIVAL_MS, `the server's ${of} calls are ${words}`);
      }
    };
    const call = text('slow', { seconds: 30, text: `never ${own}` }, { signal: stop.signal }).catch((e) => e);
    await (tells ? told('running') : sleep(300));
    const start = Date.now();
    stop.abort('enough');
    const outcome = await call;
    holds(outcome instanceof Error || outcome === 'enough', `the aborted call answered ${outcome}`);
    holds(Date.now() - start < 5_000, `ended after ${Date.now() - start} ms`);
    same(await text('echo', { text: 'after' }), 'after', 'the next call');
    if (tells) await told('cancelled');
  });
  await claim(client, 'slow', async () => {
    const start = Date.now();
    const before = driver.answers.length;
    same(await text('slow', { seconds: 3, text: own }), `waited 3 s: ${own}`, 'answer');
    holds(Date.now() - start > 2_900, `answered after ${Date.now() - start} ms`);
    const answers = driver.answers.slice(before);
    if (driver.old) return; // its answers come on the stream of its GET
    holds(answers.some((a) => a.method === 'POST' && a.type.startsWith('text/event-stream')), answers);
  });

  if (driver.modern) {
    console.log(`n/a ${client} ping: 2026-07-28 has none`);
    await claim(client, 'terminate', async () => {
      await driver.end();
      same(driver.answers.filter((a) => a.method !== 'POST' || a.session), [], 'what belongs to sessions');
    });
    console.log(`n/a ${client} gone: there is no session`);
    return;
  }
  await claim(client, 'ping', () => driver.ping());
  const session = driver.sessionId();
  await claim(client, 'terminate', async () => {
    await driver.end();
    if (driver.old) return; // closing the stream is all it can do
    const answer = driver.answers.findLast((a) => a.method === 'DELETE');
    holds(answer && answer.status >= 200 && answer.status < 300, answer ?? 'no DELETE was sent');
  });
  await claim(client, 'gone', async () => {
    const where = driver.old ? new URL(`/message?sessionId=${session}`, url) : url;
    const answer = await post(where, session, 'tools/list');
    const body = await answer.text();
    holds(answer.status === 404 && JSON.parse(body).error.code === -32001, `${answer.status} ${body}`);
  });
}
