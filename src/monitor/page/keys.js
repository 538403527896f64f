// Hot keys, the largest values, and the rules that decide about them.

import { make, place, quiet, redraw, table } from './dom.js';
import { keyLink, says } from './explain.js';
import { bytes, clock, count, duration, percent, words } from './format.js';
import { ask } from './source.js';

const rule = (key) => key.rule && `${key.rule.match}${key.rule.line ? ` (line ${key.rule.line})` : ''}`;
const inL1 = (key) => (key.in_l1 === null ? null : key.in_l1 ? 'yes' : `no: ${words(key.why_not)}`);

export async function keys() {
  const [hot, big, known] = await Promise.all([ask('/api/hotkeys?n=10'), ask('/api/bigkeys?n=10'), ask('/api/rules')]);
  place('hot').hidden = !hot;
  place('big').hidden = !big;
  place('rules').hidden = !known;
  if (hot) redraw(place('hot-keys'), hot.keys, hotKeys);
  if (big) redraw(place('big-keys'), big.keys, bigKeys);
  if (known) redraw(place('rules-table'), known, rules);
}

function hotKeys(keys) {
  if (keys.length === 0) return quiet('No key was requested lately.');
  return table('Hot keys', [
    ['key', (key) => keyLink(key.key, key.is_whole), 'key'],
    ['requests / s', (key) => count(key.requests_per_second), 'number'],
    ['share', (key) => percent(key.share), 'number'],
    ['hits / s', (key) => count(key.hits_per_second), 'number'],
    ['in L1', inL1],
    ['size', (key) => key.size && bytes(key.size), 'number'],
    ['rule', rule],
    ['database', (key) => key.database || null],
  ], keys);
}

function bigKeys(keys) {
  if (keys.length === 0) return quiet('No value has passed.');
  return table('Largest values', [
    ['key', (key) => keyLink(key.key, key.is_whole), 'key'],
    ['size', (key) => bytes(key.bytes), 'number'],
    ['seen', (key) => `${key.seen === 'write' ? 'written' : 'read'} ${clock(key.seen_at)}`],
    ['in L1', inL1],
    ['rule', rule],
    ['database', (key) => key.database || null],
  ], keys);
}

function rules(known) {
  return table('Rules', [
    ['', (rule) => rule.number ?? null, 'number'],
    ['pattern', (rule) => make('span', [rule.match, make('small', rule.line ? ` line ${rule.line}` : '')]), 'key'],
    ['requests', (rule) => count(rule.requests), 'number'],
    ['hits', (rule) => count(rule.hits), 'number'],
    ['misses', (rule) => count(rule.misses), 'number'],
    ['hit rate', (rule) => percent(rule.hit_rate), 'number'],
    ['writes', (rule) => count(rule.writes), 'number'],
    ['compressed', (rule) => count(rule.compressed_values), 'number'],
    ['bytes saved', (rule) => bytes(rule.compression_saved_bytes), 'number'],
    ['saved in Redis now', (rule) => (rule.stored ? bytes(rule.stored.saved_bytes) : null), 'number'],
    ['time to compress', (rule) => duration(rule.compression_usec), 'number'],
    ['what it says', (rule) => says(rule).filter(([, text]) => text).map(([name, text]) => `${name}: ${text}`).join('; '), 'says'],
  ], known);
}
