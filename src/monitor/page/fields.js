// All fields of INFO, with what they mean.

import { make, place, show } from './dom.js';
import { field } from './format.js';
import { ask } from './source.js';

let cells = new Map();

export async function start() {
  const fields = (await ask('/api/fields')) ?? [];
  cells = new Map();
  const sections = [...new Set(fields.map((each) => each.section))];
  place('all').replaceChildren(...sections.map((section) => {
    const rows = fields.filter((each) => each.section === section).map(({ name, unit, help }) => {
      const cell = make('td');
      cells.set(`${section}/${name}`, { cell, unit });
      return searched(make('tr', [make('th', name, { scope: 'row' }), cell, make('td', help)]), `${section} ${name} ${help}`);
    });
    const head = make('thead', make('tr', ['field', 'value', 'meaning'].map((title) => make('th', title, { scope: 'col' }))));
    return make('details', [make('summary', section), make('table', [head, make('tbody', rows)])]);
  }));
  place('filter').addEventListener('input', (event) => filter(event.target.value));
}

// A row that a search finds by these words.
export function searched(row, words) {
  row.dataset.words = words.toLowerCase();
  return row;
}

// Shows the rows that have these words.
export function search(rows, words) {
  for (const row of rows) row.hidden = !row.dataset.words.includes(words.trim().toLowerCase());
}

function filter(words) {
  for (const part of place('all').querySelectorAll('details')) {
    const rows = [...part.querySelectorAll('tbody tr')];
    search(rows, words);
    part.hidden = rows.every((row) => row.hidden);
    part.open = words.trim() !== '' && !part.hidden;
  }
}

export function fields(info) {
  for (const [name, { cell, unit }] of cells) {
    const [section, key] = name.split('/');
    show(cell, field(info[section]?.[key], unit));
  }
}
