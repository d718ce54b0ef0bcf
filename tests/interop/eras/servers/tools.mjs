// What both servers of the TypeScript SDK offer: the tools of examples/notebook.rs and those of ../child.py.
//
// A handler gets the call's arguments and its `client`: ask(key, question, state) answers with what the client said,
// progress(progress, total, message), log(level, data), changed(uri, fresh), and `signal`, which a cancellation aborts.
import { setTimeout as sleep } from 'node:timers/promises';

const notes = new Map();
const kept = [];
const running = new Set(); // the words of calls that wait
const cancelled = [];

const text = (text) => ({ content: [{ type: 'text', text }] });
const uri = (title) => `note:///${encodeURIComponent(title)}`;
const elicitation = (message, name, type) => ({
  method: 'elicitation/create',
  params: { message, requestedSchema: { type: 'object', properties: { [name]: { type } }, required: [name] } },
});

/** Waits; a cancelled call leaves its word for `tell`. */
async function pause(ms, word, signal) {
  running.add(word);
  try {
    await sleep(ms, undefined, { signal });
  } catch (stopped) {
    cancelled.push(word);
    throw stopped;
  } finally {
    running.delete(word);
  }
}

/** name -> [arguments, handler] */
export const TOOLS = {
  add_note: [
    ['title', 'text'],
    async ({ title, text: body }, { changed }) => {
      const fresh = !notes.has(title);
      notes.set(title, body);
      await changed(uri(title), fresh);
      return text(`note saved: ${title}`);
    },
  ],
  list_notes: [[], () => text([...notes.keys()].map((title, i) => `${i + 1}. ${title}`).join('\n') || 'no notes yet')],
  read_note: [
    ['title'],
    ({ title }) => (notes.has(title) ? text(notes.get(title)) : { ...text(`there is no note ${title}`), isError: true }),
  ],
  echo: [['text'], ({ text: back }) => text(back)],
  confirm_clear: [
    [],
    async (_args, { ask }) => {
      const { action, content } = await ask('confirm', elicitation('Delete all?', 'confirm', 'boolean'));
      if (action !== 'accept' || !content.confirm) return text(`kept ${notes.size} notes`);
      const count = notes.size;
      notes.clear();
      return text(`cleared ${count} notes`);
    },
  ],
  summarize: [
    [],
    async (_args, { ask }) => {
      const messages = [{ role: 'user', content: { type: 'text', text: 'Summarize these notes' } }];
      const answer = await ask('summary', { method: 'sampling/createMessage', params: { messages, maxTokens: 200 } });
      return text(`summary: ${answer.content.text}`);
    },
  ],
  list_roots: [
    [],
    async (_args, { ask }) => text((await ask('roots', { method: 'roots/list' })).roots.map((root) => root.uri).join('\n')),
  ],
  count: [
    ['to', 'delay_ms'],
    async ({ to, delay_ms = 0 }, { progress }) => {
      for (let step = 1; step <= to; step += 1) {
        await sleep(delay_ms);
        await progress(step, to);
      }
      return text(`counted to ${to}`);
    },
  ],
  log: [
    ['level', 'message'],
    async ({ level, message }, { log }) => {
      await log(level, message);
      return text('logged');
    },
  ],
  slow: [
    ['seconds', 'text'],
    async ({ seconds, text: word }, { signal }) => {
      await pause(seconds * 1000, word, signal);
      return text(`waited ${seconds} s: ${word}`);
    },
  ],

  work: [
    ['word', 'steps', 'pause'],
    async ({ word, steps = 1, pause: seconds = 0.01 }, { progress, signal }) => {
      for (let step = 1; step <= steps; step += 1) {
        await pause(seconds * 1000, word, signal);
        await progress(step, steps, word);
      }
      return text(word);
    },
  ],
  question: [
    ['word'],
    async ({ word }, { ask }) => {
      const { action, content } = await ask('q', elicitation(word, 'word', 'string'), word);
      if (action !== 'accept') return { ...text(`not answered: ${word}`), isError: true };
      return text(`${word}: ${content.word}`);
    },
  ],
  update: [
    ['word'],
    async ({ word }, { changed }) => {
      await changed(word, false);
      return text(word);
    },
  ],
  keep: [
    ['word'],
    ({ word }) => {
      kept.push(word);
      return text(kept.join(' '));
    },
  ],
  tell: [[], () => text(JSON.stringify({ pid: process.pid, running: [...running], cancelled }))],
};

export const schema = (names) => ({ type: 'object', properties: Object.fromEntries(names.map((name) => [name, {}])) });

export const PROMPT = { name: 'greet', description: 'Greets somebody', arguments: [{ name: 'name', required: true }] };

export const greet = ({ name }) => ({ messages: [{ role: 'user', content: { type: 'text', text: `Say hello to ${name}` } }] });

export const resources = () => [...notes.keys()].map((title) => ({ uri: uri(title), name: title, mimeType: 'text/plain' }));

/** What `resources/read` answers, or nothing where there is no such note. */
export function contents(wanted) {
  const found = [...notes].find(([title]) => uri(title) === wanted);
  return found && { contents: [{ uri: wanted, mimeType: 'text/plain', text: found[1] }] };
}
