// What every TypeScript client is held to. A driver (typescript1.mjs, typescript2.mjs) only spells one SDK's API.
import { setTimeout as sleep } from 'node:timers/promises';

const CALLS = 50; // in flight at once
const STEPS = 20; // progress notifications of one call
const ARRIVAL_MS = 5_000; // for what arrives unasked
const DEADLINE_MS = 20_000; // for one claim: a hang is a failure with a name

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
async function eventually(condition, what) {
  for (const start = Date.now(); !condition(); await sleep(10)) {
    if (Date.now() - start > ARRIVAL_MS) throw new Error(`not within ${ARRIVAL_MS} ms: ${what()}`);
  }
}

/** `fetch` that notes method, status and content type of each answer. */
export function recorded(answers) {
  return async (url, init) => {
    const answer = await fetch(url, init);
    const type = answer.headers.get('content-type') ?? '';
    answers.push({ method: init?.method ?? 'GET', status: answer.status, type });
    return answer;
  };
}

export function exit() {
  process.exit(failed ? 1 : 0);
}

/**
 * `driver`: connect(), server(), version(), tools(), call(tool, args, options), setLevel(), subscribe(uri), end(),
 * sessionId(); `driver.seen`: { logs, updated, listChanged, progress }; `driver.answers`: see `recorded`.
 */
export async function check(client, url, driver) {
  const text = async (tool, args = {}, options = {}) => {
    const result = await driver.call(tool, args, options);
    if (result.isError) throw new Error(`${tool} answered ${JSON.stringify(result)}`);
    return result.content[0].text;
  };
  const own = `${client}-${process.pid}`;

  let connected = false;
  await claim(client, 'initialize', async () => {
    await driver.connect();
    connected = true;
    same(driver.server(), 'notebook', 'server name');
    same(driver.version(), '2025-11-25', 'version');
  });
  if (!connected) exit();
  await claim(client, 'tools', async () => {
    const tools = await driver.tools();
    holds(tools.includes('add_note') && tools.includes('confirm_clear'), tools);
  });
  await claim(client, 'state', async () => {
    await text('add_note', { title: own, text: `kept by ${own}` });
    same(await text('list_notes'), `1. ${own}`, 'every note of this session');
    same(await text('read_note', { title: own }), `kept by ${own}`, 'the note');
  });
  await claim(client, 'concurrent', async () => {
    const sent = Array.from({ length: CALLS }, (_, i) => `${own} ${i} ${'x'.repeat(i * 10)}`);
    const answers = await Promise.all(sent.map((payload) => text('echo', { text: payload })));
    for (const [i, payload] of sent.entries()) same(answers[i], payload, `answer ${i}`);
  });
  await claim(client, 'sampling', async () => same(await text('summarize'), `summary: ${client} read it`, 'answer'));
  await claim(client, 'elicitation', async () => same(await text('confirm_clear'), 'cleared 1 notes', 'answer'));
  await claim(client, 'roots', async () => {
    const roots = await text('list_roots');
    holds(roots.includes(`file:///srv/${client}`), roots);
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
    await driver.setLevel('debug');
    await text('log', { level: 'warning', message: `${own} warns` });
    await eventually(() => driver.seen.logs.includes(`warning ${own} warns`), () => `logs ${driver.seen.logs}`);
  });
  await claim(client, 'updates', async () => {
    const stream = driver.answers.find((a) => a.method === 'GET');
    holds(stream?.status === 200 && stream.type.startsWith('text/event-stream'), stream ?? 'no GET was sent');
    await driver.subscribe('note:///watched');
    await text('add_note', { title: 'watched', text: own });
    await eventually(
      () => driver.seen.updated.includes('note:///watched') && driver.seen.listChanged > 0,
      () => `updated ${driver.seen.updated}, list_changed ${driver.seen.listChanged}`,
    );
  });
  await claim(client, 'cancel', async () => {
    const start = Date.now();
    const stop = new AbortController();
    setTimeout(() => stop.abort('enough'), 300);
    const outcome = await text('slow', { seconds: 30, text: 'never' }, { signal: stop.signal }).catch((e) => e);
    holds(outcome instanceof Error || outcome === 'enough', `the aborted call answered ${outcome}`);
    holds(Date.now() - start < 5_000, `ended after ${Date.now() - start} ms`);
    same(await text('echo', { text: 'after' }), 'after', 'the next call');
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

  const session = driver.sessionId();
  await claim(client, 'terminate', async () => {
    await driver.end();
    if (driver.old) return; // closing the stream is all it can do
    const answer = driver.answers.findLast((a) => a.method === 'DELETE');
    holds(answer && answer.status >= 200 && answer.status < 300, answer ?? 'no DELETE was sent');
  });
  await claim(client, 'gone', async () => {
    const where = driver.old ? new URL(`/message?sessionId=${session}`, url) : url;
    const answer = await fetch(where, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        accept: 'application/json, text/event-stream',
        'mcp-protocol-version': '2025-11-25',
        'mcp-session-id': session,
      },
      body: '{"jsonrpc":"2.0","id":1,"method":"tools/list"}',
    });
    const body = await answer.text();
    holds(answer.status === 404 && JSON.parse(body).error.code === -32001, `${answer.status} ${body}`);
  });
}
