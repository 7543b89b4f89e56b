// One channel: what flows, its connectors, its certificates, its messages.

import {get} from './api.js';
import {cell, h, row, table, text} from './dom.js';
import {count, moment, rate, span, state} from './format.js';
import {certificateTable} from './certificates.js';
import {messages} from './messages.js';
import {address, askStop, setPill, statePill} from './parts.js';
import {plot} from './plot.js';

const columns = [['Connector', 'name'], ['Kind', ''], ['State', 'state'], ['Received', 'num'], ['Sent', 'num'], ['Waiting', 'num'],
  ['Oldest waits', 'num'], ['Dead letters', 'num']];

// possible are the commands of each state, the usual one first.
const possible = {STARTED: ['stop', 'pause'], PAUSED: ['resume', 'stop'], STOPPED: ['start'], UNDEPLOYED: ['deploy']};
const names = {start: 'Start', stop: 'Stop', pause: 'Pause', resume: 'Resume', deploy: 'Deploy'};
const done = {start: 'started', stop: 'stopped', pause: 'paused', resume: 'resumed', deploy: 'deployed'};

export function oneChannel(app, id) {
  const heading = h('h1', {tabindex: '-1'}, id), where = h('p', {class: 'muted'}), current = statePill('UNKNOWN');
  const buttons = h('div', {class: 'buttons', role: 'group', 'aria-label': 'Commands'});
  const flow = (label) => {
    const drawing = plot('large'), now = h('span', {class: 'value'}), most = h('span', {class: 'note'});
    return {drawing, now, most, element: h('li', {}, h('span', {class: 'label'}, label), now, most, drawing.element)};
  };
  const received = flow('Received'), sent = flow('Sent'), waiting = flow('Waiting');
  const {element: connectors, body} = table('Connectors', columns, 'connectors');
  const certs = h('div', {}), list = app.may('operator') ? messages(app, id) : null;
  const gone = h('p', {class: 'empty', hidden: true}, 'There is no such channel.');

  let offered = '';
  const offer = (channel) => {
    const verbs = app.may('operator') ? possible[channel.status.state] ?? [] : [];
    if (offered === verbs.join()) return;
    offered = verbs.join();
    const focused = buttons.contains(document.activeElement);
    buttons.replaceChildren(...verbs.map((verb, i) => h('button', {type: 'button', class: i === 0 ? '' : 'quiet', async click(event) {
      const now = app.model.channels.get(id);
      if ((verb === 'stop' || verb === 'pause') && !await askStop(now, verb)) return;
      event.target.disabled = true;
      await app.command(id, verb, `${now.status.name} is ${done[verb]}.`);
      event.target.disabled = false;
    }}, names[verb])));
    if (focused) buttons.querySelector('button')?.focus();
  };

  const lines = [];
  const connect = (channel) => {
    const children = channel.status.childStatuses;
    if (lines.length !== children.length || lines.some((l, i) => l.name !== children[i].name)) {
      lines.splice(0, lines.length, ...children.map((child, i) => {
        const pill = statePill(child.state);
        const [kind, into, out, queued, oldest, dead] = Array.from({length: 6}, () => h('span', {}));
        return {name: child.name, pill, kind, into, out, queued, oldest, dead, element: row({},
          cell('Connector', 'name', i === 0 ? 'Source' : child.name), cell('Kind', '', kind), cell('State', 'state', pill), cell('Received', 'num', into),
          cell('Sent', 'num', out), cell('Waiting', 'num', queued), cell('Oldest waits', 'num', oldest), cell('Dead letters', 'num', dead))};
      }));
      body.replaceChildren(...lines.map((l) => l.element));
    }
    children.forEach((child, i) => {
      const l = lines[i], s = child.statistics;
      setPill(l.pill, ...state(child.state));
      text(l.kind, child.transportName ?? 'no longer configured');
      text(l.into, count(s.received));
      text(l.out, i === 0 ? '' : count(s.sent) + (child.confirmed === false ? ' (not confirmed)' : ''));
      text(l.queued, i === 0 ? '' : count(s.queued));
      text(l.dead, i === 0 ? '' : count(s.error));
      l.queued.dataset.kind = s.queued > 0 ? 'wait' : '';
      l.dead.dataset.kind = s.error > 0 ? 'bad' : '';
    });
  };

  let counted = '';
  const changed = (ids) => {
    const channel = app.model.channels.get(id);
    gone.hidden = Boolean(channel) || !app.model.complete;
    content.hidden = !channel;
    if (!channel || !ids.includes(id)) return;
    const {status} = channel;
    text(heading, status.name);
    text(where, [`ID ${status.channelId}`, address(status), status.listenerInfo.transportType ? `${status.listenerInfo.connectionCount} connected` : '']
      .filter(Boolean).join(' · '));
    setPill(current, ...state(status.state));
    offer(channel);
    connect(channel);
    const now = JSON.stringify(status.statistics);
    if (counted !== now) list?.changed(status.statistics, counted === '');
    counted = now;
  };

  const look = async () => {
    try {
      const uses = await get(`/api/certificates?channelId=${encodeURIComponent(id)}`);
      certs.replaceChildren(uses.length ? certificateTable(uses, app.model.now(), false) : h('p', {class: 'empty'}, 'No connector of this channel uses TLS.'));
    } catch (error) {
      certs.replaceChildren(h('p', {class: 'wrong'}, error.message));
    }
  };
  const looking = setInterval(look, 15_000);
  look();

  const content = h('div', {hidden: true},
    h('div', {class: 'headline'}, h('div', {}, heading, where), h('div', {class: 'do'}, current, buttons)),
    h('ul', {class: 'figures flows', 'aria-label': 'The last two minutes'}, received.element, sent.element, waiting.element),
    h('section', {}, h('h2', {}, 'Connectors'), connectors),
    h('section', {}, h('h2', {}, 'Certificates'), certs),
    h('section', {}, h('h2', {}, 'Messages'), list ? list.element : h('p', {class: 'empty'}, 'Messages are for the role operator.')));
  const view = {title: app.model.channels.get(id)?.status.name ?? id, element: h('div', {}, h('p', {class: 'back'}, h('a', {href: '#/'}, '← All channels')), gone, content), changed, tick() {
    const channel = app.model.channels.get(id);
    if (!channel) return;
    const now = app.model.now();
    for (const [part, history, say] of [[received, channel.received, rate], [sent, channel.sent, rate], [waiting, channel.waiting, count]]) {
      part.drawing.draw(history);
      text(part.now, part === waiting ? count(channel.status.statistics.queued) : rate(history.mean()));
      text(part.most, `most ${say(history.most())}`);
    }
    const at = channel.status.lastReceived;
    text(received.most, at ? `last ${span(now - new Date(at))} ago` : 'none yet');
    received.most.title = at ? moment(at) : '';
    channel.destinations.forEach((child, i) => text(lines[i + 1].oldest, child.oldestQueued ? span(now - new Date(child.oldestQueued)) : '–'));
    list?.tick();
  }, close() {
    clearInterval(looking);
    list?.close();
  }};
  changed([id]);
  return view;
}
