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

// A field of INFO in its unit.
export function field(value, unit) {
  if (value === null || value === undefined) return nothing;
  if (typeof value === 'object') return Object.entries(value).map(([name, number]) => `${name} ${count(number)}`).join(', ');
  if (typeof value !== 'number') return String(value) || nothing;
  switch (unit) {
    case 'bytes': return bytes(value);
    case 'ratio': return value.toFixed(3);
    case 'seconds': return value > 1e9 ? new Date(value * 1000).toLocaleString() : span(value);
    case 'milliseconds': return value < 1000 ? `${value} ms` : span(value / 1000);
    case 'microseconds': return duration(value);
    default: return value.toLocaleString('en');
  }
}
