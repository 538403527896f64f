// Where the page gets what it shows: the paths of the monitor, and the stream, which is opened again whenever it ends. The token stays
// in this tab.

const token = () => sessionStorage.getItem('token');
const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

export const hasToken = () => token() !== null;
export const remember = (text) => sessionStorage.setItem('token', text.trim());
export const forget = () => sessionStorage.removeItem('token');

// What `/api` tells of this Shortstop: its paths, and whether a token is configured.
let index = { paths: [], has_token: false };

export const has = (path) => index.paths.includes(path.split('?')[0]);
export const canChange = () => index.has_token;
export async function learn() {
  index = (await request('GET', '/api')).answer ?? index;
}

// The status and the answer, or the error as a text.
export async function request(method, path, body) {
  try {
    const asked = { method, headers: headers(), cache: 'no-store' };
    if (body !== undefined) asked.body = JSON.stringify(body);
    const given = await fetch(path, asked);
    const answer = await given.json();
    return given.ok ? { status: given.status, answer } : { status: given.status, error: answer.error };
  } catch (error) {
    return { status: 0, error: `Shortstop does not answer (${error.message})` };
  }
}

// What a path gives; null: this Shortstop has no such path, or does not answer.
export const ask = async (path) => (has(path) ? ((await request('GET', path)).answer ?? null) : null);

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// A stream without a sample for so long has died without a word.
const PATIENCE = 5000;

// Calls `sample` for each sample, and `state` with open, closed or locked. EventSource cannot show a token, so this reads the stream
// itself.
export async function follow(sample, state) {
  for (;;) {
    const gone = new AbortController();
    let watch = setTimeout(() => gone.abort(), PATIENCE);
    try {
      const answer = await fetch('/api/stream', { headers: headers(), signal: gone.signal, cache: 'no-store' });
      if (answer.status === 401 || answer.status === 403) {
        clearTimeout(watch);
        await state('locked', (await answer.json()).error);
        continue;
      }
      if (!answer.ok) throw new Error(answer.statusText);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        text += value;
        const events = text.split('\n\n');
        text = events.pop();
        for (const event of events) {
          const data = event.split('\n').filter((line) => line.startsWith('data:')).map((line) => line.slice(5)).join('\n');
          if (!data) continue;
          clearTimeout(watch);
          watch = setTimeout(() => gone.abort(), PATIENCE);
          state('open');
          await sample(JSON.parse(data));
        }
      }
    } catch {
      // Tried again below.
    }
    clearTimeout(watch);
    state('closed');
    await pause(1000);
  }
}
