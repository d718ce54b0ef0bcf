// table.mjs RESULTS REPORT: what passes natively against what passes through the bridge, check by check.
// Writes REPORT (markdown) and prints it, lists what was lost, closes with `N passed, N failed`; exit code 1 if any failed.
// Three tables: the revisions with sessions; 2026-07-28, there in front of a server of that revision and of an older one; and
// sessions in front of a server of 2026-07-28, and on a process that they share.
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createRequire } from 'node:module';
import { parse } from 'yaml';

const [results, report] = process.argv.slice(2);

// The releases are pinned, so the control's totals are known: fewer means that the suite did not run to its end.
// `0.2@REVISION`: the scenarios that the 0.2 line lists for an older revision.
const LINES = [
  { line: '0.1', native: 47, scored: () => true },
  { line: '0.2@2025-03-26', native: 3, scored: () => true },
  { line: '0.2@2025-06-18', native: 56, scored: () => true },
  { line: '0.2', native: 84, scored: required('conformance-0.2/requirements/2025-11-25.yaml') },
];

// And for 2026-07-28, where the extension of tasks is no part of the control: its checks are left out.
const MODERN = { native: 152, scored: required('conformance-0.2/requirements/2026-07-28.yaml') };
const isTasks = scenario => scenario.startsWith('tasks-');
// Sessions where the bridge is more than a carrier: subject -> what it is in front of. The control is that of the line.
const CELLS = {
  line: '0.2',
  of: {
    'sessions-shared': 'on one process of 2025-11-25',
    'sessions-modern': 'in front of a server of 2026-07-28',
    'sessions-modern-shared': 'on one process of 2026-07-28',
  },
};
// Subject -> what cannot pass there, whatever stands in between.
const OUT_OF_REACH = parse(readFileSync(join(import.meta.dirname, 'out-of-reach.yaml'), 'utf8')) ?? {};

function required(path) {
  const { server } = parse(readFileSync(join(import.meta.dirname, 'node_modules', path), 'utf8'));
  return scenario => server.includes(scenario);
}

const version = line =>
  createRequire(import.meta.url)(`./node_modules/conformance-${line.split('@')[0]}/package.json`).version;
const title = line => `${version(line)}, ${line.split('@')[1] ?? (line === '0.1' ? 'all' : '2025-11-25')}`;

/** Scenario -> checks, in the order in which they ran; none of a scenario that did not come to its end. */
function read(...path) {
  const dir = join(results, ...path);
  if (!existsSync(dir)) return new Map();
  return new Map(
    readdirSync(dir)
      .map(name => /^server-(.+)-(\d{4}-\d\d-\d\dT.+)$/.exec(name))
      .filter(Boolean)
      .sort((a, b) => a[2].localeCompare(b[2]))
      .map(([name, scenario]) => [scenario, checksOf(join(dir, name, 'checks.json'))]),
  );
}

const checksOf = file => (existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : []);

const passes = (checks, id) => checks.filter(check => check.id === id && check.status === 'SUCCESS').length;
const explain = check => [check.status, check.errorMessage ?? check.details?.message].filter(Boolean).join(': ');

/** How many of the natively passed checks pass here, and why the others do not. */
function compare(native, here) {
  const lost = [];
  let passed = 0;
  const won = native.filter(check => check.status === 'SUCCESS');
  for (const id of new Set(won.map(check => check.id))) {
    const want = passes(native, id);
    const got = Math.min(want, passes(here, id));
    passed += got;
    if (got === want) continue;
    const instead = here.filter(check => check.id === id && check.status !== 'SUCCESS').map(explain);
    lost.push(...Array(want - got).fill(`${id}: ${instead.join('; ') || 'not reached'}`));
  }
  const fresh = here.filter(check => check.status === 'FAILURE' && passes(native, check.id) === 0);
  lost.push(...fresh.map(check => `${check.id}: ${explain(check)}`));
  return { passed, of: won.length, lost };
}

const table = new Map(); // scenario -> { notes, cells by line }
const sums = [];
const complaints = [];
let passed = 0;
let failed = 0;

for (const { line, native: expected, scored } of LINES) {
  const native = read(line, 'native');
  const byDefault = read(line, 'bridge');
  const sum = { native: 0, bridge: 0, scoredNative: 0, scoredBridge: 0 };
  for (const [scenario, checks] of native) {
    const optionsFile = join(results, line, 'options', scenario, 'options');
    const options = existsSync(optionsFile) ? readFileSync(optionsFile, 'utf8').trim() : '';
    const plain = compare(checks, byDefault.get(scenario) ?? []);
    const best = options ? compare(checks, read(line, 'options', scenario).get(scenario) ?? []) : plain;
    passed += best.passed;
    failed += best.lost.length;
    complaints.push(...best.lost.map(loss => `${line} ${scenario} ${loss}`));
    sum.native += best.of;
    sum.bridge += best.passed;
    if (scored(scenario)) {
      sum.scoredNative += best.of;
      sum.scoredBridge += best.passed;
    }
    const row = table.get(scenario) ?? { cells: {}, note: '' };
    table.set(scenario, row);
    row.cells[line] = `${best.passed}/${best.of}${scored(scenario) ? '' : ' (not scored)'}`;
    if (options) row.note = `with \`${options}\`; without it ${plain.passed}/${plain.of}`;
    const broken = checks.filter(check => ['FAILURE', 'WARNING', 'SKIPPED'].includes(check.status));
    failed += broken.length;
    complaints.push(...broken.map(check => `${line} ${scenario} ${check.id}: the control: ${explain(check)}`));
  }
  if (sum.native !== expected) {
    failed += 1;
    complaints.push(`${line} the control passed ${sum.native} checks, not ${expected}`);
  }
  const ofScored = sum.scoredNative === sum.native ? '' : `, scored ${sum.scoredBridge}/${sum.scoredNative}`;
  sums.push(`**${sum.bridge}/${sum.native}**${ofScored}`);
}

