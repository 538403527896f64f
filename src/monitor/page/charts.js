// Charts: the last minutes from the samples that the page has kept, longer times from /api/history. Both have the same names.

import { ask } from './source.js';
import { bytes, count, duration, percent } from './format.js';
import { rates } from './summary.js';

const RANGES = [['5 min', 300], ['15 min', 900], ['1 h', 3600], ['6 h', 21600], ['24 h', 86400], ['7 d', 604800]];

// The samples of the stream that are kept.
export const KEPT_MS = 900_000;

const CHARTS = [
  { title: 'Hit rate', format: percent, range: [0, 1], lines: [['hit_rate', 'hit rate', 'one']] },
  { title: 'Latency', format: duration, log: true, lines: [['hit_p50_usec', 'memory, median', 'one'], ['hit_p99_usec', 'memory, 99 %', 'three'], ['miss_p50_usec', 'Redis, median', 'two'], ['miss_p99_usec', 'Redis, 99 %', 'four']] },
  { title: 'Reads a second', format: count, lines: [['hits_per_second', 'from memory', 'one'], ['misses_per_second', 'from Redis', 'two']] },
  { title: 'Memory', format: bytes, lines: [['l1_bytes', 'L1', 'one'], ['buffers_bytes', 'buffers of clients', 'two']] },
];
const NAMES = CHARTS.flatMap((chart) => chart.lines.map(([name]) => name));

let range = 300;
let plots = [];
let fetched = 0;

// The samples as history gives them.
function columns(samples) {
  const out = { times: [], series: Object.fromEntries(NAMES.map((name) => [name, []])) };
  for (let i = 1; i < samples.length; i += 1) {
    const { at_ms, info } = samples[i];
    if (info.Proxy.incarnation !== samples[i - 1].info.Proxy.incarnation) continue;
    const point = {
      ...rates(samples[Math.max(0, i - 5)].info.Proxy.incarnation === info.Proxy.incarnation ? samples[Math.max(0, i - 5)] : samples[i - 1], samples[i]),
      hit_p50_usec: info.Latency.hit_p50_usec_1m || null,
      hit_p99_usec: info.Latency.hit_p99_usec_1m || null,
      miss_p50_usec: info.Latency.miss_p50_usec_1m || null,
      miss_p99_usec: info.Latency.miss_p99_usec_1m || null,
      l1_bytes: info.L1.l1_bytes,
      buffers_bytes: info.ProxyClients.buffers_bytes,
    };
    out.times.push(at_ms / 1000);
    for (const name of NAMES) out.series[name].push(point[name]);
  }
  return out;
}

// Ticks that people read well: powers of ten on a logarithmic scale, powers of two for bytes.
const tens = (plot, axis, low, high) => [...Array(14).keys()].map((power) => 10 ** (power - 1)).filter((tick) => tick >= low && tick <= high);
const twos = [...Array(50).keys()].map((power) => 2 ** power);

// The time of a tick; on a long range the day.
function clock(at) {
  const date = new Date(at * 1000);
  return range > 86_400
    ? date.toLocaleDateString('en', { day: 'numeric', month: 'short' })
    : date.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function options(chart, width) {
  const axis = { stroke: color('quiet'), grid: { stroke: color('line'), width: 1 }, ticks: { show: false }, font: '12px system-ui, sans-serif' };
  return {
    width,
    height: 190,
    cursor: { sync: { key: 'shortstop' }, y: false, points: { size: 6 } },
    scales: {
      x: { time: true, range: (plot, low, high) => (range <= 900 ? [high - range, high] : [low, high]) },
      y: chart.log ? { distr: 3 } : { range: chart.range ?? ((plot, low, high) => [0, Math.max(high * 1.1, 1)]) },
    },
    axes: [{ ...axis, size: 28, space: 60, values: (plot, ticks) => ticks.map(clock) }, { ...axis, ...(chart.log ? { splits: tens } : {}), ...(chart.format === bytes ? { incrs: twos } : {}), size: 74, values: (plot, ticks) => ticks.map((tick) => (tick == null ? '' : tick === 0 ? '0' : chart.format(tick))) }],
    series: [
      { label: 'time', value: (plot, at) => (at == null ? '–' : new Date(at * 1000).toLocaleTimeString('en-GB')) },
      ...chart.lines.map(([, label, line]) => ({ label, stroke: color(line), width: 1.75, points: { show: false }, spanGaps: false, value: (plot, value) => chart.format(value) })),
    ],
  };
}

function draw() {
  for (const { plot } of plots) plot.destroy();
  const box = document.getElementById('charts');
  box.replaceChildren();
  plots = CHARTS.map((chart) => {
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    caption.textContent = chart.title;
    const inside = document.createElement('div');
    inside.setAttribute('role', 'img');
    figure.append(caption, inside);
    box.append(figure);
    const plot = new uPlot(options(chart, figure.clientWidth || 300), [[], ...chart.lines.map(() => [])], inside);
    return { chart, plot, inside, figure };
  });
}

function fill({ times, series }) {
  for (const { chart, plot, inside } of plots) {
    const none = times.map(() => null);
    const lines = chart.lines.map(([name]) => series[name] ?? none);
    plot.setData([times, ...lines]);
    // Where nobody points, the latest values stand in the legend.
    if (plot.cursor.left < 0) plot.setLegend({ idx: times.length - 1 });
    const last = chart.lines.map(([, label], i) => `${label} ${chart.format(lines[i].at(-1))}`).join(', ');
    inside.setAttribute('aria-label', `${chart.title}, now: ${last}`);
  }
}

let kept = [];
async function update() {
  if (range <= 900) {
    fill(columns(kept));
    return;
  }
  if (Date.now() - fetched < 10_000) return;
  fetched = Date.now();
  const to = Math.floor(fetched / 1000);
  const history = await ask(`/api/history?from=${to - range}&to=${to}&points=360`);
  if (history && range > 900) fill(history);
}

// Called for each sample.
export function charts(samples) {
  kept = samples;
  update();
}

export async function start() {
  const box = document.getElementById('ranges');
  const to = Math.floor(Date.now() / 1000);
  const hasHistory = (await ask(`/api/history?from=${to - 60}&to=${to}&points=1`)) !== null;
  for (const [label, seconds] of RANGES.filter(([, seconds]) => hasHistory || seconds <= 900)) {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = label;
    button.setAttribute('aria-pressed', String(seconds === range));
    button.addEventListener('click', () => {
      range = seconds;
      fetched = 0;
      for (const other of box.querySelectorAll('button')) other.setAttribute('aria-pressed', String(other === button));
      update();
    });
    box.append(button);
  }
  if (!hasHistory) document.getElementById('charts-note').textContent = 'The charts begin when this page is opened.';
  draw();
  update();
  new ResizeObserver(() => {
    for (const { plot, figure } of plots) if (figure.clientWidth) plot.setSize({ width: figure.clientWidth, height: 190 });
  }).observe(document.getElementById('charts'));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    draw();
    fetched = 0;
    update();
  });
}
