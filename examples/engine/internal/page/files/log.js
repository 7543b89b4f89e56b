// The engine's log as it is written.

import {h, text} from './dom.js';
import {Socket} from './socket.js';

const most = 1000; // lines
const levels = {DEBUG: 0, INFO: 1, WARN: 2, ERROR: 3};

export function log() {
  const list = h('ol', {});
  const frame = h('div', {class: 'log', role: 'log', 'aria-live': 'off', 'aria-label': 'Log', tabindex: '0'}, list);
  const state = h('span', {class: 'note', role: 'status'}, 'Connecting');
  const level = h('select', {id: 'level', change: () => sift()}, ['DEBUG', 'INFO', 'WARN', 'ERROR'].map((l) => h('option', {value: l, selected: l === 'INFO'}, `${l[0]}${l.slice(1).toLowerCase()} and above`)));
  const filter = h('input', {id: 'words', type: 'search', autocomplete: 'off', spellcheck: 'false', input: () => sift()});
  const follow = h('input', {id: 'follow', type: 'checkbox', checked: true, change: () => end()});
  let last = 0;

  const wanted = (line) => levels[line.dataset.level] >= levels[level.value] && line.textContent.toLowerCase().includes(filter.value.trim().toLowerCase());
  const sift = () => {
    for (const line of list.children) line.hidden = !wanted(line);
    end();
  };
  const end = () => { if (follow.checked) frame.scrollTop = frame.scrollHeight; };
  const add = (entries) => {
    const lines = [];
    for (const e of entries) {
      if (e.id <= last) continue; // the history and what is pushed overlap
      last = e.id;
      const line = h('li', {'data-level': e.level in levels ? e.level : 'INFO'},
        h('time', {}, e.date.slice(11)), h('span', {class: 'level'}, e.level), h('span', {class: 'category'}, e.category), h('span', {class: 'words'}, e.message));
      line.hidden = !wanted(line);
      lines.push(line);
    }
    list.append(...lines);
    while (list.childElementCount > most) list.firstElementChild.remove();
    end();
  };

  const socket = new Socket('/ws/serverlog', {
    opened(send) {
      text(state, '');
      send({type: 'subscribe', filter: {}});
      // An engine that was started again counts from 1, but then the session has ended, too.
      send({type: 'getHistory', fetchSize: most, lastLogId: last});
    },
    received({type, data}) {
      if (type === 'history') add(data);
      else if (type === 'log') add([data]);
    },
    lost: () => text(state, 'The connection is lost.'),
    refused: async () => true,
  });
  return {title: 'Log', close: () => socket.close(), element: h('div', {class: 'logview'},
    h('h1', {tabindex: '-1'}, 'Log'),
    h('div', {class: 'tools', role: 'search'},
      h('span', {class: 'pair'}, h('label', {for: 'level'}, 'Level'), level),
      h('span', {class: 'pair'}, h('label', {for: 'words'}, 'Find'), filter),
      h('label', {class: 'check', for: 'follow'}, follow, 'Follow'), state), frame)};
}