const rows = [...table].map(([scenario, { cells, note }]) => [
  scenario,
  ...LINES.map(({ line }) => cells[line] ?? ''),
  note,
]);
const sessions = markdown(['scenario', ...LINES.map(({ line }) => title(line)), ''], [...rows, ['all checks', ...sums, '']]);
const all = [sessions, modern(), cells()].join('\n');
writeFileSync(report, all);
console.log(all);
for (const complaint of complaints) console.log(`FAILED ${complaint}`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;

function markdown(head, rows) {
  return [head, head.map(() => '---'), ...rows].map(cells => `| ${cells.join(' | ')} |`).join('\n') + '\n';
}

/** The table of 2026-07-28; counts and complains as above. */
function modern() {
  const line = '0.2@2026-07-28';
  const [control, same, older] = ['native', 'modern', 'legacy'].map(subject => read(line, subject));
  const rows = [];
  const sums = { native: 0, same: 0, older: 0 };
  const scored = { native: 0, same: [0, 0], older: [0, 0] }; // checks; checks and scenarios
  for (const [scenario, checks] of control) {
    if (isTasks(scenario)) continue;
    const counts = MODERN.scored(scenario);
    const through = { same: compare(checks, same.get(scenario) ?? []), older: compare(checks, older.get(scenario) ?? []) };
    passed += through.same.passed;
    failed += through.same.lost.length;
    complaints.push(...through.same.lost.map(loss => `${line} modern ${scenario} ${loss}`));
    const why = judge(line, 'legacy', scenario, checks, through.older);
    sums.native += through.same.of;
    if (counts) scored.native += through.same.of;
    for (const column of ['same', 'older']) {
      sums[column] += through[column].passed;
      if (!counts) continue;
      scored[column][0] += through[column].passed;
      scored[column][1] += through[column].lost.length === 0 ? 1 : 0;
    }
    const cell = ({ passed, of }) => `${passed}/${of}${counts ? '' : ' (not scored)'}`;
    rows.push([scenario, cell(through.same), cell(through.older), why.join('; ')]);
  }
  if (sums.native !== MODERN.native) {
    failed += 1;
    complaints.push(`${line} the control passed ${sums.native} checks, not ${MODERN.native}`);
  }
  const scenarios = [...control.keys()].filter(MODERN.scored).length;
  const sum = column =>
    `**${sums[column]}/${sums.native}**, scored ${scored[column][0]}/${scored.native} in ${scored[column][1]}/${scenarios} scenarios`;
  return markdown(
    [`${version(line)}, 2026-07-28`, 'in front of a server of 2026-07-28', 'of 2025-11-25', 'why not more there'],
    [...rows, ['all checks', sum('same'), sum('older'), '']],
  );
}

/** The table of sessions in the cells that are more than a copy; counts and complains as above. */
function cells() {
  const { line, of } = CELLS;
  const scored = LINES.find(one => one.line === line).scored;
  const control = read(line, 'native');
  const found = Object.keys(of).map(subject => [subject, read(line, subject), { passed: 0, scored: 0 }]);
  const sum = { native: 0, scored: 0 };
  const rows = [];
  for (const [scenario, checks] of control) {
    const reasons = new Set();
    const row = [scenario];
    const counts = scored(scenario);
    for (const [subject, here, total] of found) {
      const result = compare(checks, here.get(scenario) ?? []);
      for (const why of judge(line, subject, scenario, checks, result)) reasons.add(why);
      row.push(`${result.passed}/${result.of}${counts ? '' : ' (not scored)'}`);
      total.passed += result.passed;
      if (counts) total.scored += result.passed;
    }
    const native = checks.filter(check => check.status === 'SUCCESS').length;
    sum.native += native;
    if (counts) sum.scored += native;
    rows.push([...row, [...reasons].join('; ')]);
  }
  const sums = found.map(([, , total]) => `**${total.passed}/${sum.native}**, scored ${total.scored}/${sum.scored}`);
  return markdown([title(line), ...Object.values(of), 'why not more there'], [...rows, ['all checks', ...sums, '']]);
}

/** Counts one scenario of a subject against what is out of its reach; the reasons for what it does not pass. */
function judge(line, subject, scenario, checks, { passed: got, lost }) {
  const expected = Object.entries(OUT_OF_REACH[subject]?.[scenario] ?? {});
  const reasons = new Set();
  passed += got;
  for (const [id, { of = passes(checks, id), because }] of expected) {
    const missing = lost.filter(loss => loss.startsWith(`${id}: `)).length;
    reasons.add(because);
    if (missing === of) {
      passed += 1; // as written down
    } else {
      failed += 1;
      complaints.push(`${line} ${subject} ${scenario} ${id}: ${missing} of ${of} checks do not pass, out-of-reach.yaml says all`);
    }
  }
  const unexpected = lost.filter(loss => !expected.some(([id]) => loss.startsWith(`${id}: `)));
  failed += unexpected.length;
  complaints.push(...unexpected.map(loss => `${line} ${subject} ${scenario} ${loss}`));
  return [...reasons];
}
