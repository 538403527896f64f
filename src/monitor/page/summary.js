// What stands above the fold: is it right, is it fast, what does it save. A rate is that of the last ten seconds.

import { place, show } from './dom.js';
import { bytes, clock, count, duration, percent, span, words } from './format.js';

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
  const rate = (read) => Math.max(0, (read(later.info) - read(earlier.info)) / seconds);
  const hits = rate((info) => info.L1.l1_hits);
  const misses = rate((info) => info.L1.l1_misses);
  const errors = (info) => info.ProxyClients.proxy_errors.upstream + info.ProxyClients.proxy_errors.us;
  return {
    hits_per_second: hits,
    misses_per_second: misses,
    commands_per_second: rate((info) => info.ProxyClients.proxy_commands),
    errors_per_second: rate(errors),
    hit_rate: hits + misses > 0 ? hits / (hits + misses) : null,
  };
}

const put = (id, text, look) => show(place(id), text, look);

export function summary(samples) {
  const now = samples.at(-1);
  const info = now.info;
  const began = samples.find((sample) => sample.at_ms >= now.at_ms - 10_500) ?? now;
  const rate = began === now ? null : rates(began, now);

  const { mode, mode_reason: reason, mode_since: since } = info.Coherence;
  const [look, says] = MODES[mode] ?? ['warn', ''];
  put('mode', mode, reason === 'switched_off' ? 'warn' : look);
  put('mode-says', `${says} (${words(reason)})`);
  put('mode-since', `${clock(since)}, for ${span(now.at_ms / 1000 - since)}`);
  const up = info.Upstream.upstream_up === 1;
  put('redis', up ? 'up' : `down: ${info.Upstream.upstream_last_error}`, up ? 'good' : 'bad');
  const { nats_configured: wanted, nats_connected: connected, peers, peers_lost: lost } = info.Invalidation;
  const others = `${count(peers)} other${peers === 1 ? '' : 's'} heard${lost ? `, ${lost} lost` : ''}`;
  put('nats', wanted ? (connected ? `connected, ${others}` : 'not connected') : 'not used', wanted ? (connected && !lost ? 'good' : 'bad') : '');

  put('hit-rate', percent(rate?.hit_rate));
  put('hit-rate-all', info.L1.l1_hits + info.L1.l1_misses > 0 ? percent(info.L1.hit_rate) : '–');
  for (const which of ['hit', 'miss']) {
    for (const quantile of ['p50', 'p99']) put(`${which}-${quantile}`, duration(info.Latency[`${which}_${quantile}_usec_1m`]));
  }

  put('saved-now', count(rate?.hits_per_second));
  put('saved-all', count(info.L1.l1_hits));
  put('saved-bytes', bytes(info.Compression.compression_saved_bytes));
  put('l1-bytes', `${bytes(info.L1.l1_bytes)} of ${bytes(info.L1.l1_max_bytes)}`);
  put('commands', `${count(rate?.commands_per_second)} a second`);
  put('clients', count(info.ProxyClients.proxy_clients));

  const proxy = info.Proxy;
  put('who', `${proxy.shortstop_version} · fleet ${proxy.fleet} · up ${span(proxy.proxy_uptime_in_seconds)} · ${proxy.upstream}`);
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
  put('try', lines.join('\n'));
}
