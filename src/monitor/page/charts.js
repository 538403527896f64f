// Charts: the last minutes live from the samples that the page has kept, longer times from /api/history. Both have the same names.

import { make, place, show } from './dom.js';
import { bytes, clock, count, duration, percent } from './format.js';
import { ask } from './source.js';
import { rates } from './summary.js';

// The name and the length in seconds. The first is live.
const RANGES = [['5 min, live', 300], ['15 min', 900], ['1 h', 3600], ['6 h', 21600], ['24 h', 86400], ['7 d', 604800]];
const LIVE = RANGES[0][1];

// The samples of the stream that are kept.
export const KEPT_MS = LIVE * 1000;

// How often history is asked for: it has a new sample every ten seconds.
const EVERY_MS = 10_000;

const HEIGHT = 190;

const CHARTS = [
  { title: 'Hit rate', format: percent, range: [0, 1], lines: [['hit_rate', 'hit rate', 'one']] },
  { title: 'Latency', format: duration, log: true, lines: [['hit_p50_usec', 'memory, median', 'one'], ['hit_p99_usec', 'memory, 99 %', 'three'], ['miss_p50_usec', 'Redis, median', 'two'], ['miss_p99_usec', 'Redis, 99 %', 'four']] },
  { title: 'Reads a second', format: count, lines: [['hits_per_second', 'from memory', 'one'], ['misses_per_second', 'from Redis', 'two']] },
  { title: 'Requests and errors a second', format: count, lines: [['commands_per_second', 'requests', 'one'], ['errors_per_second', 'errors of Redis or Shortstop', 'four']] },
  { title: 'Memory', format: bytes, lines: [['l1_bytes', 'L1', 'one'], ['buffers_bytes', 'buffers of clients', 'two'], ['proxy_memory_bytes', 'Shortstop', 'three'], ['upstream_used_memory_bytes', 'Redis', 'four']] },
  { title: 'Clients and alerts', format: count, lines: [['proxy_clients', 'clients', 'one'], ['alerts_firing', 'alerts that fire', 'four']] },
];
const NAMES = CHARTS.flatMap((chart) => chart.lines.map(([name]) => name));

let range = 900;
let plots = [];
let fetched = 0;

// The samples as history gives them.
function columns(samples) {
  const series = Object.fromEntries(NAMES.map((name) => [name, []]));
  const later = samples.slice(1);
  later.forEach((sample, i) => {
    const { info } = sample;
    const latency = (name) => info.Latency[`${name}_usec_1m`] || null;
    const point = {
      ...rates(samples[Math.max(0, i - 4)], sample),
      hit_p50_usec: latency('hit_p50'),
      hit_p99_usec: latency('hit_p99'),
      miss_p50_usec: latency('miss_p50'),
      miss_p99_usec: latency('miss_p99'),
      l1_bytes: info.L1.l1_bytes,
      buffers_bytes: info.ProxyClients.buffers_bytes,
      proxy_memory_bytes: info.Proxy.proxy_memory_bytes,
      upstream_used_memory_bytes: info.Upstream.upstream_used_memory_bytes,
      proxy_clients: info.ProxyClients.proxy_clients,
      alerts_firing: info.Proxy.alerts_firing,
    };
    for (const name of NAMES) series[name].push(point[name]);
  });
  const now = (samples.at(-1)?.at_ms ?? Date.now()) / 1000;
  return { from: now - LIVE, to: now, step_seconds: 1, times: later.map((sample) => sample.at_ms / 1000), series };
}

// Where Shortstop was away there is no point, and the line must not go on.
function withGaps({ times, series, step_seconds: step }) {
  const out = { times: [], series: Object.fromEntries(NAMES.map((name) => [name, []])) };
  const add = (time, tell) => {
    out.times.push(time);
    for (const name of NAMES) out.series[name].push(tell(name));
  };
  times.forEach((time, i) => {
    if (i > 0 && time - times[i - 1] > 2.5 * step) add(times[i - 1] + step, () => null);
    add(time, (name) => series[name]?.[i] ?? null);
  });
  return out;
}

