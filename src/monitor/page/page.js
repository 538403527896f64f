// The page: connects what it shows with where that comes from.

import { ask, follow, forget, remember } from './source.js';
import { showAlerts, summary } from './summary.js';
import * as charts from './charts.js';
import * as tables from './tables.js';

const EVERY = 5000;

let samples = [];
let alerts = null;
let isStarted = false;

function link(text, look) {
  const element = document.getElementById('link');
  if (element.textContent !== text) element.textContent = text;
  element.className = look;
}

// What is asked for now and then, not streamed.
async function slow() {
  const answer = await ask('/api/alerts');
  const list = Array.isArray(answer) ? answer : answer?.alerts;
  alerts = Array.isArray(list) ? list.filter((alert) => alert.firing === true || alert.state === 'firing') : null;
  showAlerts(alerts);
  await tables.lists();
}

async function start() {
  isStarted = true;
  document.getElementById('login').hidden = true;
  await Promise.all([charts.start(), tables.startAll(), tables.startExplain(), slow()]);
  if (samples.length > 0) tables.all(samples.at(-1).info);
  setInterval(slow, EVERY);
}

function sample(latest) {
  samples = samples.filter((old) => old.at_ms > latest.at_ms - charts.KEPT_MS);
  // A new process counts from zero again.
  if (samples.length > 0 && samples.at(-1).info.Proxy.incarnation !== latest.info.Proxy.incarnation) {
    samples = [];
    forget();
  }
  samples.push(latest);
  if (!isStarted) start();
  summary(samples, alerts);
  charts.charts(samples);
  tables.all(latest.info);
  document.documentElement.dataset.samples = String(Number(document.documentElement.dataset.samples ?? 0) + 1);
}

async function state(name) {
  if (name === 'open') link('● live', 'good');
  if (name === 'closed') link('○ Shortstop does not answer; trying again', 'bad');
  if (name !== 'locked') return;
  link('○ locked', 'bad');
  const form = document.getElementById('login');
  form.hidden = false;
  await new Promise((done) => {
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      remember(document.getElementById('token').value);
      done();
    }, { once: true });
  });
}

follow(sample, state);
