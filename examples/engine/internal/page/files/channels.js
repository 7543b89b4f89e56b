// All channels at a glance.

import {get} from './api.js';
import {cell, h, row, table, text} from './dom.js';
import {count, left, moment, rate, span, state} from './format.js';
import {address, askStop, setPill, statePill} from './parts.js';
import {plot} from './plot.js';

const columns = [['Channel', 'name'], ['State', 'state'], ['Received', 'flow'], ['Sent', 'num'], ['Waiting', 'num'],
  ['Oldest waits', 'num'], ['Dead letters', 'num'], ['Last message', 'num'], ['Actions', 'act', true]];

// attention tells whether somebody should look at a channel.
const attention = ({status}) => status.state !== 'STARTED' || status.statistics.error > 0 || status.statistics.queued > 0;

export function overview(app) {
  const figures = {};
  const figure = (key, label, href) => {
    const value = h('span', {class: 'value'}, '–'), note = h('span', {class: 'note'});
    figures[key] = (words, kind, more = '') => { text(value, words); value.dataset.kind = kind ?? ''; text(note, more); };
    const inside = [h('span', {class: 'label'}, label), value, note];
    return h('li', {}, href ? h('a', {href}, inside) : h('div', {}, inside));
  };
  const summary = h('ul', {class: 'figures', 'aria-label': 'Summary'},
    figure('running', 'Channels started'), figure('received', 'Received'), figure('waiting', 'Waiting'),
    app.may('operator') ? figure('dead', 'Dead letters', '#/deadletters') : figure('dead', 'Dead letters'),
    figure('certificates', 'Next certificate ends', '#/certificates'));

  const filter = h('input', {id: 'filter', type: 'search', autocomplete: 'off', spellcheck: 'false', placeholder: 'Name or ID', input: () => sift()});
  const only = h('input', {id: 'only', type: 'checkbox', change: () => sift()});
  const {element: list, body} = table('Channels', columns, 'channels');
  const none = h('p', {class: 'empty', hidden: true});
  const rows = new Map(); // by ID

  const line = (channel) => {
    const {channelId: id} = channel.status;
    const link = h('a', {href: `#/channels/${encodeURIComponent(id)}`}), where = h('span', {class: 'note'});
    const state = statePill(channel.status.state), drawing = plot(), received = h('span', {class: 'now'});
    const [sent, waiting, oldest, dead, last] = Array.from({length: 5}, () => h('span', {}));
    const act = h('button', {type: 'button', class: 'small', async click() {
      const {name, state: is} = app.model.channels.get(id).status, stop = is === 'STARTED' || is === 'PAUSED';
      if (stop && !await askStop(app.model.channels.get(id))) return;
      act.disabled = true;
      await app.command(id, stop ? 'stop' : is === 'UNDEPLOYED' ? 'deploy' : 'start', `${name} is ${stop ? 'stopped' : 'started'}.`);
      act.disabled = false;
      act.focus();
    }});
    const element = row({'data-channel': id},
      cell('Channel', 'name', link, where), cell('State', 'state', state),
      cell('Received', 'flow', drawing.element, received), cell('Sent', 'num', sent), cell('Waiting', 'num', waiting),
      cell('Oldest waits', 'num', oldest), cell('Dead letters', 'num', dead), cell('Last message', 'num', last),
      cell('', 'act', app.may('operator') ? act : null));
    return {element, drawing, received, sent, waiting, oldest, dead, last, link, where, state, act, show(channel) {
      const {status} = channel, {statistics} = status;
      text(link, status.name);
      text(where, address(status));
      setPill(state, ...stateOf(status));
      text(waiting, count(statistics.queued));
      waiting.dataset.kind = statistics.queued > 0 ? 'wait' : 'none';
      text(dead, count(statistics.error));
      dead.dataset.kind = statistics.error > 0 ? 'bad' : 'none';
      const stop = status.state === 'STARTED' || status.state === 'PAUSED';
      text(act, stop ? 'Stop' : 'Start');
      act.setAttribute('aria-label', `${stop ? 'Stop' : 'Start'} ${status.name}`);
    }, tick(channel, now) {
      drawing.draw(channel.received);
      text(received, rate(channel.received.mean()));
      text(sent, rate(channel.sent.mean()));
      text(oldest, channel.oldest ? span(now - new Date(channel.oldest)) : '–');
      const at = channel.status.lastReceived;
      text(last, at ? `${span(now - new Date(at))} ago` : 'none yet');
      if (at) last.title = moment(at);
    }};
  };
  const stateOf = (status) => state(status.state);

  const sift = () => {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const [id, r] of rows) {
      const channel = app.model.channels.get(id);
      const hide = !(channel.status.name.toLowerCase().includes(wanted) || id.toLowerCase().includes(wanted)) || only.checked && !attention(channel);
      r.element.hidden = hide;
      if (!hide) shown++;
    }
    list.hidden = shown === 0;
    none.hidden = shown > 0;
    text(none, !app.model.complete ? 'Waiting for the engine …' : rows.size === 0 ? 'The engine has no channels.' :
      wanted ? 'No channel has this in its name.' : 'All channels are started, and nothing waits.');
  };

  const changed = (ids) => {
    const {channels} = app.model;
    for (const id of ids) {
      const channel = channels.get(id);
      if (!channel) continue;
      if (!rows.has(id)) rows.set(id, line(channel));
      rows.get(id).show(channel);
    }
    for (const [id, r] of rows) if (!channels.has(id)) { r.element.remove(); rows.delete(id); }
    let at = body.firstElementChild;
    for (const id of channels.keys()) { // moves only what is not in its place: the focus stays
      const {element} = rows.get(id);
      if (element === at) at = at.nextElementSibling;
      else body.insertBefore(element, at);
    }
    sift();
    summarize();
  };

  const summarize = () => {
    const {model} = app, now = model.now();
    if (!model.complete) return;
    const started = model.total((c) => (c.status.state === 'STARTED' ? 1 : 0)), all = model.channels.size;
    figures.running(`${started} of ${all}`, started < all ? 'wait' : '');
    figures.received(rate(model.total((c) => c.received.mean())));
    const waiting = model.total((c) => c.status.statistics.queued);
    const oldest = [...model.channels.values()].map((c) => c.oldest).filter(Boolean).sort()[0];
    figures.waiting(count(waiting), waiting ? 'wait' : '', oldest ? `oldest ${span(now - new Date(oldest))}` : '');
    const dead = model.total((c) => c.status.statistics.error);
    figures.dead(count(dead), dead ? 'bad' : '');
  };

  const expiry = async () => {
    try {
      const own = (await get('/api/certificates')).flatMap((use) => use.certificates).filter((c) => c.use === 'leaf');
      const next = own.sort((a, b) => (a.notAfter < b.notAfter ? -1 : 1))[0];
      if (!next) figures.certificates('none in use');
      else { const [words, kind] = left(next.notBefore, next.notAfter, app.model.now()); figures.certificates(words, kind === 'good' ? '' : kind); }
    } catch { /* the figure stays as it was, and the next look tells */ }
  };
  const looking = setInterval(expiry, 60_000);
  expiry();

  const element = h('div', {},
    h('h1', {tabindex: '-1'}, 'Channels'), summary,
    h('div', {class: 'tools', role: 'search'}, h('span', {class: 'pair'}, h('label', {for: 'filter'}, 'Find'), filter),
      h('label', {class: 'check', for: 'only'}, only, 'Only what needs a look')),
    list, none);
  changed([...app.model.channels.keys()]);
  return {title: 'Channels', element, changed, tick() {
    const now = app.model.now();
    for (const [id, r] of rows) if (!r.element.hidden) r.tick(app.model.channels.get(id), now);
    summarize();
  }, close: () => clearInterval(looking)};
}