// Ticks that people read well: powers of ten on a logarithmic scale, powers of two for bytes.
const tens = (plot, axis, low, high) => [...Array(14).keys()].map((power) => 10 ** (power - 1)).filter((tick) => tick >= low && tick <= high);
const whole = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10_000, 50_000, 100_000, 1e6, 1e7];
const twos = [...Array(50).keys()].map((power) => 2 ** power);

const day = (at) => new Date(at * 1000).toLocaleDateString('en', { day: 'numeric', month: 'short' });
const minute = (at) => new Date(at * 1000).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function options(chart, width) {
  const axis = { stroke: color('quiet'), grid: { stroke: color('line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' };
  const tick = (value) => (value == null ? '' : value === 0 ? '0' : chart.format(value));
  const ticks = { ...(chart.log ? { splits: tens } : {}), ...(chart.format === bytes ? { incrs: twos } : chart.format === count ? { incrs: whole } : {}) };
  const line = ([, label, name]) => ({ label, stroke: color(name), width: 1.75, points: { show: false }, spanGaps: false, value: (plot, value) => chart.format(value) });
  return {
    width,
    height: HEIGHT,
    cursor: { sync: { key: 'shortstop' }, y: false, points: { size: 6 }, drag: { x: false, y: false } },
    scales: {
      x: { time: true, range: () => shown },
      y: chart.log ? { distr: 3 } : { range: chart.range ?? ((plot, low, high) => [0, Math.max(high * 1.1, 1)]) },
    },
    axes: [
      { ...axis, size: 28, space: 60, values: (plot, at) => at.map(range > 86_400 ? day : minute) },
      { ...axis, ...ticks, size: 74, values: (plot, values) => values.map(tick) },
    ],
    series: [{ label: 'time', value: (plot, at) => (at == null ? '–' : clock(at)) }, ...chart.lines.map(line)],
  };
}

// The time that the charts show.
let shown = [0, 1];

function draw() {
  for (const { plot } of plots) plot.destroy();
  const box = place('charts');
  box.replaceChildren();
  plots = CHARTS.map((chart) => {
    const inside = make('div');
    inside.setAttribute('role', 'img');
    const figure = make('figure', [make('figcaption', chart.title), inside]);
    box.append(figure);
    return { chart, inside, figure, plot: new uPlot(options(chart, figure.clientWidth || 300), [[], ...chart.lines.map(() => [])], inside) };
  });
}

function fill(data) {
  shown = [data.from, data.to];
  const { times, series } = withGaps(data);
  for (const { chart, plot, inside } of plots) {
    const lines = chart.lines.map(([name]) => series[name]);
    plot.setData([times, ...lines]);
    // Where nobody points, the latest values stand in the legend.
    if (plot.cursor.left < 0) plot.setLegend({ idx: times.length - 1 });
    const last = chart.lines.map(([, label], i) => `${label} ${chart.format(lines[i].at(-1))}`).join(', ');
    inside.setAttribute('aria-label', `${chart.title}, at last: ${last}`);
  }
  show(place('charts-note'), times.length > 1 ? '' : 'Nothing has been recorded yet: a sample comes every ten seconds.');
  place('charts').dataset.range = String(range);
  place('charts').dataset.points = String(times.length);
}

let kept = [];
async function update() {
  if (range === LIVE) {
    fill(columns(kept));
    return;
  }
  if (Date.now() - fetched < EVERY_MS) return;
  fetched = Date.now();
  const asked = range;
  const to = Math.floor(fetched / 1000);
  const history = await ask(`/api/history?from=${to - asked}&to=${to}&points=360`);
  if (history && range === asked) fill({ ...history, from: to - asked, to });
}

// Called for each sample.
export function charts(samples) {
  kept = samples;
  update();
}

function choose(seconds) {
  range = seconds;
  fetched = 0;
  for (const button of place('ranges').querySelectorAll('button')) button.setAttribute('aria-pressed', String(Number(button.value) === range));
  update();
}

export function start() {
  for (const [label, seconds] of RANGES) {
    const button = make('button', label, { type: 'button', value: String(seconds) });
    button.addEventListener('click', () => choose(seconds));
    place('ranges').append(button);
  }
  draw();
  choose(range);
  new ResizeObserver(() => {
    for (const { plot, figure } of plots) if (figure.clientWidth) plot.setSize({ width: figure.clientWidth, height: HEIGHT });
  }).observe(place('charts'));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    draw();
    choose(range);
  });
}
