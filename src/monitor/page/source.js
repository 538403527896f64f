// Where the page gets what it shows: the paths of the monitor, and the stream, which is opened again whenever it ends. The token stays
// in this tab.

const token = () => sessionStorage.getItem('token');
const headers = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

export const remember = (text) => sessionStorage.setItem('token', text.trim());

// Paths that this Shortstop does not have. Another process may have them.
const missing = new Set();
export const forget = () => missing.clear();

// What a path gives; null: this Shortstop has no such path, or does not answer.
export async function ask(path) {
  const [name] = path.split('?');
  if (missing.has(name)) return null;
  try {
    const answer = await fetch(path, { headers: headers(), cache: 'no-store' });
    if (answer.status === 404) missing.add(name);
    if (!answer.ok) return null;
    return await answer.json();
  } catch {
    return null;
  }
}

// The same, and why not.
export async function askOrWhy(path) {
  try {
    const answer = await fetch(path, { headers: headers(), cache: 'no-store' });
    return await answer.json();
  } catch (error) {
    return { error: String(error) };
  }
}

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
        await state('locked');
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
          sample(JSON.parse(data));
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
