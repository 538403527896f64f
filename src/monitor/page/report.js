// The last day in a table: current, average, best and worst.

import { make, place, redraw, table } from './dom.js';
import { bytes, count, duration, percent } from './format.js';
import { ask } from './source.js';

const FIGURES = [
  ['hit_rate', 'hit rate', percent],
  ['response_time_usec', 'response time of reads, mean', duration],
  ['hit_p99_usec', 'reads from memory, 99 %', duration],
  ['miss_p99_usec', 'reads from Redis, 99 %', duration],
  ['error_rate', 'requests that fail', percent],
  ['commands_per_second', 'requests a second', count],
  ['proxy_clients', 'clients', count],
  ['l1_bytes', 'memory of L1', bytes],
  ['proxy_memory_bytes', 'memory of Shortstop', bytes],
  ['upstream_used_memory_bytes', 'memory of Redis', bytes],
];

// It reads a day of samples, so it is asked for less often than the rest.
const EVERY_MS = 60_000;
let asked = 0;

export async function report() {
  if (Date.now() - asked < EVERY_MS) return;
  asked = Date.now();
  const known = await ask('/api/report?hours=24');
  place('report').hidden = !known?.samples;
  if (known?.samples) redraw(place('report-table'), known, draw);
  else asked = 0;
}

function draw(known) {
  const rows = FIGURES.map(([name, title, format]) => [title, ...['current', 'average', 'best', 'worst'].map((which) => format(known[name][which]))]);
  const column = (title, i) => [title, (row) => row[i], i > 0 ? 'number' : ''];
  const totals = `${count(known.round_trips_saved)} round trips and ${bytes(known.compression_saved_bytes)} were saved.`;
  return [table('The last 24 hours', ['', 'now', 'average', 'best', 'worst'].map(column), rows), make('p', totals)];
}
