// Numbers and times as people read them. Knows no page.

const nothing = '–';

export const count = (number) =>
  number == null ? nothing : number >= 1e5 ? short(number) : number.toLocaleString('en', { maximumFractionDigits: number < 10 ? 1 : 0 });

function short(number) {
  for (const [size, letter] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (number >= size) return `${(number / size).toPrecision(3)} ${letter}`;
  }
  return String(number);
}

export function bytes(number) {
  if (number == null) return nothing;
  for (const [size, unit] of [[2 ** 40, 'TiB'], [2 ** 30, 'GiB'], [2 ** 20, 'MiB'], [2 ** 10, 'KiB']]) {
    if (number >= size) return `${(number / size).toFixed(1)} ${unit}`;
  }
  return `${Math.round(number)} B`;
}

export const percent = (ratio) => (ratio == null ? nothing : `${(ratio * 100).toFixed(1)} %`);

// From microseconds.
export function duration(usec) {
  if (!usec) return nothing;
  if (usec < 1000) return `${usec < 10 ? usec.toFixed(1) : Math.round(usec)} µs`;
  return usec < 1e6 ? `${(usec / 1000).toPrecision(3)} ms` : `${(usec / 1e6).toPrecision(3)} s`;
}

export function span(seconds) {
  if (seconds == null) return nothing;
  const whole = Math.max(0, Math.floor(seconds));
  for (const [size, unit, below, small] of [[86400, 'd', 3600, 'h'], [3600, 'h', 60, 'min'], [60, 'min', 1, 's']]) {
    if (whole >= size) return `${Math.floor(whole / size)} ${unit} ${Math.floor((whole % size) / below)} ${small}`;
  }
  return `${whole} s`;
}

// From milliseconds.
export const millis = (ms) => (ms == null ? nothing : ms < 1000 ? `${ms} ms` : ms < 60_000 ? `${(ms / 1000).toPrecision(3)} s` : span(ms / 1000));

// A time of today without the day. Takes seconds of Unix time, or a text.
export function clock(time) {
  const date = new Date(typeof time === 'number' ? time * 1000 : time);
  const isToday = date.toDateString() === new Date().toDateString();
  const day = date.toLocaleDateString('en', { day: 'numeric', month: 'short' });
  return `${isToday ? '' : `${day} `}${date.toLocaleTimeString('en-GB')}`;
}

// A name of Shortstop's, such as never_requested.
export const words = (name) => (name == null ? nothing : name.replaceAll('_', ' '));

// A key or another string of a client, which need not be text.
export const bytestring = (value) => (typeof value === 'string' ? value : `base64:${value.base64}`);

// A field of INFO in its unit.
export function field(value, unit) {
  if (value === null || value === undefined) return nothing;
  if (typeof value === 'object') return Object.entries(value).map(([name, number]) => `${name} ${count(number)}`).join(', ');
  if (typeof value !== 'number') return String(value) || nothing;
  switch (unit) {
    case 'bytes': return bytes(value);
    case 'ratio': return value.toFixed(3);
    case 'seconds': return value > 1e9 ? new Date(value * 1000).toLocaleString() : span(value);
    case 'milliseconds': return millis(value);
    case 'microseconds': return duration(value);
    default: return value.toLocaleString('en');
  }
}
