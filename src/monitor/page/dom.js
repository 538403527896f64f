// Elements of the page: made, filled, and left alone where nothing has changed, so that neither the focus nor a selection is lost.

export const place = (id) => document.getElementById(id);

export function make(name, content, more = {}) {
  const element = Object.assign(document.createElement(name), more);
  if (content !== undefined && content !== null) element.append(...[content].flat());
  return element;
}

// Writes a text, and one of the looks good, warn, bad or none.
export function show(element, text, look) {
  if (element.textContent !== text) element.textContent = text;
  if (look !== undefined) for (const name of ['good', 'warn', 'bad']) element.classList.toggle(name, name === look);
}

// Shows data with `draw`, unless the same data is shown there already.
export function redraw(element, data, draw) {
  const text = JSON.stringify(data);
  if (element.shown === text) return;
  element.shown = text;
  element.replaceChildren(...[draw(data)].flat());
}

// A table that scrolls by itself if it is too wide. A column is [title, what a row shows there, look]; a column in which no row has
// something is left out. What it shows is a text or an element.
export function table(label, columns, rows) {
  const cells = rows.map((row) => columns.map(([, tell]) => tell(row)));
  const used = columns.map((_, i) => cells.some((line) => line[i] !== null && line[i] !== undefined));
  const kept = (list) => list.filter((_, i) => used[i]);
  const look = columns.map(([, , name]) => (name ? { className: name } : {}));
  const head = make('tr', kept(columns.map(([title], i) => make('th', title, { scope: 'col', ...look[i] }))));
  const body = cells.map((line) => make('tr', kept(line.map((cell, i) => make('td', cell ?? '–', look[i])))));
  const scroll = make('div', make('table', [make('thead', head), make('tbody', body)]), { className: 'scroll', tabIndex: 0 });
  scroll.setAttribute('role', 'region');
  scroll.setAttribute('aria-label', label);
  return scroll;
}

// Names and what they are. A value that is null is left out.
export function list(pairs) {
  const lines = pairs.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return make('dl', lines.map(([name, value]) => make('div', [make('dt', name), make('dd', value)])));
}

export const quiet = (text) => make('p', text, { className: 'quiet' });

// A button that does something and cannot be pressed meanwhile.
export function button(text, does) {
  const out = make('button', text, { type: 'button' });
  out.addEventListener('click', async () => {
    out.disabled = true;
    await does();
    out.disabled = false;
  });
  return out;
}
