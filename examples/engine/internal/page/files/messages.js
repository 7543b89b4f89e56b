// A channel's messages, by state. What is in them is shown when somebody asks for it,
// and the asking is written into the audit log.

import {channelPath, get, post} from './api.js';
import {cell, confirm, h, row, table, text} from './dom.js';
import {bytes, count, moment, outcome} from './format.js';
import {pill} from './parts.js';

const columns = [['Received', ''], ['Control ID', 'id'], ['Size', 'num'], ['What became of it', 'wide'], ['Actions', 'act', true]];
const page = 25;
const shownBytes = 256 * 1024; // of one message
const pause = 3000;            // ms between two looks at a list that changes

// read makes text of a message. What is not UTF-8 was most often meant as Latin-1.
function read(raw) {
  const part = raw.subarray(0, shownBytes);
  let words;
  try {
    words = new TextDecoder('utf-8', {fatal: raw.length === part.length}).decode(part);
  } catch {
    words = new TextDecoder('iso-8859-1').decode(part);
  }
  return words.replace(/\r\n?/g, '\n');
}

// contentButton shows and hides the content of a message in place, a container.
export function contentButton(app, channel, message, place) {
  const button = h('button', {type: 'button', class: 'quiet small', 'aria-expanded': 'false', 'aria-label': `Show content of message ${message}`, async click() {
    if (place.firstChild) {
      place.replaceChildren();
      say(false);
      return;
    }
    button.disabled = true;
    try {
      const raw = await get(channelPath(channel, 'messages', message, 'content'), {raw: true});
      const rest = raw.length - shownBytes;
      place.replaceChildren(h('div', {class: 'content'},
        h('p', {class: 'note'}, `Message ${message}, ${bytes(raw.length)}. That you looked is in the audit log.${rest > 0 ? ` The last ${bytes(rest)} are not shown.` : ''}`),
        h('pre', {tabindex: '0', role: 'region', 'aria-label': `Content of message ${message}`}, read(raw))));
      say(true);
    } catch (error) {
      app.failed(error);
    }
    button.disabled = false;
    button.focus();
  }}, 'Show content');
  const say = (open) => {
    text(button, open ? 'Hide content' : 'Show content');
    button.setAttribute('aria-expanded', String(open));
    button.setAttribute('aria-label', `${open ? 'Hide' : 'Show'} content of message ${message}`);
  };
  return button;
}

