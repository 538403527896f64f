// The page: connects what it shows with where that comes from.

import { actions, start as startActions } from './actions.js';
import { advice } from './advice.js';
import { alerts } from './alerts.js';
import * as charts from './charts.js';
import { place, show } from './dom.js';
import { events } from './events.js';
import { start as startExplain } from './explain.js';
import { fields, start as startFields } from './fields.js';
import { fleet } from './fleet.js';
import { keys } from './keys.js';
import { report } from './report.js';
import { follow, forget, learn } from './source.js';
import { summary } from './summary.js';
import { askToken } from './token.js';

// How often that is asked for which is not streamed.
const EVERY = 5000;

let samples = [];
let isStarted = false;

function link(text, look) {
  show(place('link'), text);
  place('link').className = look;
}

// Whether Shortstop does not answer. What is shown is then old, and stays, dimmed.
const isAway = () => document.body.classList.contains('away');

async function slow() {
  if (isAway()) return;
  await Promise.all([alerts(), report(), fleet(), keys(), advice(), events(), actions()]);
  for (const entry of document.querySelectorAll('nav a')) entry.hidden = place(entry.hash.slice(1)).hidden;
}

async function start() {
  isStarted = true;
  await learn();
  startExplain();
  startActions();
  charts.start();
  await Promise.all([startFields(), slow()]);
  setInterval(slow, EVERY);
}

async function sample(latest) {
  samples = samples.filter((old) => old.at_ms > latest.at_ms - charts.KEPT_MS);
  // A new process counts from zero again, and may have other paths.
  if (samples.length > 0 && samples.at(-1).info.Proxy.incarnation !== latest.info.Proxy.incarnation) {
    samples = [];
    await learn();
  }
  samples.push(latest);
  summary(samples);
  if (!isStarted) start();
  charts.charts(samples);
  fields(latest.info);
  document.documentElement.dataset.samples = String(Number(document.documentElement.dataset.samples ?? 0) + 1);
}

async function state(name, why) {
  document.body.classList.toggle('away', name === 'closed');
  if (name === 'open') link('● connected', 'good');
  if (name === 'closed') link('○ Shortstop does not answer; trying again', 'bad');
  if (name !== 'locked') return;
  link('○ locked', 'bad');
  forget();
  while (!(await askToken(`Reading needs the token of the monitor. ${why}`)));
}

follow(sample, state);
