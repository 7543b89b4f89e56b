// Dead letters of all channels, and how they are sent again.

import {channelPath, get, post} from './api.js';
import {cell, confirm, h, row, table, text} from './dom.js';
import {bytes, count, moment} from './format.js';
import {contentButton} from './messages.js';

const columns = [['Received', ''], ['Control ID', 'id'], ['Attempts', 'num'], ['Last error', 'wide'], ['Size', 'num'], ['Actions', 'act', true]];
const page = 50;

export function deadLetters(app) {
  const groups = new Map(); // by channel and destination
  const none = h('p', {class: 'empty', hidden: true}, 'There are no dead letters.');
  const element = h('div', {}, h('h1', {tabindex: '-1'}, 'Dead letters'),
    h('p', {class: 'muted'}, 'What a destination has refused for good, or too often. Sending again puts it at the end of the queue.'), none);

  const group = (channel, name) => {
    const number = h('span', {class: 'badge', 'data-kind': 'bad'});
    const {element: list, body} = table(`Dead letters of ${channel.name}, ${name}`, columns, 'messages');
    const more = h('p', {class: 'note', hidden: true}, `The oldest ${page} are shown.`);
    const query = new URLSearchParams({destination: name});
    const all = h('button', {type: 'button', async click() {
      if (!await confirm('Send all of them again?', `Every dead letter of ${channel.name}, ${name}, is put at the end of its queue, in order.`, 'Send all again')) return;
      await send(() => post(`${channelPath(channel.id, 'deadLetters', '_requeue')}?${query}`, {all: true}));
    }}, 'Send all again');
    const send = async (request) => {
      all.disabled = true;
      try {
        const {requeued} = await request();
        app.say(requeued === 1 ? 'It is in the queue again.' : `${count(requeued)} are in the queue again.`);
      } catch (error) {
        app.failed(error);
      }
      all.disabled = false;
      await fetchAll();
    };
    const line = (d) => {
      const place = h('td', {role: 'cell', colspan: String(columns.length)});
      const again = h('button', {type: 'button', class: 'small', 'aria-label': `Send again: message ${d.messageId}`, click() {
        again.disabled = true;
        send(() => post(`${channelPath(channel.id, 'deadLetters', d.sequence, '_requeue')}?${query}`));
      }}, 'Send again');
      return [row({'data-message': String(d.messageId)},
        cell('Received', '', h('time', {datetime: d.receivedDate}, moment(d.receivedDate))), cell('Control ID', 'id', d.controlId || '–'),
        cell('Attempts', 'num', count(d.attempts)),
        cell('Last error', 'wide', d.lastError || '–', d.maybeSent ? h('span', {class: 'note'}, 'may have arrived: sending again may make a second one') : null),
        cell('Size', 'num', bytes(d.bytes)), cell('', 'act', again, contentButton(app, channel.id, d.messageId, place))),
      row({class: 'opened'}, place)];
    };
    let known = -1;
    const fetchAll = async () => {
      if (!details.open) return;
      try {
        const found = await get(`${channelPath(channel.id, 'deadLetters')}?${query}&limit=${page}`);
        body.replaceChildren(...found.flatMap(line));
        more.hidden = found.length < page;
      } catch (error) {
        app.failed(error);
      }
    };
    const details = h('details', {class: 'group', toggle: () => fetchAll()},
      h('summary', {}, h('h2', {}, `${channel.name} → ${name} `, number)), h('div', {class: 'buttons'}, all), list, more);
    return {details, show(n) {
      text(number, count(n));
      if (n !== known && known >= 0) fetchAll();
      known = n;
    }};
  };

  const changed = () => {
    const there = new Set();
    for (const {status, destinations} of app.model.channels.values()) {
      for (const d of destinations) {
        if (d.statistics.error === 0) continue;
        const key = JSON.stringify([status.channelId, d.name]);
        there.add(key);
        if (!groups.has(key)) {
          const g = group({id: status.channelId, name: status.name}, d.name);
          groups.set(key, g);
          element.append(g.details);
          g.details.open = groups.size <= 3;
        }
        groups.get(key).show(d.statistics.error);
      }
    }
    for (const [key, g] of groups) if (!there.has(key)) { g.details.remove(); groups.delete(key); }
    none.hidden = groups.size > 0;
    text(none, app.model.complete ? 'There are no dead letters.' : 'Waiting for the engine …');
  };
  changed();
  return {title: 'Dead letters', element, changed};
}