export function messages(app, channel) {
  const kinds = [['', 'All', 'received'], ['QUEUED', 'Waiting', 'queued'], ['SENT', 'Sent', 'sent'], ['ERROR', 'Dead letters', 'error'], ['FILTERED', 'Filtered', 'filtered']];
  let kind = '', before = 0, dirty = true, looked = 0, busy = false, open = true;
  const tabs = kinds.map(([value, name]) => {
    const number = h('span', {class: 'badge'}, '0');
    const input = h('input', {type: 'radio', name: 'kind', value, id: `kind-${value}`, checked: value === '', change() { kind = value; before = 0; look(); }});
    return {number, element: h('label', {class: 'tab', for: `kind-${value}`}, input, h('span', {}, name, ' ', number))};
  });
  const {element: list, body} = table('Messages', columns, 'messages');
  const none = h('p', {class: 'empty', hidden: true}, 'No messages.');
  const newest = h('button', {type: 'button', class: 'quiet small', hidden: true, click() { before = 0; look(); }}, 'Newest');
  const older = h('button', {type: 'button', class: 'quiet small', hidden: true, click() { before = last; look(); }}, 'Older');
  let last = 0;
  const lines = new Map(); // by number of the message: what is open stays open when the list is looked at again

  const line = (m) => {
    const place = h('td', {role: 'cell', colspan: String(columns.length)});
    const content = row({class: 'opened'}, place);
    const became = h('span', {class: 'outcomes'});
    const main = row({'data-message': String(m.messageId)},
      cell('Received', '', h('time', {datetime: m.receivedDate}, moment(m.receivedDate))), cell('Control ID', 'id', m.controlId || '–'),
      cell('Size', 'num', bytes(m.bytes)), cell('What became of it', 'wide', became),
      cell('', 'act', contentButton(app, channel, m.messageId, place),
        h('button', {type: 'button', class: 'quiet small', 'aria-label': `Process again: message ${m.messageId}`, click: () => again(m.messageId)}, 'Process again')));
    return {elements: [main, content], show(now) {
      const of = Object.values(now.connectorMessages), deliveries = of.filter((c) => c.metaDataId > 0);
      const said = JSON.stringify(deliveries);
      if (became.dataset.said === said && said !== '[]') return;
      became.dataset.said = said;
      became.replaceChildren(...(deliveries.length ? deliveries : of).map((c) => h('span', {class: 'outcome'},
        deliveries.length ? `${c.connectorName} ` : '', pill(...outcome(c.status)),
        c.sendAttempts > 0 ? h('span', {class: 'note'}, `${c.sendAttempts} failed${c.lastError ? `: ${c.lastError}` : ''}`) : null,
        c.maybeSent ? h('span', {class: 'note'}, 'may have arrived') : null)));
    }};
  };

  const again = async (id) => {
    if (!await confirm(`Process message ${id} again?`, 'It is taken in as a new message and sent to every destination of the channel, also to those that have it.', 'Process again')) return;
    try {
      const {messageId} = await post(channelPath(channel, 'messages', id, '_reprocess'));
      app.say(`Taken in again as message ${messageId}.`);
      before = 0;
      look();
    } catch (error) {
      app.failed(error);
    }
  };

  const look = async () => {
    if (busy) { dirty = true; return; }
    busy = true;
    dirty = false;
    looked = Date.now();
    const wanted = kind, from = before;
    try {
      const query = new URLSearchParams({limit: String(page)});
      if (wanted) query.set('status', wanted);
      if (from > 1) query.set('maxMessageId', String(from - 1));
      const found = await get(`${channelPath(channel, 'messages')}?${query}`);
      if (!open || wanted !== kind || from !== before) { dirty = true; return; }
      const keep = new Set(found.map((m) => m.messageId));
      for (const id of lines.keys()) if (!keep.has(id)) lines.delete(id);
      for (const m of found) {
        if (!lines.has(m.messageId)) lines.set(m.messageId, line(m));
        lines.get(m.messageId).show(m);
      }
      place(found.flatMap((m) => lines.get(m.messageId).elements));
      last = found.at(-1)?.messageId ?? 0;
      list.hidden = found.length === 0;
      none.hidden = found.length > 0;
      newest.hidden = before === 0;
      older.hidden = found.length < page;
    } catch (error) {
      if (error.status === 429) looked = Date.now() + 1000 * error.retryAfter;
      dirty = true;
      app.failed(error);
    } finally {
      busy = false;
    }
  };
  // place leaves alone what is where it belongs: the focus stays.
  const place = (elements) => {
    let at = body.firstElementChild;
    const wanted = new Set(elements);
    for (const element of elements) {
      while (at && !wanted.has(at)) { const next = at.nextElementSibling; at.remove(); at = next; }
      if (element === at) at = at.nextElementSibling;
      else body.insertBefore(element, at);
    }
    while (at) { const next = at.nextElementSibling; at.remove(); at = next; }
  };

  const element = h('div', {},
    h('fieldset', {class: 'tabs'}, h('legend', {class: 'hidden'}, 'State'), tabs.map((t) => t.element)),
    list, none, h('div', {class: 'buttons pages'}, newest, older));
  return {element, changed(statistics, now) {
    kinds.forEach(([, , of], i) => text(tabs[i].number, count(statistics[of])));
    dirty = true;
    if (now) look();
  }, tick() {
    // A page of older messages stays as it is while somebody reads it.
    if (dirty && before === 0 && !document.hidden && Date.now() - looked >= pause) look();
  }, close() { open = false; body.replaceChildren(); }};
}
