// What stands above the fold: is it right, is it fast, what does it save. A rate is that of the last ten seconds.

import { bytes, count, duration, percent, span } from './format.js';

const place = (id) => document.getElementById(id);

function show(id, text, look) {
  const element = place(id);
  if (element.textContent !== text) element.textContent = text;
  if (look !== undefined) for (const name of ['good', 'warn', 'bad']) element.classList.toggle(name, name === look);
}

// What each mode means to somebody who has never read of it.
const MODES = {
  live: ['good', 'Reads from memory are kept up to date by the writes of the whole fleet.'],
  single: ['good', 'Reads from memory are right as long as all writes go through this one Shortstop.'],
  degraded: ['warn', 'NATS is in doubt. Reads from memory may be a little old, within the bound you have set.'],
  off: ['bad', 'Nothing is served from memory. Redis answers every read.'],
};

// What happened between two samples, each second.
export function rates(earlier, later) {
  const seconds = (later.at_ms - earlier.at_ms) / 1000;
  const rate = (section, name) => Math.max(0, (later.info[section][name] - earlier.info[section][name]) / seconds);
  const hits = rate('L1', 'l1_hits');
  const misses = rate('L1', 'l1_misses');
  return {
    hits_per_second: hits,
    misses_per_second: misses,
    commands_per_second: rate('ProxyClients', 'proxy_commands'),
    hit_rate: hits + misses > 0 ? hits / (hits + misses) : null,
  };
}

export function summary(samples, alerts) {
  const now = samples.at(-1);
  const info = now.info;
  const began = samples.find((sample) => sample.at_ms >= now.at_ms - 10_500) ?? now;
  const rate = began === now ? null : rates(began, now);

  const mode = info.Coherence.mode;
  const [look, says] = MODES[mode] ?? ['warn', ''];
  const isChosen = info.Coherence.mode_reason === 'switched_off';
  show('mode', mode, isChosen ? 'warn' : look);
  show('mode-says', `${says} (${info.Coherence.mode_reason.replaceAll('_', ' ')})`);
  show('mode-since', span(now.at_ms / 1000 - info.Coherence.mode_since));
  const up = info.Upstream.upstream_up === 1;
  show('redis', up ? 'up' : `down: ${info.Upstream.upstream_last_error}`, up ? 'good' : 'bad');
  const firing = alerts?.length ?? null;
  show('alert-count', firing === null ? 'not known' : firing === 0 ? 'none' : String(firing), firing ? 'bad' : firing === 0 ? 'good' : '');

  show('hit-rate', percent(rate?.hit_rate));
  show('hit-rate-all', info.L1.l1_hits + info.L1.l1_misses > 0 ? percent(info.L1.hit_rate) : '–');
  for (const which of ['hit', 'miss']) {
    for (const quantile of ['p50', 'p99']) show(`${which}-${quantile}`, duration(info.Latency[`${which}_${quantile}_usec_1m`]));
  }

  show('saved-now', count(rate?.hits_per_second));
  show('saved-all', count(info.L1.l1_hits));
  show('saved-bytes', bytes(info.Compression.compression_saved_bytes));
  show('l1-bytes', `${bytes(info.L1.l1_bytes)} of ${bytes(info.L1.l1_max_bytes)}`);
  show('commands', `${count(rate?.commands_per_second)} a second`);

  const proxy = info.Proxy;
  show('who', `${proxy.shortstop_version} · fleet ${proxy.fleet} · up ${span(proxy.proxy_uptime_in_seconds)} · ${proxy.upstream}`);
  welcome(info);
}

// A first visitor sees what to type.
function welcome(info) {
  place('welcome').hidden = info.L1.l1_hits + info.L1.l1_misses > 0;
  const address = String(info.Proxy.listen).split(' ').find((word) => !word.includes('://')) ?? '127.0.0.1:6380';
  const [, host, port] = address.replace(/,$/, '').match(/^(.*):(\d+)$/) ?? [null, '127.0.0.1', '6380'];
  const isAny = ['0.0.0.0', '[::]'].includes(host);
  const name = isAny ? location.hostname : host;
  const where = ['127.0.0.1', 'localhost', '[::1]'].includes(name) ? `-p ${port}` : `-h ${name} -p ${port}`;
  const lines = ['SET hello world', 'GET hello', 'GET hello', 'GET hello'].map((line) => `redis-cli ${where} ${line}`);
  show('try', lines.join('\n'));
}

// Alerts that fire, each as a line. A screen reader hears only what is new.
export function showAlerts(alerts) {
  const box = place('alerts');
  const wanted = new Map((alerts ?? []).map((alert) => [alert.name, alert]));
  for (const line of [...box.children]) if (!wanted.has(line.dataset.name)) line.remove();
  for (const [name, alert] of wanted) {
    let line = [...box.children].find((child) => child.dataset.name === name);
    if (!line) {
      line = document.createElement('p');
      line.className = 'alert';
      line.dataset.name = name;
      box.append(line);
    }
    const title = document.createElement('strong');
    title.textContent = name.replaceAll('_', ' ');
    const text = ` ${alert.why ?? alert.help ?? alert.summary ?? ''}`;
    if (line.textContent !== title.textContent + text) line.replaceChildren(title, text);
  }
}
