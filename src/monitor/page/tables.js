// Tables: all fields of INFO with what they mean, and the lists of other paths, each only if this Shortstop has its path.

import { ask, askOrWhy } from './source.js';
import { field } from './format.js';

const make = (name, text, more = {}) => Object.assign(document.createElement(name), text === undefined ? {} : { textContent: text }, more);

function table(head, rows) {
  const out = make('table');
  const line = make('tr');
  for (const title of head) line.append(make('th', title, { scope: 'col' }));
  const body = make('tbody');
  body.append(...rows);
  const top = make('thead');
  top.append(line);
  out.append(top, body);
  return out;
}

// All fields of INFO.
let cells = new Map();

export async function startAll() {
  const fields = (await ask('/api/fields')) ?? [];
  const box = document.getElementById('all');
  cells = new Map();
  box.replaceChildren();
  for (const section of new Set(fields.map((each) => each.section))) {
    const rows = fields.filter((each) => each.section === section).map(({ name, unit, help }) => {
      const row = make('tr');
      const cell = make('td');
      row.append(make('th', name, { scope: 'row' }), cell, make('td', help));
      row.dataset.words = `${section} ${name} ${help}`.toLowerCase();
      cells.set(`${section}/${name}`, { cell, unit });
      return row;
    });
    const part = make('details', undefined, { open: false });
    part.append(make('summary', section), table(['field', 'value', 'meaning'], rows));
    box.append(part);
  }
  document.getElementById('filter').addEventListener('input', (event) => filter(event.target.value.trim().toLowerCase()));
}

function filter(words) {
  for (const part of document.querySelectorAll('#all details')) {
    const rows = [...part.querySelectorAll('tbody tr')];
    for (const row of rows) row.hidden = !row.dataset.words.includes(words);
    part.hidden = rows.every((row) => row.hidden);
    part.open = words !== '' && !part.hidden;
  }
}

export function all(info) {
  for (const [name, { cell, unit }] of cells) {
    const [section, key] = name.split('/');
    const text = field(info[section]?.[key], unit);
    if (cell.textContent !== text) cell.textContent = text;
  }
}

// Lists of other paths: the title, the path, and what an empty one means.
const LISTS = [
  ['Hot keys', '/api/hotkeys', 'No key is hot.'],
  ['Rules', '/api/rules', 'There are no rules; the defaults hold for every key.'],
  ['Events', '/api/events', 'Nothing has changed so far.'],
  ['Slow requests', '/api/slowlog', 'No request was slow.'],
  ['Fleet', '/api/fleet', 'There is only this instance.'],
];

// A value of a list, by the ending of its name.
function show(name, value) {
  if (name.endsWith('_usec')) return field(value, 'microseconds');
  if (name.endsWith('_ms')) return field(value, 'milliseconds');
  if (name.endsWith('bytes')) return field(value, 'bytes');
  if (name.includes('share') || name.endsWith('rate')) return typeof value === 'number' ? `${(value * 100).toFixed(1)} %` : field(value);
  if (Array.isArray(value)) return value.map((each) => show('', each)).join(' ');
  if (value && typeof value === 'object' && typeof value.base64 === 'string') return `base64:${value.base64}`;
  return field(value);
}

// The rows of an answer: a list, or an object with one list in it.
const rowsOf = (answer) => (Array.isArray(answer) ? answer : Object.values(answer ?? {}).find(Array.isArray));

export async function lists() {
  const box = document.getElementById('tables');
  for (const [title, path, empty] of LISTS) {
    const rows = rowsOf(await ask(path));
    let part = [...box.children].find((child) => child.dataset.path === path);
    if (!rows) {
      part?.remove();
      continue;
    }
    if (!part) {
      part = make('section');
      part.dataset.path = path;
      part.setAttribute('aria-label', title);
      box.append(part);
    }
    const content = make('div', undefined, { className: 'scroll' });
    if (rows.length === 0) content.append(make('p', empty, { className: 'quiet' }));
    else if (typeof rows[0] !== 'object') content.append(make('p', rows.join(', ')));
    else {
      const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
      content.append(table(names.map((name) => name.replaceAll('_', ' ')), rows.map((row) => {
        const line = make('tr');
        for (const name of names) line.append(make('td', show(name, row[name])));
        return line;
      })));
    }
    part.replaceChildren(make('h2', title), content);
  }
}

// The search for a key. An answer without a key would be an error, so the path is there if it is not "no such path".
export async function startExplain() {
  const probe = await askOrWhy('/api/explain?key=');
  if (probe.error?.startsWith('there is no such path')) return;
  document.getElementById('explain').hidden = false;
  document.getElementById('explain-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const key = document.getElementById('key').value;
    const answer = await askOrWhy(`/api/explain?key=${encodeURIComponent(key)}`);
    const box = document.getElementById('explanation');
    if (answer.error) {
      box.replaceChildren(make('p', answer.error, { className: 'bad' }));
      return;
    }
    const list = make('dl');
    flat(answer).forEach(([name, text]) => {
      const line = make('div');
      line.append(make('dt', name.replaceAll('_', ' ')), make('dd', text));
      list.append(line);
    });
    box.replaceChildren(list);
  });
}

function flat(object, before = '') {
  return Object.entries(object).flatMap(([name, value]) =>
    value && typeof value === 'object' && !Array.isArray(value) && !value.base64
      ? flat(value, `${before}${name} `)
      : [[before + name, show(name, value)]]);
}
