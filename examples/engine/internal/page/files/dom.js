// The one place that makes elements. What is put in becomes text or an attribute,
// never markup: nothing here could turn a channel's name or a message into an element.

const attributes = new Set(['class', 'id', 'for', 'href', 'type', 'name', 'role', 'scope', 'tabindex', 'title', 'value', 'autocomplete',
  'minlength', 'maxlength', 'colspan', 'datetime', 'placeholder', 'spellcheck', 'method', 'viewBox', 'preserveAspectRatio', 'd', 'points',
  'focusable', 'autocapitalize']);
const switches = new Set(['hidden', 'disabled', 'required', 'checked', 'open', 'selected']);

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (value === undefined || value === null) continue;
    else if (switches.has(name)) element.toggleAttribute(name, Boolean(value));
    else if (attributes.has(name) || name.startsWith('aria-') || name.startsWith('data-')) element.setAttribute(name, value);
    else throw new Error(`no attribute of this page: ${name}`);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// h makes an element: h('a', {href: '#/'}, 'Channels'). A property that is a function
// listens to the event of that name.
export const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);

// svg does the same for drawings.
export const svg = (tag, properties, ...children) => fill(document.createElementNS('http://www.w3.org/2000/svg', tag), properties, children);

// text changes what an element says, if it is something else: a screen reader and the
// layout are left alone otherwise.
export function text(element, value) {
  const words = String(value);
  if (element.textContent !== words) element.textContent = words;
}

// table makes a table that stays one for screen readers when it is laid out as cards
// on a phone. columns are [heading, class] pairs; a heading that explains itself is for
// screen readers alone: [heading, class, true].
export function table(caption, columns, className) {
  const body = h('tbody', {role: 'rowgroup'});
  const element = h('table', {role: 'table', class: className, 'aria-label': caption},
    h('thead', {role: 'rowgroup'}, h('tr', {role: 'row'}, columns.map(([heading, kind, alone]) =>
      h('th', {role: 'columnheader', scope: 'col', class: kind}, alone ? h('span', {class: 'hidden'}, heading) : heading)))),
    body);
  return {element, body};
}

// cell makes a cell that says its heading on a phone.
export const cell = (label, kind, ...children) => h('td', {role: 'cell', class: kind, 'data-label': label}, ...children);
export const row = (properties, ...cells) => h('tr', {role: 'row', ...properties}, ...cells);

// confirm asks before something is done that others notice. It answers true or false.
export function confirm(question, explanation, yes) {
  const {promise, resolve} = Promise.withResolvers?.() ?? deferred();
  const finish = (answer) => { resolve(answer); dialog.close(); };
  const dialog = h('dialog', {'aria-labelledby': 'question', 'aria-describedby': 'explanation', close: () => { resolve(false); dialog.remove(); }},
    h('h2', {id: 'question'}, question), h('p', {id: 'explanation'}, explanation),
    h('div', {class: 'buttons'},
      h('button', {type: 'button', class: 'quiet', click: () => finish(false)}, 'Cancel'),
      h('button', {type: 'button', class: 'strong', click: () => finish(true)}, yes)));
  document.body.append(dialog);
  dialog.showModal();
  return promise;
}

function deferred() {
  let resolve;
  const promise = new Promise((f) => { resolve = f; });
  return {promise, resolve};
}
