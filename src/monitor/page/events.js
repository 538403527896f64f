// What has happened, and which requests were slow.

import { make, place, quiet, redraw, table } from './dom.js';
import { bytestring, clock, count, duration, millis, words } from './format.js';
import { ask } from './source.js';

export async function events() {
  const [known, slow] = await Promise.all([ask('/api/events?n=100'), ask('/api/slowlog?n=20')]);
  place('events').hidden = !known;
  place('slow').hidden = !slow;
  if (known) redraw(place('events-table'), known, happened);
  if (slow) redraw(place('slow-table'), slow, slowRequests);
}

function happened(list) {
  if (list.length === 0) return quiet('Nothing has changed so far.');
  const many = (event) => (event.count > 1 ? ` (${event.count} times within ${millis(event.span_ms)})` : '');
  return table('Events', [
    ['time', (event) => make('time', clock(event.time), { dateTime: event.time })],
    ['event', (event) => words(event.event)],
    ['why', (event) => `${event.why || words(event.reason)}${many(event)}`, 'wrap'],
    ['the former state lasted', (event) => (event.lasted_ms === null ? null : millis(event.lasted_ms)), 'number'],
  ], list);
}

function slowRequests(list) {
  if (list.length === 0) return quiet('No request was slow, or slowlog.max_len is 0, and none is kept.');
  return table('Slow requests', [
    ['time', (request) => clock(request.time)],
    ['took', (request) => duration(request.took_usec), 'number'],
    ['of it in Redis', (request) => duration(request.upstream_usec), 'number'],
    ['here', (request) => duration(request.here_usec), 'number'],
    ['request', (request) => call(request.command), 'key'],
    ['client', (request) => [request.address, bytestring(request.name)].filter(Boolean).join(' ') || null],
  ], list);
}

// The beginning of a call is enough to know it.
function call(words) {
  const text = words.map(bytestring).join(' ');
  return text.length > 120 ? `${text.slice(0, 120)}… (${count(words.length)} words)` : text;
}
