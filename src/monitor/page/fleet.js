// The fleet: all of its instances together and each, and what differs in their settings.

import { list, make, place, quiet, redraw, table } from './dom.js';
import { bytes, count, duration, millis, percent, span, words } from './format.js';
import { ask } from './source.js';

const LOOKS = { live: 'good', single: 'good', degraded: 'warn', off: 'bad' };

export async function fleet() {
  const known = await ask('/api/fleet');
  place('fleet').hidden = !known;
  if (known) redraw(place('fleet-table'), known, draw);
}

function draw({ note, instances, together, differs }) {
  const parts = [];
  if (note) parts.push(quiet(note));
  const missing = [[together.instances_lost, 'lost'], [together.instances_unheard, 'connected to Redis and not heard on NATS']];
  parts.push(list([
    ['instances', make('span', [String(together.instances), ...missing.filter(([number]) => number).map(([number, what]) => make('span', `, ${number} ${what}`, { className: 'bad' }))])],
    ['hit rate of all', percent(together.hit_rate)],
    ['requests a second', count(together.requests_per_second)],
    ['clients', count(together.clients)],
    ['L1', `${bytes(together.l1_bytes)}, ${count(together.l1_entries)} entries`],
    ['alerts that fire', String(together.alerts_firing)],
  ]));
  parts.push(table('Instances of the fleet', COLUMNS, instances), ...differences(differs, instances));
  return parts;
}

const COLUMNS = [
  ['instance', (one) => make('span', [`${one.host} ${one.address}`, make('small', one.is_self ? ' this one' : '')], { title: one.instance })],
  ['state', state],
  ['hit rate', (one) => percent(one.hit_rate), 'number'],
  ['requests / s', (one) => count(one.requests_per_second), 'number'],
  ['clients', (one) => count(one.clients), 'number'],
  ['L1', (one) => `${bytes(one.l1_bytes)} of ${bytes(one.l1_max_bytes)}`, 'number'],
  ['NATS round trip', (one) => one.nats_round_trip_usec && duration(one.nats_round_trip_usec), 'number'],
  ['lost messages', (one) => count(one.gaps + one.invalidations_dropped), 'number'],
  ['alerts', (one) => (one.alerts.length ? make('span', one.alerts.map(words).join(', '), { className: 'bad' }) : 'none')],
  ['up', (one) => make('span', [span(one.uptime_seconds), make('small', ` ${one.version}`)])],
];

function state(one) {
  if (one.is_lost) return make('span', `lost for ${millis(one.last_heard_ms)}`, { className: 'bad' });
  const why = LOOKS[one.mode] === 'good' ? '' : ` (${words(one.mode_reason)})`;
  return make('span', one.mode + why, { className: LOOKS[one.mode] ?? 'warn' });
}

function differences(differs, instances) {
  if (instances.length < 2) return [];
  if (differs.length === 0) return [quiet('The settings that should be the same in all instances are.')];
  const name = (id) => {
    const one = instances.find((other) => other.instance === id);
    return one ? `${one.host} ${one.address}` : id;
  };
  const line = ({ setting, groups }) => make('li', [make('code', setting), ': ', groups.map((group) => group.map(name).join(', ')).join(' ≠ ')]);
  return [make('h3', 'Settings that should be the same and are not', { className: 'warn' }), make('ul', differs.map(line))];
}
