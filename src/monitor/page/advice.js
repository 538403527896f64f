// What should be changed, from measurements: the lines to paste, and which size of L1 gives which hit rate.

import { make, place, quiet, redraw, table } from './dom.js';
import { bytes, count, percent } from './format.js';
import { ask } from './source.js';

export async function advice() {
  const known = await ask('/api/advice');
  place('advice').hidden = !known;
  if (known) redraw(place('advice-list'), known, draw);
}

function draw({ advice: list, curve, observed, not_yet: missing }) {
  const one = ({ what, why, lines }) => make('li', [make('strong', what), make('p', why), ...(lines ? [make('pre', lines)] : [])]);
  const parts = [list.length ? make('ul', list.map(one)) : quiet('Nothing should be changed, as far as it was measured.')];
  if (curve?.sizes.length) {
    parts.push(make('h3', 'Hit rate by the size of L1'), table('Hit rate by the size of L1', [
      ['L1', (size) => `${bytes(size.max_memory)}, ${count(size.max_entries)} entries`],
      ['hit rate', (size) => `${percent(size.hit_rate)} ± ${percent(size.error)}`, 'number'],
      ['', (size) => (size.is_configured ? 'as configured' : '')],
    ], curve.sizes), quiet(`Estimated from one of ${count(curve.one_in)} keys, of ${count(curve.reads)} reads.`));
  }
  if (observed?.length) {
    parts.push(make('h3', 'What rules would do that only observe'), table('What rules would do that only observe', [
      ['rule', (rule) => rule.match, 'key'],
      ['reads', (rule) => count(rule.reads), 'number'],
      ['from memory', (rule) => count(rule.hits), 'number'],
      ['hit rate', (rule) => percent(rule.hit_rate), 'number'],
      ['memory', (rule) => bytes(rule.bytes), 'number'],
      ['could be compressed', (rule) => bytes(rule.compressible_bytes), 'number'],
      ['would save', (rule) => bytes(rule.saved_bytes), 'number'],
    ], observed));
  }
  return [...parts, ...(missing ?? []).map(quiet)];
}
