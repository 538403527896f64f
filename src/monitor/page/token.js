// Asks for the token: once, when it is needed. Who gives none changes nothing.

import { place } from './dom.js';
import { canChange, forget, hasToken, learn, remember, request } from './source.js';

// Whether a token was given.
export function askToken(why) {
  const dialog = place('login');
  place('login-why').textContent = why;
  place('token').value = '';
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener('close', () => {
      const isGiven = dialog.returnValue === 'given' && place('token').value.trim() !== '';
      if (isGiven) remember(place('token').value);
      place('token').value = '';
      done(isGiven);
    }, { once: true });
  });
}

const NEEDED = 'Changes need the token of the monitor (monitor_token). It stays in this tab.';

// Asks the monitor for a change. A token that is refused is asked for again.
export async function change(method, path, body) {
  if (!canChange()) await learn();
  if (!canChange()) {
    const ways = 'Set monitor_token, monitor_token_file or SHORTSTOP_MONITOR_TOKEN, and give Shortstop a SIGHUP or start it again.';
    return { status: 403, error: `Nothing can be changed from here: no token is configured. ${ways}` };
  }
  let why = NEEDED;
  for (;;) {
    if (!hasToken() && !(await askToken(why))) return { status: 401, error: 'Nothing was changed: there was no token.' };
    const done = await request(method, path, body);
    if (done.status !== 401) return done;
    forget();
    why = 'The monitor has refused this token. Type it again.';
  }
}
