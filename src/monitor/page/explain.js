// The search for a key: why it is in L1 or not, and what the next GET and SET would do.

import { list, make, place, table } from './dom.js';
import { bytes, bytestring, clock, millis, words } from './format.js';
import { has, request } from './source.js';

export function start() {
  if (!has('/api/explain')) return;
  place('explain').hidden = false;
  place('explain-form').addEventListener('submit', (event) => {
    event.preventDefault();
    explain(place('key').value);
  });
}

// A key of another table, which leads here. Of a key that is no text or not whole only the text is shown.
export function keyLink(key, isWhole = true) {
  if (typeof key !== 'string' || !isWhole || key === '(redacted)') return bytestring(key) + (isWhole ? '' : '…');
  const link = make('button', key, { type: 'button', className: 'link', title: `Why is ${key} cached, or not?` });
  link.addEventListener('click', () => {
    place('key').value = key;
    place('explain').scrollIntoView();
    place('key').focus({ preventScroll: true });
    explain(key);
  });
  return link;
}

async function explain(key) {
  const { answer, error } = await request('GET', `/api/explain?key=${encodeURIComponent(key)}`);
  place('explanation').replaceChildren(...(error ? [make('p', error, { className: 'bad' })] : explanation(answer)));
}

function explanation(known) {
  const [look, head] = known.in_l1 ? ['good', 'L1 answers it now.'] : ['warn', `L1 does not answer it: ${words(known.why_not)}.`];
  const parts = [
    make('p', [make('strong', bytestring(known.key), { className: 'key' }), ' ', make('span', head, { className: look })]),
    ...(known.because ? [make('p', known.because)] : []),
    make('div', [
      make('div', [make('h3', 'The next GET'), make('p', known.next_get), make('h3', 'The next SET'), make('p', known.next_set)]),
      part('Rule', [
        ['pattern', known.rule.match],
        ['place', known.rule.number && `number ${known.rule.number}${known.rule.line ? `, line ${known.rule.line} of the file` : ''}`],
        ...says(known),
      ]),
      part('The value', [
        ['asked of Redis recently', `${known.requests} time${known.requests === 1 ? '' : 's'}`],
        ['age', known.age_ms === null ? null : millis(known.age_ms)],
        ['until its deadline', known.left_ms === null ? null : millis(known.left_ms)],
        ['size for clients', known.size_plain === null ? null : bytes(known.size_plain)],
        ['size in Redis', known.size_stored === null ? null : `${bytes(known.size_stored)}, ${known.codec === 'none' ? 'not compressed' : known.codec}`],
        ['database', String(known.database)],
        ['kept for other users', known.replies_of_other_users ? `${known.replies_of_other_users} replies` : null],
        ['mode', `${known.mode} (${words(known.mode_reason)})`],
        ...departure(known.last_departure),
      ]),
    ], { className: 'parts' }),
  ];
  if (known.replies.length > 0) {
    parts.push(make('h3', 'Replies that L1 keeps'), table('Replies that L1 keeps', [
      ['command', (reply) => reply.command],
      ['age', (reply) => millis(reply.age_ms), 'number'],
      ['until its deadline', (reply) => millis(reply.left_ms), 'number'],
      ['size', (reply) => bytes(reply.bytes), 'number'],
    ], known.replies));
  }
  return parts;
}

const part = (title, pairs) => make('div', [make('h3', title), list(pairs)]);

// What a rule says, as pairs.
export function says({ cache, watch, compress }) {
  return [
    ['caches', cache ? `${cache.reads.join(' ').toUpperCase()}, for ${millis(cache.ttl_ms)}, up to ${bytes(cache.max_value)}, from request ${cache.admit_after} on` : 'nothing'],
    ['absent keys', cache?.negative_ttl_ms ? `for ${millis(cache.negative_ttl_ms)}` : null],
    ['compresses', compress ? `${compress.codec} ${compress.level}, from ${bytes(compress.min_size)} on, if it saves ${compress.min_saving_percent} %` : 'nothing'],
    ['tells the fleet of writes', watch === null ? null : watch ? 'yes' : 'no'],
  ];
}

function departure(gone) {
  if (!gone) return [];
  const by = gone.by ? `, by ${gone.by}` : '';
  return [['last left L1', `${clock(gone.at)}, ${words(gone.why)}${by}${gone.over ? `, over ${gone.over}` : ''}`]];
}
