// The alerts: those that fire stand above everything; below are the thresholds, which may be set, and those that have cleared.

import { make, place, quiet, redraw, show, table } from './dom.js';
import { clock, duration, percent, span, words } from './format.js';
import { ask } from './source.js';
import { change } from './token.js';

// The number of an alert is a part of a whole, or a time in seconds. So is its threshold.
const isPart = (name) => /rate|usage/.test(name);
const value = (alert, number) => (number == null ? null : isPart(alert) ? percent(number) : duration(number * 1e6));

// What a threshold is typed as.
const typed = (name, number) => (isPart(name) ? `${+(number * 100).toFixed(3)}%` : `${+(number * 1000).toFixed(3)}ms`);

export async function alerts() {
  const known = await ask('/api/alerts');
  const firing = known?.firing ?? [];
  show(place('alert-count'), !known ? 'not known' : firing.length ? firing.map((alert) => words(alert.alert)).join(', ') : 'none fires', !known ? '' : firing.length ? 'bad' : 'good');
  banners(firing);
  place('alerts-part').hidden = !known;
  if (!known) return;
  redraw(place('thresholds'), known.thresholds, thresholds);
  redraw(place('past-alerts'), known.past, past);
}

// Alerts that fire, each as a line. A screen reader hears only what is new.
function banners(firing) {
  const box = place('alerts');
  const names = new Set(firing.map((alert) => alert.alert));
  for (const line of [...box.children]) if (!names.has(line.dataset.name)) line.remove();
  for (const { alert, text, value: number, threshold, since } of firing) {
    let line = [...box.children].find((child) => child.dataset.name === alert);
    if (!line) {
      line = make('p', [make('strong', words(alert)), make('span'), make('small')], { className: 'alert' });
      line.dataset.name = alert;
      box.append(line);
    }
    show(line.children[1], ` ${text}`);
    const numbers = number == null ? '' : ` ${value(alert, number)}${threshold == null ? '' : `; the threshold is ${value(alert, threshold)}`}.`;
    line.children[2].setAttribute('aria-live', 'off');
    show(line.children[2], `${numbers} Since ${clock(since)}`);
  }
}

function thresholds(known) {
  return Object.entries(known).map(([name, number]) => {
    const input = make('input', undefined, { id: `threshold-${name}`, value: typed(name, number), autocomplete: 'off' });
    const form = make('form', [make('label', words(name), { htmlFor: input.id }), input, make('button', 'Set')], { className: 'threshold' });
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      const done = await change('PUT', '/api/alerts', { [name]: input.value });
      show(place('threshold-done'), done.error ?? `${words(name)} is now ${typed(name, done.answer.thresholds[name])}, until the configuration is read again.`, done.error ? 'bad' : 'good');
    });
    return form;
  });
}

function past(list) {
  if (list.length === 0) return quiet('None has fired and cleared since the start.');
  return table('Alerts that have cleared', [
    ['alert', (alert) => words(alert.alert)],
    ['since', (alert) => clock(alert.since)],
    ['cleared', (alert) => clock(alert.cleared)],
    ['for', (alert) => span(alert.duration_seconds)],
    ['value', (alert) => value(alert.alert, alert.value), 'number'],
    ['threshold', (alert) => value(alert.alert, alert.threshold), 'number'],
  ], [...list].sort((one, other) => other.cleared - one.cleared));
}
