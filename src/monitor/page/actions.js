// What may be changed from here, behind the token: drop keys from L1, read them into it, change settings.

import { button, list, make, place, redraw, show } from './dom.js';
import { search, searched } from './fields.js';
import { bytestring, count, millis, words } from './format.js';
import { ask, has } from './source.js';
import { change } from './token.js';

// Asks for a change and shows what came of it.
async function act(where, method, path, body, tell) {
  const { answer, error } = await change(method, path, body);
  show(place(where), error ?? tell(answer), error ? 'bad' : 'good');
  return error === undefined;
}

// What a form does, without leaving the page.
function onSubmit(id, does) {
  place(id).addEventListener('submit', async (event) => {
    event.preventDefault();
    const pressed = event.target.querySelector('button');
    pressed.disabled = true;
    await does();
    pressed.disabled = false;
  });
}

export function start() {
  startFlush();
  startWarm();
  startSettings();
}

function startFlush() {
  if (!has('/api/flush')) return;
  place('flush').hidden = false;
  onSubmit('flush', () => {
    const pattern = place('flush-pattern').value.trim();
    const fleet = place('flush-fleet').checked;
    const query = new URLSearchParams({ ...(pattern ? { pattern } : {}), ...(fleet ? { fleet: 'true' } : {}) });
    if (fleet && !pattern && !window.confirm('Drop everything from L1 in the whole fleet?')) return undefined;
    const what = pattern ? `What matches ${pattern}` : 'Everything';
    return act('flush-done', 'POST', `/api/flush?${query}`, undefined, () => `${what} was dropped from L1${fleet ? ' in the whole fleet' : ''}.`);
  });
}

const WARM = '/api/warm';

function startWarm() {
  if (!has(WARM)) return;
  place('warm').hidden = false;
  onSubmit('warm', async () => {
    const number = place('warm-count').value.trim();
    const query = new URLSearchParams({ pattern: place('warm-pattern').value.trim(), ...(number ? { count: number } : {}) });
    await act('warm-done', 'POST', `${WARM}?${query}`, undefined, () => '');
    await warmth();
  });
  place('warm').querySelector('.line').append(button('Stop', async () => {
    await act('warm-done', 'DELETE', WARM, undefined, () => '');
    await warmth();
  }));
}

// How far the warm-up is.
async function warmth() {
  const known = await ask(WARM);
  if (!known || known.state === 'none') return;
  const { state, why, pattern, took_ms: took, scanned, read, refused } = known;
  const what = pattern === null ? 'hot keys of the other instances' : bytestring(pattern);
  const numbers = `${count(scanned)} keys scanned, ${count(read)} read, ${count(refused)} refused, in ${millis(took)}`;
  show(place('warm-state'), `${what}: ${words(state)}${why ? ` (${why})` : ''}; ${numbers}`);
}

function startSettings() {
  if (!has('/api/config')) return;
  place('settings').hidden = false;
  onSubmit('setting', async () => {
    const [key, value] = [place('setting-key').value.trim(), place('setting-value').value];
    if (await told('PATCH', '/api/config', { [key]: value })) await settings();
  });
  place('settings-filter').addEventListener('input', (event) => search(place('settings-table').querySelectorAll('tbody tr'), event.target.value));
  place('settings-buttons').append(
    button('Read the file again', async () => {
      if (await told('POST', '/api/config/reload')) await settings();
    }),
    button('Write changes into the file', () => act('settings-done', 'POST', '/api/config/rewrite', undefined, ({ written }) => (written.length ? `Written: ${written.join(', ')}` : 'The file says the same already.'))),
  );
}

// A change of settings, and what came of it.
async function told(method, path, body) {
  place('settings-answer').replaceChildren();
  return act('settings-done', method, path, body, ({ changed, l1_emptied: isEmptied, waits_for_restart: waiting, warnings }) => {
    place('settings-answer').replaceChildren(list([
      ...changed.map((line) => ['changed', line]),
      ['L1', isEmptied ? 'has started again, empty' : null],
      ...waiting.map(({ key, why }) => ['waits for a restart', `${key}: ${why}`]),
      ...warnings.map((warning) => ['warning', warning]),
    ]));
    return changed.length + waiting.length > 0 ? 'Done. It holds until the file is read again; write it into the file to keep it.' : 'Nothing differs from before.';
  });
}

async function settings() {
  const known = await ask('/api/config');
  if (known) redraw(place('settings-table'), known, settingsTable);
}

function settingsTable(known) {
  place('setting-keys').replaceChildren(...Object.keys(known).map((key) => make('option', undefined, { value: key })));
  const rows = Object.entries(known).map(([key, value]) => {
    const edit = make('button', 'Change', { type: 'button', className: 'link' });
    edit.setAttribute('aria-label', `Change ${key}`);
    edit.addEventListener('click', () => {
      place('setting-key').value = key;
      place('setting-value').value = value === '***' ? '' : value;
      place('setting').scrollIntoView({ block: 'center' });
      place('setting-value').focus({ preventScroll: true });
    });
    return searched(make('tr', [make('th', key, { scope: 'row' }), make('td', value || '(empty)'), make('td', edit)]), `${key} ${value}`);
  });
  search(rows, place('settings-filter').value);
  const head = make('thead', make('tr', ['setting', 'value', ''].map((title) => make('th', title, { scope: 'col' }))));
  return make('table', [head, make('tbody', rows)]);
}

// What is asked for now and then.
export const actions = () => Promise.all([settings(), warmth()]);
